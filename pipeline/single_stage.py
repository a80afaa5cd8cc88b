"""`dvc repro --single-item` of one stage, which holds DVC's lock for a second less; pipeline.parallel calls it.

    python -m pipeline.single_stage train_resnet@50

To add a stage's lines to dvc.lock, DVC reads all of it with a parser that keeps comments, several times slower than
the one that it reads it with otherwise. dvc.lock has no comments; what is written is the same, byte for byte.
"""

import sys

from dvc.cli import main
from dvc.utils.serialize import _yaml

if __name__ == "__main__":
    _yaml.parse_yaml_for_update = _yaml.parse_yaml
    sys.exit(main(["--wait-for-lock", "repro", "--single-item", *sys.argv[1:]]))
