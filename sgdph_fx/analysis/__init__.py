"""Graph → verdicts on convolutions, roles of parameters, and hints; all of it together is the plan."""

from sgdph_fx.analysis.decide import Analysis, decide

__all__ = ["Analysis", "decide"]
