"""A small network for training CIFAR-10 to 94% in seconds, and its initialization.

Written from the description in Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498: a
frozen 2×2 convolution whitens patches, three blocks of two convolutions follow, and hidden convolutions begin as
partial identities. Unlike there, the scales of batch norm are trained, because they are what is compared here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SpeedrunNetwork"]

PATCH = 2
WHITENING_EPS = 5e-4
LOGIT_SCALE = 1 / 9
# The description's 0.6 is the share of the old statistics; torch's momentum is the share of the new ones.
NORM_MOMENTUM = 0.4


class SpeedrunNetwork(nn.Module):
    """A whitening convolution, three blocks with 1, 4 and 4 times ``width`` channels, a linear layer.

    Args:
        width: Channels of the first block; 64 is the described network.
        classes: Number of classes.
        images: Standardized images ``(N, 3, 32, 32)`` to whiten by.
    """

    def __init__(self, width: int, classes: int, images: Tensor) -> None:
        super().__init__()
        channels = 2 * images.shape[1] * PATCH**2
        self.whiten = nn.Conv2d(images.shape[1], channels, PATCH)
        self.blocks = nn.Sequential(
            nn.GELU(),
            *_block(channels, width),
            *_block(width, 4 * width),
            *_block(4 * width, 4 * width),
        )
        self.pool = nn.MaxPool2d(3)
        self.head = nn.Linear(4 * width, classes, bias=False)
        with torch.no_grad():
            vectors = _whitening(images)
            self.whiten.weight.copy_(torch.cat([vectors, -vectors]))
            self.whiten.bias = nn.Parameter(torch.zeros(channels))
        self.whiten.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits from images ``(N, 3, 32, 32)``."""
        return self.head(self.pool(self.blocks(self.whiten(x))).flatten(1)) * LOGIT_SCALE  # type: ignore[no-any-return]


def _block(inputs: int, outputs: int) -> list[nn.Module]:
    first, second = (nn.Conv2d(i, outputs, 3, padding=1, bias=False) for i in (inputs, outputs))
    for convolution in (first, second):
        # The first filters pass their channel through; the others keep torch's random start.
        nn.init.dirac_(convolution.weight[: convolution.in_channels].data)
    norms = [nn.BatchNorm2d(outputs, momentum=NORM_MOMENTUM) for _ in range(2)]
    return [first, nn.MaxPool2d(2), norms[0], nn.GELU(), second, norms[1], nn.GELU()]


def _whitening(images: Tensor) -> Tensor:
    """Give filters ``(3·2·2, 3, 2, 2)`` whose outputs on patches of ``images`` are uncorrelated, with variance one."""
    patches = (
        images.double()
        .unfold(2, PATCH, 1)
        .unfold(3, PATCH, 1)
        .permute(0, 2, 3, 1, 4, 5)
        .flatten(3)
        .flatten(0, 2)
    )
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    filters = vectors.T / (values + WHITENING_EPS).sqrt()[:, None]
    ordered: Tensor = filters.flip(0).float()
    return ordered.view(-1, images.shape[1], PATCH, PATCH)
