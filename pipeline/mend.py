"""What a killed `dvc repro` can leave that DVC then refuses to read, put aside; `make repro` does it first.

    python -m pipeline.mend

DVC 3.67 writes dvc.lock and .dvc/tmp/rwlock in place. One that was cut off is no loss: what was done comes back from
the run cache, to the same bytes (benchmarks/soak.py). A dvc.lock that is whole is left as it is.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from pipeline.stage import run

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


def is_cut_off(lock: Path) -> bool:
    """Whether a dvc.lock breaks off: it cannot be parsed, or an entry lacks what DVC writes of every one."""
    try:
        content = YAML(typ="safe").load(lock)
    except (YAMLError, UnicodeDecodeError):
        return True
    if not isinstance(content, dict) or not {"schema", "stages"} <= content.keys():
        return True
    stages = content["stages"]
    return not isinstance(stages, dict) or not all(_is_whole(stage) for stage in stages.values())


def _is_whole(stage: Any) -> bool:
    if not isinstance(stage, dict) or not stage.get("cmd"):
        return False
    files = [*(stage.get("deps") or []), *(stage.get("outs") or [])]
    if any(name in stage and not stage[name] for name in ("deps", "params", "outs")):
        return False
    return all(isinstance(file, dict) and file.get("path") and file.get("md5") for file in files)


def main() -> str:
    aside = []
    if LOCK.exists() and is_cut_off(LOCK):
        LOCK.replace(LOCK.with_name("dvc.lock.cut-off"))
        aside.append(f"{LOCK}, which broke off, is dvc.lock.cut-off now")
    if RWLOCK.exists():
        try:
            json.loads(RWLOCK.read_text() or "{}")
        except ValueError:
            RWLOCK.unlink()
            aside.append(f"{RWLOCK} broke off and is gone")
    return "; ".join(aside) or "nothing to mend"


if __name__ == "__main__":
    run(main)
