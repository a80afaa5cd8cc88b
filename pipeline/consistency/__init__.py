"""Error consistency: do two observers, networks or people, err on the same trials?

Source: Geirhos, Meding, Wichmann (2020), 'Beyond accuracy: quantifying trial-by-trial behaviour of
CNNs and humans by measuring error consistency', NeurIPS; papers/error-consistency.md.
"""

from pipeline.consistency.kappa import ErrorConsistency, error_consistency
from pipeline.consistency.trials import read_trials

__all__ = ["ErrorConsistency", "error_consistency", "read_trials"]
