"""Several machines split the work through a DVC remote and its run cache.

    dvc remote add --default store /mnt/everyone/store   # on each machine; or ssh://, s3://, ... (DVC's manual)
    python -m pipeline.share --part 1/3                  # on the first of three: its share of the training, pushed
    python -m pipeline.share --part rest                 # then, on any: takes what was pushed, and runs what is left

Each machine has the same commit and params.yaml. What is shared are the stages that train or extract: the
graph says which depend on one another, and those stay together. `--target evaluate_shapes` shares what that
stage needs only.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.cache import _get_cache_hash
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.serialize import load_yaml
from dvc.utils.serialize._yaml import dumps_yaml

from pipeline.mend import LOCK
from pipeline.params import load_params
from pipeline.stage import UserError, run, write_bytes

COSTLY = ("train_*", "pretrain_*", "extract_*")
REST = "rest"
WHOLE = "dvc.yaml"  # as a target of DVC's: every stage
INTERRUPTED = "interrupted; the same command continues"


def read_part(text: str) -> tuple[int, int]:
    """'2/3' as (2, 3). Raises UserError."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"part '{text}': allowed are '1/3', '2/3', '3/3' for three machines, and '{REST}' afterwards")
    return int(found[1]), int(found[2])


def is_costly(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in COSTLY)


def share_out(graph: nx.DiGraph, parts: int) -> list[list[str]]:
    """Costly stages of each part, each after those that it depends on; the same on every machine.

    Args:
        graph: names of stages, with an edge from each to what it depends on.

    Costly stages that depend on one another are in one part: no machine waits for another one's weights.
    """
    order = [name for name in nx.lexicographical_topological_sort(graph.reverse()) if is_costly(name)]
    together = nx.Graph()
    together.add_nodes_from(order)
    for name in order:
        together.add_edges_from((name, earlier) for earlier in nx.descendants(graph, name) if is_costly(earlier))
    groups = [sorted(group, key=order.index) for group in nx.connected_components(together)]
    shares: list[list[str]] = [[] for _ in range(parts)]
    for group in sorted(groups, key=lambda group: (-len(group), group)):  # the longest first
        min(shares, key=len).extend(group)
    return shares


def preparation(graph: nx.DiGraph, share: list[str]) -> list[str]:
    """What these stages need and what needs no costly stage itself: images, for instance."""
    needed = set().union(*(nx.descendants(graph, name) for name in share))
    return sorted(name for name in needed if not any(map(is_costly, {name} | nx.descendants(graph, name))))


def read_graph(repo: Repo, target: str) -> nx.DiGraph:
    """A stage, or dvc.yaml for all, with what it needs, as a graph of names. Raises DvcException."""
    graph = nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
    wanted = {stage.addressing for stage in repo.stage.collect(target)}
    return graph.subgraph(wanted.union(*(nx.descendants(graph, name) for name in wanted)))


def check_remote(repo: Repo) -> None:
    """Raises UserError unless there is a default remote that keeps a run cache."""
    if not repo.config["core"].get("remote"):
        raise UserError(
            "no DVC remote to share through: run 'dvc remote add --default NAME PLACE' on each machine,"
            " PLACE being a folder, ssh:// or s3:// address that all of them reach"
        )
    odb = repo.cloud.get_remote_odb(None, "push --run-cache", hash_name="md5-dos2unix")
    if odb.fs.protocol in ("http", "https"):
        raise UserError("an http remote keeps no run cache; allowed are folders, ssh, s3, and the like")


def read_lock() -> dict:
    """dvc.lock, to be changed and written back in DVC's form."""
    return load_yaml(LOCK)


def write_lock(content: dict) -> None:
    write_bytes(LOCK, dumps_yaml(content).encode())


@contextmanager
def dvc_errors() -> Iterator[None]:
    """What DVC raises becomes a UserError of one line."""
    try:
        yield
    except DvcException as error:
        raise UserError(" ".join(str(error).split())) from error


def adopt(repo: Repo) -> int:
    """Let dvc.lock name the run cache's results where its own are neither here nor among them; their number.

    DVC looks into the run cache only for a stage that dvc.lock takes for changed. Another kind of machine
    gives other bytes than the committed dvc.lock, and what was shared would be run again.
    """
    cache = repo.stage_cache
    cache.pull(None)
    adopted = {}
    for stage in repo.index.stages:
        if not stage.outs or not all(item.hash_info for item in [*stage.deps, *stage.outs]):
            continue  # not in dvc.lock
        locked = to_single_stage_lockfile(stage)
        value = _get_cache_hash(locked)
        key = _get_cache_hash(locked, key=True)  # of command, dependencies and parameters
        made = sorted(Path(cache._get_cache_dir(key)).glob("*"), key=lambda path: path.stat().st_mtime)
        if made and value not in {path.name for path in made} and not stage.outs_cached():
            adopted[stage.name] = load_yaml(made[-1])  # the newest, as DVC does
    if adopted:
        with repo.lock:
            content = read_lock()
            content["stages"].update(adopted)
            write_lock(content)
    return len(adopted)


def dvc(*arguments: str) -> None:
    """Run DVC, its output shown. Raises UserError if it fails or is interrupted."""
    with subprocess.Popen([sys.executable, "-m", "pipeline.dvc_command", *arguments]) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            process.wait()  # it puts its locks away; subprocess.run would kill it after a quarter of a second
            raise UserError(INTERRUPTED) from None
    if status:
        raise UserError(f"'dvc {arguments[0]}' failed, as said above; the same command continues, once that is mended")


def run_share(graph: nx.DiGraph, number: int, parts: int) -> str:
    """Run one part's stages, each pushed when it is done, so that what stops loses one stage only."""
    share = share_out(graph, parts)[number - 1]
    if not share:
        return "nothing: fewer stages to share than machines,"
    print(f"part {number}/{parts}: {' '.join(share)}", flush=True)
    prepared = preparation(graph, share)
    for stages in [prepared, *([name] for name in share)]:
        if stages:
            dvc("repro", "--pull", *stages)
            dvc("push", "--run-cache", "--with-deps", *stages)
    return f"{len(share)} stages run or taken, and pushed,"


def main(part: str, target: str = WHOLE) -> str:
    """Run a part, or the rest.

    Args:
        part: '2/3' for the second of three machines, or 'rest'.
        target: a stage, for what it needs only.

    Raises:
        UserError: no such part or stage, no remote, or DVC failed.
    """
    chosen = None if part == REST else read_part(part)
    load_params()
    with dvc_errors():
        repo = Repo()
        graph = read_graph(repo, target)
        check_remote(repo)
        adopt(repo)
    if chosen:
        return run_share(graph, *chosen)
    dvc("repro", "--pull", target)
    return "everything is there,"


if __name__ == "__main__":
    run(main, part=str, target=str)
