"""A loop that trains, and what it has left, for the tests of states and options."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sgdph_fx.optim import SGDPH

__all__ = ["same_bits", "train"]


def train(net: Any, optimizer: SGDPH, data: list[Any]) -> None:
    """Steps of a network with a ``loss`` of its own."""
    for batch in data:
        optimizer.zero_grad()
        optimizer.backward(net.loss(batch))
        optimizer.step()


def same_bits(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
