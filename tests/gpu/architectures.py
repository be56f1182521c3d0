"""Small networks of the kinds that `experiments` has none of: windows that shift, recurrence, skip connections."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer

__all__ = ["Lstm", "Unet", "swin"]

CLASSES = 10


def swin() -> nn.Module:
    """A Swin transformer of two stages with shifted windows, without stochastic depth."""
    return SwinTransformer(
        patch_size=[2, 2],
        embed_dim=8,
        depths=[2, 2],
        num_heads=[1, 2],
        window_size=[4, 4],
        stochastic_depth_prob=0.0,
        num_classes=CLASSES,
    )


class Lstm(nn.Module):
    """Reads an image row by row, ``(N, 3, 32, 32)`` to logits ``(N, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        self.recurrent = nn.LSTM(96, 8, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """The logits after the last row."""
        states, _ = self.recurrent(images.permute(0, 2, 1, 3).flatten(2))
        logits: Tensor = self.head(self.norm(states[:, -1]))
        return logits


class Unet(nn.Module):
    """One step down and one up, group norms, bilinear upsampling, a transposed convolution and a skip connection."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU())
        self.down = nn.Sequential(nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.smooth = nn.Upsample(scale_factor=2, mode="bilinear")
        self.last = nn.Sequential(nn.Conv2d(24, CLASSES, 3, padding=1), nn.LeakyReLU(0.1))

    def forward(self, images: Tensor) -> Tensor:
        """The mean of the map of logits, ``(N, 10)``."""
        wide = self.first(images)
        narrow = self.down(wide)
        logits: Tensor = self.last(torch.cat([wide, self.up(narrow), self.smooth(narrow)], 1)).mean((2, 3))
        return logits
