"""A network and a made-up data set, small enough to train in a second."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["batches", "network"]


def network() -> nn.Module:
    """Two convolutions that no norm follows, and a classifier."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)),
    )


def batches() -> DataLoader[tuple[torch.Tensor, ...]]:
    """64 images of 4 classes, which differ in brightness; 16 in a batch."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 4
    images = torch.randn(64, 3, 12, 12, generator=generator) + labels.view(-1, 1, 1, 1)
    return DataLoader(TensorDataset(images, labels), batch_size=16)
