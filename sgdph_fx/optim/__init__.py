"""SGDPH: the arithmetic as pure functions, the Optimizer class around them."""

from sgdph_fx.optim.compiled import compile_between_refreshes
from sgdph_fx.optim.sgdph import SGDPH

__all__ = ["SGDPH", "compile_between_refreshes"]
