"""How much absolute position do frozen features hold? (posenet)"""

from importlib import import_module
from typing import Any

PLACES = {"score": "scores"}
__all__ = ["score"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: every stage imports this package for its part of params.yaml."""
    if name in PLACES:
        return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
