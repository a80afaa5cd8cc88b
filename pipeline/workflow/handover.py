"""One stage on a node of a cluster, in the node's own copy of the repository; cluster.py runs it there.

    python -m pipeline.workflow.handover --stage train_resnet@50 --known known.json --made made.yaml

known.json has dvc.lock's entries of what the stage depends on, as other nodes made them; with them DVC can pull the
stage's inputs from the remote. The stage runs, its outputs and its run are pushed; made.yaml has its entry and what it
cost. With --upstream yes what it depends on runs too where it differs, as under an experiment's settings.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

from dvc.repo import Repo

from pipeline.stage import costs, run
from pipeline.workflow.dvc_parts import dumps_yaml, dvc, errors_in_a_line, read_entries, read_graph, write_entries
from pipeline.workflow.mend import mend

LOOK = 1  # second(s) between looks at who started this


def end_with(parent: int) -> None:
    """When the process that started this one is gone, as where Ray has lost the node, end this and what it started."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(LOOK)
        os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def main(stage: str, known: str, made: str, upstream: str = "no") -> str:
    end_with(os.getppid())
    with errors_in_a_line(), Repo() as repo:
        mend(repo)
        with repo.lock:
            write_entries(read_entries() | json.loads(Path(known).read_text()))
            needed = sorted(read_graph(repo, stage).successors(stage))
    if upstream == "yes":
        dvc("--wait-for-lock", "repro", "--pull", stage)
        dvc("--wait-for-lock", "push", "--run-cache", "--with-deps", stage)
    else:
        if needed:
            # by stage: a folder that several stages fill may be here in part, which `repro --pull` takes for all
            dvc("--wait-for-lock", "pull", *needed)
        dvc("--wait-for-lock", "repro", "--pull", "--single-item", stage)
        dvc("--wait-for-lock", "push", "--run-cache", stage)
    entry = read_entries()[stage]
    spent = [cost for cost in costs() if cost["command"] == entry["cmd"]]
    # in YAML: what the entry holds twice is written once there, as DVC writes it into dvc.lock
    Path(made).write_text(dumps_yaml({"entry": entry, "costs": spent}))
    return f"{stage} made and pushed,"


if __name__ == "__main__":
    run(main, stage=str, known=str, made=str, upstream=str)
