"""The factor that a GradScaler puts on the loss, and takes off the gradients but not off the Hessian."""

from __future__ import annotations

import sys
from types import FrameType

from torch import Tensor
from torch.amp.grad_scaler import GradScaler

__all__ = ["loss_scale"]


def loss_scale() -> Tensor | None:
    """The scale, one number, if a ``GradScaler`` is what called; None if none did, or a disabled one.

    A scaler has divided the gradients by the time it calls ``optimizer.step()``, and never tells by what: it
    hands the scale to those optimizers alone that do the division themselves, and not even to them once
    ``unscale_`` was called, as clipping needs it. So it is asked where it stands: among the callers.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code is GradScaler.step.__code__:
            scaler: GradScaler = frame.f_locals["self"]
            return scaler._get_scale_async() if scaler.is_enabled() else None
        frame = frame.f_back
    return None
