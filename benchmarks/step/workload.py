"""The network and the batch that every candidate trains on."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.step.candidates import CANDIDATES, Trainer
from experiments.networks import build

__all__ = ["batch_of", "trainer"]


def batch_of(size: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Make noise of CIFAR-10's shape, the same on every device.

    Returns:
        Images ``(size, 3, 32, 32)`` float32 and labels ``(size,)`` int64.
    """
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(size, 3, 32, 32, generator=generator).to(device),
        torch.randint(10, (size,), generator=generator).to(device),
    )


def trainer(candidate: str, network: str, width: int, device: str = "cpu") -> Trainer:
    """Make a candidate with its own network, whose initial weights are always the same."""
    return CANDIDATES[candidate](build(network, width=width).to(device), batch_of(2, device)[0])
