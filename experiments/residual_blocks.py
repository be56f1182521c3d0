"""The residual blocks of the ResNets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BasicBlock", "Bottleneck", "PlainBlock", "conv_norm"]


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, each with batch norm, and the shortcut around them (ResNet-18)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_norm(inputs, width, 3, stride), nn.ReLU(), *conv_norm(width, width, 3)
        )
        self.shortcut = _shortcut(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut, then apply ReLU."""
        return torch.relu(self.residual(x) + self.shortcut(x))


class PlainBlock(nn.Module):
    """ResNet-18's block without batch norm: convolutions with biases, and a residual scaled by 1/√8.

    With one such factor for each of the 8 blocks the activations stay bounded at the start (Hayou et al. 2021,
    "Stable ResNet").
    """

    expansion = 1
    scale = 8**-0.5

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, width, 3, stride, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        same = stride == 1 and inputs == width
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Add the scaled residual to the shortcut, then apply ReLU."""
        return torch.relu(self.scale * self.residual(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions to four times the width, each with batch norm (ResNet-50)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *conv_norm(inputs, width, 1), nn.ReLU(),
            *conv_norm(width, width, 3, stride), nn.ReLU(),
            *conv_norm(width, width * self.expansion, 1),
        )  # fmt: skip
        self.shortcut = _shortcut(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut, then apply ReLU."""
        return torch.relu(self.residual(x) + self.shortcut(x))


def conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """Make a convolution without bias, and the batch norm behind it."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(*conv_norm(inputs, outputs, 1, stride))
