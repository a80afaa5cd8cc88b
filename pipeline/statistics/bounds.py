"""Where the 95% interval of a number stands in a file of metrics: one rule for claims and for reviews."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def bounds_of(name: str, tree: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys of the bounds of `name` in the mapping that it stands in; None where it has none.

    They are '<name>_low' and '<name>_high', or 'low' and 'high' where these come right after it: further down they
    are another number's.
    """
    if {f"{name}_low", f"{name}_high"} <= tree.keys():
        return f"{name}_low", f"{name}_high"
    names = list(tree)
    after = names[names.index(name) + 1 :][:2]
    return ("low", "high") if after == ["low", "high"] else None
