"""Small networks of each family, from images to five classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vision_transformer import VisionTransformer

from experiments.networks import build

__all__ = ["IMAGES", "LABELS", "NETWORKS"]

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([1, 2, 0, 4])


class ConvNeXtLike(nn.Module):
    """A stem and two blocks with layer norms over channels, LayerScale and GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        self.depthwise = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, groups=8) for _ in range(2))
        self.wide = nn.ModuleList(nn.Linear(8, 16) for _ in range(2))
        self.narrow = nn.ModuleList(nn.Linear(16, 8) for _ in range(2))
        self.scales = nn.ParameterList(torch.full((8,), 0.3) for _ in range(2))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        layers = zip(self.depthwise, self.norms, self.wide, self.narrow, self.scales, strict=False)
        for depthwise, norm, wide, narrow, scale in layers:
            y = norm(depthwise(x).permute(0, 2, 3, 1))
            x = x + (scale * narrow(F.gelu(wide(y)))).permute(0, 3, 1, 2)
        out: Tensor = self.head(self.norms[2](x.mean((2, 3))))
        return out


class UNetLike(nn.Module):
    """Down and up again, with group norms, bilinear and transposed upsampling, and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.InstanceNorm2d(8, affine=True), nn.ELU())
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.out = nn.Sequential(nn.Conv2d(16, 5, 1), nn.PReLU(5))

    def forward(self, x: Tensor) -> Tensor:
        wide = self.down(x)
        deep = self.deep(F.max_pool2d(wide, 2))
        up = self.up(deep) + F.interpolate(deep, scale_factor=2, mode="bilinear")
        out: Tensor = self.out(torch.cat([wide, F.pad(up[..., :-1], (0, 1, 0, 0), mode="replicate")], 1))
        return out.mean((2, 3))


class CellLike(nn.Module):
    """Rows of pixels read by an LSTM cell and a GRU cell, above a learned scale of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(48)
        self.lstm, self.gru, self.head = nn.LSTMCell(48, 6), nn.GRUCell(6, 6), nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.norm(x.permute(2, 0, 1, 3).flatten(2))
        h = c = g = x.new_zeros(len(x), 6)
        for row in rows[::4]:
            h, c = self.lstm(row, (h, c))
            g = self.gru(h, g)
        out: Tensor = self.head(1 - g)
        return out


def _transformer() -> Any:
    return VisionTransformer(16, 8, 2, 2, 16, 32, num_classes=5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: build("resnet18", width=4, classes=5),
    "layer norms": ConvNeXtLike,
    "transformer": _transformer,
    "u-net": UNetLike,
    "cells": CellLike,
}
