"""The most precise numbers that a device has."""

from __future__ import annotations

import torch

__all__ = ["widest_float"]


def widest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on Apple's devices, which have no wider one.

    Example:
        >>> widest_float(torch.device("mps"))
        torch.float32
    """
    return torch.float32 if device.type == "mps" else torch.float64
