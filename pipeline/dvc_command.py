"""`dvc`, as our commands call it: its record of a stage takes a second less, and an interrupt ends what it started.

    python -m pipeline.dvc_command repro --single-item train_resnet@50

To add a stage's lines to dvc.lock, DVC reads all of it with a parser that keeps comments, several times slower than
the one that it reads it with otherwise, and holds its lock for that second. dvc.lock has no comments; what is written
is the same, byte for byte.

An interrupt that comes in the millisecond in which DVC starts the stage's command ends DVC alone: the command would
go on, and write its results. It is interrupted here.
"""

import signal
import sys
from contextlib import suppress

import psutil
from dvc.cli import main
from dvc.utils.serialize import _yaml

INTERRUPTED = 252  # DVC's exit status


def interrupt_children() -> list[psutil.Process]:
    """Interrupt what this process has started, and what that has; those that were still there."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.send_signal(signal.SIGINT)
    return children


if __name__ == "__main__":
    _yaml.parse_yaml_for_update = _yaml.parse_yaml
    status = main(sys.argv[1:])
    if status == INTERRUPTED:
        psutil.wait_procs(interrupt_children())
    sys.exit(status)
