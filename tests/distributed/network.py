"""A small network, its parameter groups, and batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

__all__ = ["Net", "batches", "build_param_groups"]

BATCH = 16


class Block(nn.Module):
    """Statistics of each sample alone, so that it does not matter who has the others."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm = nn.GroupNorm(2, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.softplus(self.norm(self.conv(x)))


class Net(nn.Module):
    """Two blocks, a classifier, and a parameter that a loss may do without; in float64."""

    def __init__(self, checkpointed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.checkpointed = checkpointed
        self.blocks = nn.ModuleList([Block(2, 4), Block(4, 6)])
        self.linear = nn.Linear(6, 3)
        self.extra = nn.Parameter(torch.ones(3))
        self.double()
        for p in self.parameters():
            nn.init.normal_(p, mean=0.5 if p.dim() == 1 else 0.0, std=0.4)

    def forward(self, x: Tensor, with_extra: bool = True) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        out: Tensor = self.linear(x.mean((2, 3)))
        return out + self.extra**3 if with_extra else out


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    g = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(BATCH, 2, 5, 5, dtype=torch.float64, generator=g),
            torch.randint(3, (BATCH,), generator=g),
        )
        for _ in range(count)
    ]


def build_param_groups(net: nn.Module) -> list[dict[str, Any]]:
    named = list(net.named_parameters())
    rows = {
        order: [(i, n, p) for i, (n, p) in enumerate(named) if (p.dim() == 1) == (order == 2)]
        for order in (1, 2)
    }
    return [
        {
            "params": [p for *_, p in chosen],
            "param_names": [n for _, n, _ in chosen],
            "index": [i for i, *_ in chosen],
            "order": order,
        }
        for order, chosen in rows.items()
    ]
