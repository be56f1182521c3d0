"""What each module, function and method *is* to a convolution's output: plain tables, looked up by type or name."""

from sgdph_fx.rules.kinds import Affine, Conv, Linear, Mixing, Norm, Rule, Statistics, Transparent

__all__ = ["Affine", "Conv", "Linear", "Mixing", "Norm", "Rule", "Statistics", "Transparent"]
