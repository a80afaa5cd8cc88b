"""Error consistency: do two observers, networks or people, err on the same trials?

Source: Geirhos, Meding, Wichmann (2020), 'Beyond accuracy: quantifying trial-by-trial behaviour of
CNNs and humans by measuring error consistency', NeurIPS; papers/error-consistency.md.
"""

from importlib import import_module
from typing import Any

PLACES = {"ErrorConsistency": "kappa", "error_consistency": "kappa", "read_trials": "trials"}
__all__ = ["ErrorConsistency", "error_consistency", "read_trials"]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and no more: every stage imports this package for its part of params.yaml."""
    if name in PLACES:
        return getattr(import_module(f"{__name__}.{PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
