"""Other optimizers that step inside of a captured step, under a scaler."""

from __future__ import annotations

from collections.abc import Sequence

from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from sgdph_fx.optim.capture.step_code import StepCode

__all__ = ["begin_anew", "unscale"]


def unscale(scaler: GradScaler, optimizer: Optimizer, code: StepCode) -> None:
    """Divide all gradients by the scale, those of other optimizers as well; these may do it themselves.

    Args:
        scaler: The scaler of the loss.
        optimizer: That of the step.
        code: Of the step, which the others are found in.
    """
    scaler.unscale_(optimizer)
    for other in () if "unscale_" in code.names.attributes else code.optimizers:
        scaler.unscale_(other)


def begin_anew(scaler: GradScaler, optimizers: Sequence[Optimizer]) -> None:
    """Let the next step unscale again, where this one has failed before the scaler's update."""
    for optimizer in optimizers:
        scaler._per_optimizer_states.pop(id(optimizer), None)
