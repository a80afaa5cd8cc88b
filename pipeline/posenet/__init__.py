"""How much absolute position do frozen features hold? (posenet)"""

from pipeline.posenet.scores import score

__all__ = ["score"]
