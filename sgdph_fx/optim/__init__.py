"""SGDPH: the arithmetic as pure functions, the Optimizer class around them."""

from sgdph_fx.optim.attached_loss import LightningMixin, TrainerMixin, attach
from sgdph_fx.optim.capture.captured_step import CapturedStep
from sgdph_fx.optim.compiled import compile_between_refreshes
from sgdph_fx.optim.sgdph import SGDPH

__all__ = ["SGDPH", "CapturedStep", "LightningMixin", "TrainerMixin", "attach", "compile_between_refreshes"]
