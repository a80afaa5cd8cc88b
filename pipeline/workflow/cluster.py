"""Stages as tasks on a Ray cluster.

    ray start --head                        # on one machine
    ray start --address HEAD:6379           # on each other
    make repro RAY=auto                     # on one of them

Each node has a copy of this repository's tracked files, as they are here, made at the first stage that it runs, below
the folder that STUDIES_COPIES names there (default: ~/.cache/studies). A stage finds its inputs, and leaves what it
makes, in the default DVC remote, which all nodes must reach; Ray carries dvc.lock's entries only. Where a node dies,
Ray runs its stage on another one; it continues from its checkpoint if CHECKPOINT_FOLDER names, on all nodes, a folder
that they share.

Nodes need Python, Ray and the packages of requirements.txt, in the versions that are here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import networkx as nx
from dvc.repo import Repo
from ruamel.yaml import YAML

from pipeline.stage import UserError, keep_cost
from pipeline.workflow.dvc_parts import LOCK, WHOLE, open_remote, read_entries, read_graph, write_entries
from pipeline.workflow.executors import Needs, show

if TYPE_CHECKING:
    from pipeline.workflow.experiments import Experiment

try:
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
except ImportError:
    raise UserError("Ray is not installed: pip install -r requirements-ray.txt") from None

PACKAGES = ("dvc", "numpy", "pandas", "scipy", "torch", "torchvision", "open_clip_torch", "ultralytics", "safetensors")
PARAMS = Path("params.yaml")
COPIES = "STUDIES_COPIES"
CHECKPOINTS = "CHECKPOINT_FOLDER"
PASSED_ON = ("CHECKPOINT_SECONDS", CHECKPOINTS, "STUDIES_MIRROR")  # of our environment, to the stages
ASKED = 60  # seconds for a node's answer before anything runs
TRIES = 3  # of a stage whose node dies, after the first


def pack(settings: Iterable[str] = ()) -> bytes:
    """The repository's tracked files as they are here, dvc.lock aside, as a tar archive; the same bytes for the same.

    settings: 'key=value', to be set in params.yaml.
    """
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True, text=True).stdout
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in sorted(filter(None, listed.split("\0"))):
            if Path(name).is_file() and name != str(LOCK):
                content = Path(name).read_bytes()
                if name == str(PARAMS):
                    content = with_settings(content, settings)
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()


def with_settings(content: bytes, settings: Iterable[str]) -> bytes:
    """params.yaml with keys set, each 'key.of.section=value', the value in YAML."""
    yaml = YAML()
    params = yaml.load(content)
    for setting in settings:
        name, _, value = setting.partition("=")
        *sections, key = name.split(".")
        section = params
        for part in sections:
            section = section[part]
        section[key] = YAML(typ="safe").load(value)
    changed = io.BytesIO()
    yaml.dump(params, changed)
    return changed.getvalue() if settings else content


def packages() -> dict[str, str | None]:
    """Versions of Python and of the packages that results depend on; None where one is not there."""
    found: dict[str, str | None] = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


# What follows runs on nodes, which have none of our modules but in their copies.


def copy_on_node(archive: bytes, config: str) -> Path:
    """The node's copy of the repository, made if it is not there; config: .dvc/config.local's content."""
    base = Path(os.environ.get(COPIES, "~/.cache/studies")).expanduser().resolve()
    config += f"[cache]\n    dir = {base / 'cache'}\n"  # one for all copies on the node
    folder = base / hashlib.sha256(archive + config.encode()).hexdigest()[:16]
    if not folder.exists():
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=base) as made:
            copy = Path(made) / "copy"
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                tar.extractall(copy, filter="data")
            (copy / ".dvc/config.local").write_text(config)
            try:
                copy.rename(folder)
            except OSError:  # another task of this node was first
                if not folder.exists():
                    raise
    return folder


def look_around(archive: bytes, config: str, token: str) -> tuple[dict[str, str | None], bool]:
    """The node's packages, and whether it finds this file in the remote."""
    code = (
        "import sys; from dvc.repo import Repo; from pipeline.workflow.dvc_parts import open_remote;"
        "_, _, path, fs = open_remote(Repo()); sys.exit(not fs.exists(fs.join(path, sys.argv[1])))"
    )
    folder = copy_on_node(archive, config)
    return packages(), subprocess.run([sys.executable, "-c", code, token], cwd=folder).returncode == 0


