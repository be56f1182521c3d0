"""Build networks with any number of convolutions, in common shapes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["SHAPES"]

WIDTH = 4
BRANCHES = 20


def chain(convolutions: int) -> nn.Module:
    """Repeat convolution, batch norm and ReLU."""
    return nn.Sequential(*(_Unit() for _ in range(convolutions)))


def residual(convolutions: int) -> nn.Module:
    """Repeat blocks of two convolutions and an addition, as in ResNet."""
    return nn.Sequential(*(_Residual() for _ in range(convolutions // 2)))


def wide(convolutions: int) -> nn.Module:
    """Repeat blocks of branches that are concatenated, normalized and projected, as in Inception."""
    return nn.Sequential(*(_Wide() for _ in range(convolutions // BRANCHES)))


class _Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = _Unit()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 1, bias=False)
        self.norm = nn.BatchNorm2d(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.norm(self.conv(self.first(x))))


class _Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 1) for _ in range(BRANCHES - 1))
        self.norm = nn.BatchNorm2d(WIDTH * (BRANCHES - 1))
        self.together = nn.Conv2d(WIDTH * (BRANCHES - 1), WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.together(self.norm(torch.cat([torch.relu(b(x)) for b in self.branches], 1)))
        return y


SHAPES: dict[str, Callable[[int], nn.Module]] = {"chain": chain, "residual": residual, "wide": wide}
