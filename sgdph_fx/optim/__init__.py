"""SGDPH: the arithmetic as pure functions, the Optimizer class around them."""

from sgdph_fx.optim.sgdph import SGDPH

__all__ = ["SGDPH"]
