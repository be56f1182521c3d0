"""The network and the batch that every contender trains on."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.step.candidates import CONTENDERS, Trainer
from experiments.networks import build

__all__ = ["batch_of", "trainer"]


def batch_of(size: int, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Noise of the shape of CIFAR-10: images ``(size, 3, 32, 32)`` and labels ``(size,)``; on all devices the same."""
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(size, 3, 32, 32, generator=generator).to(device),
        torch.randint(10, (size,), generator=generator).to(device),
    )


def trainer(contender: str, network: str, width: int, device: str = "cpu") -> Trainer:
    """A contender with a network of its own, always the same one."""
    return CONTENDERS[contender](build(network, width=width).to(device), batch_of(2, device)[0])