def run_on_node(
    name: str, target: str, archive: bytes, config: str, known: dict[str, dict], environment: dict[str, str]
) -> str | None:
    """Run a stage in the node's copy: what handover.py says that it made, in YAML; None where it failed.

    In text, since Ray copies what a dictionary holds twice, and dvc.lock would have it twice.
    name: the stage's, or that of an experiment, which runs all that differs.
    """
    folder = copy_on_node(archive, config)
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch, "known.json"), Path(scratch, "made.yaml")
        before.write_text(json.dumps(known))
        arguments = ["--stage", target, "--known", str(before), "--made", str(after)]
        arguments += ["--upstream", "no" if name == target else "yes"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.workflow.handover", *arguments],
            cwd=folder,
            env={**os.environ, **environment, "PATH": programs, "DVC_NO_ANALYTICS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            for line in process.stdout:
                print(f"{name} | {line.decode(errors='replace').rstrip()}", flush=True)
        except KeyboardInterrupt:  # Ray's, where the task is cancelled
            process.send_signal(signal.SIGINT)
            raise
        return after.read_text() if process.wait() == 0 else None


def connect(address: str) -> None:
    """Raises UserError where nobody answers."""
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself asks for minutes
            socket.create_connection((host, int(port)), timeout=5).close()
        ray.init(address=address, logging_level="warning")
    except (OSError, ValueError, RuntimeError) as error:
        why = str(error).splitlines()[0]
        raise UserError(f"ray '{address}': no cluster answers ({why}); 'ray start --head' begins one") from None


class Cluster:
    """Runs stages, or experiments, as Ray's tasks.

    Each asks for the cores and memory that it needs, and for a GPU if the cluster has any.
    """

    def __init__(
        self,
        address: str,
        jobs: int | None,
        needs: Mapping[str, Needs],
        repo: Repo,
        experiments: Mapping[str, Experiment] | None = None,
    ):
        """jobs: tasks at a time; None: as many as the cluster has cores. experiments: by name, where these are to run.

        Raises UserError before anything runs: nobody answers, a node has other packages or does not reach the remote,
        or a stage needs more than any node has.
        """
        remote, settings, path, fs = open_remote(repo)
        lines = ["[core]", "    no_scm = true", "    analytics = false", f"    remote = {remote}"]
        lines += [f"['remote \"{remote}\"']", *(f"    {key} = {value}" for key, value in settings.items())]
        self.config, self.archive = "\n".join([*lines, ""]), pack()
        self.environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        self.graph, self.repo, self.lock, self.tasks = read_graph(repo, WHOLE), repo, Lock(), {}
        self.experiments = experiments or {}
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes have no such module to import
        connect(address)
        self.nodes = [node for node in ray.nodes() if node["Alive"]]
        self.has_gpus = any(node["Resources"].get("GPU") for node in self.nodes)
        self.at_once = jobs or int(sum(node["Resources"].get("CPU", 0) for node in self.nodes))
        self._check_needs(needs)
        self.payload = ray.put(self.archive)
        self._check_nodes(path, fs)

    def _check_needs(self, needs: Mapping[str, Needs]) -> None:
        for name, stage in needs.items():
            asked = self._resources(stage)
            wanted = {"CPU": asked["num_cpus"], "memory": asked["memory"], "GPU": asked["num_gpus"]}
            if not any(all(node["Resources"].get(k, 0) >= v for k, v in wanted.items()) for node in self.nodes):
                most = {k: max(node["Resources"].get(k, 0) for node in self.nodes) for k in wanted}
                raise UserError(
                    f"{name} needs {wanted['CPU']} cores, {wanted['memory'] / 2**30:.1f} GiB and {wanted['GPU']} GPUs; "
                    f"no node has all of it (the most of each: {most['CPU']:.0f}, {most['memory'] / 2**30:.1f}, "
                    f"{most['GPU']:.0f}); add a larger node, or lower 'threads' in params.yaml"
                )

    def _check_nodes(self, path: Any, fs: Any) -> None:
        token, here = f"reached-by-{uuid.uuid4().hex}", packages()
        fs.makedirs(path, exist_ok=True)
        fs.pipe_file(fs.join(path, token), b"")
        try:
            on = {node["NodeID"]: NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in self.nodes}
            look = ray.remote(num_cpus=0)(look_around)
            asked = {
                node: look.options(scheduling_strategy=there).remote(self.payload, self.config, token)
                for node, there in on.items()
            }
            for node in self.nodes:
                name = node["NodeManagerHostname"]
                try:
                    found, reached = ray.get(asked[node["NodeID"]], timeout=ASKED)
                except RayError as error:
                    raise UserError(
                        f"node {name}: does not run what it is asked: {str(error).splitlines()[-1]}"
                    ) from None
                others = [f"{key} {found[key]}, here {value}" for key, value in here.items() if found[key] != value]
                if others:
                    raise UserError(
                        f"node {name} has other packages: {'; '.join(others)}; install requirements.txt there"
                    )
                if not reached:
                    raise UserError(
                        f"node {name} does not reach the DVC remote at {path}, or a different one; allowed is a place"
                        " that all nodes reach: a folder that they share, ssh, s3"
                    )
        finally:
            fs.remove(fs.join(path, token))

    def _resources(self, needs: Needs) -> dict[str, Any]:
        return {"num_cpus": needs.cores, "memory": needs.memory, "num_gpus": int(needs.gpu and self.has_gpus)}

    def reserve(self, needs: Needs) -> Needs | None:
        return needs  # Ray waits for a place

    def release(self, place: Needs) -> None: ...

    def run(self, name: str, place: Needs) -> bool:
        experiment = self.experiments.get(name)
        target = experiment.target if experiment else name
        archive = ray.put(pack(experiment.settings)) if experiment else self.payload
        with self.lock:
            entries = read_entries()
        known = {other: entries[other] for other in nx.descendants(self.graph, target) if other in entries}
        environment = dict(self.environment)
        if experiment and CHECKPOINTS in environment:  # experiments may share a stage
            environment[CHECKPOINTS] = str(Path(environment[CHECKPOINTS], name))
        task = ray.remote(max_retries=TRIES)(run_on_node).options(name=name, **self._resources(place))
        self.tasks[name] = task.remote(name, target, archive, self.config, known, environment)
        try:
            text = ray.get(self.tasks[name])
        except RayError as error:
            show(name, f"error: Ray: {str(error).strip().splitlines()[0]}")
            return False
        if text is not None and not experiment:
            made = YAML(typ="safe").load(text)
            with self.lock, self.repo.lock:
                write_entries(read_entries() | {name: made["entry"]})
            for cost in made["costs"]:
                keep_cost(cost)
        return text is not None

    def interrupt(self) -> None:
        for task in self.tasks.values():
            ray.cancel(task)
