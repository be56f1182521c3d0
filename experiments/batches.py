"""Batches: shuffled, augmented, standardised, on the device, by whole-batch tensor operations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.formats import Images

__all__ = ["Standard", "augmented_batches", "crop_and_flip", "plain_batches"]

PADDING = 4


@dataclass(frozen=True, slots=True)
class Standard:
    """Mean and standard deviation of each channel, of pixels in 0 to 1, shape ``(C, 1, 1)``, float32."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, images: Images) -> Standard:
        """Those of ``images``, taken over all pixels, on the images' device."""
        channels = images.pixels.transpose(0, 1).flatten(1).double() / 255
        deviation, mean = torch.std_mean(channels, dim=1, correction=0)
        return cls(mean.float()[:, None, None], deviation.float()[:, None, None])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels ``(N, C, H, W)`` uint8 → float32 with mean 0 and deviation 1 in each channel."""
        return (pixels.float() / 255 - self.mean) / self.deviation


def crop_and_flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """The standard CIFAR augmentation: a frame of 4 zeros, a random crop of the old size, a random mirror.

    Args:
        pixels: ``(N, C, H, W)``, any dtype and device.
        generator: On the CPU, so that every device sees the same draws.

    Returns:
        A new tensor of the same shape, dtype and device; each image has its own crop and mirror.
    """
    count, _, height, width = pixels.shape
    top, left = torch.randint(2 * PADDING + 1, (2, count), generator=generator).to(pixels.device)
    mirrored = torch.randint(2, (count, 1, 1, 1), generator=generator).bool().to(pixels.device)
    windows = F.pad(pixels, (PADDING,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    crops = windows[torch.arange(count, device=pixels.device), :, top, left]
    return torch.where(mirrored, crops.flip(-1), crops)


def augmented_batches(
    images: Images, size: int, standard: Standard, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch's batches, in random order and augmented; an incomplete last batch is left out.

    The draws depend on ``seed`` and ``epoch`` alone, so every optimizer sees the same batches, and a run
    that goes on at a later epoch sees those that it would have seen.

    Yields:
        Inputs ``(size, C, H, W)`` float32 and labels ``(size,)`` int64, on the images' device.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(images), generator=generator).to(images.labels.device)
    for start in range(0, len(images) - size + 1, size):
        batch = images[order[start : start + size]]
        yield standard(crop_and_flip(batch.pixels, generator)), batch.labels


def plain_batches(images: Images, size: int, standard: Standard) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in order, as they are, the last batch perhaps smaller."""
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        yield standard(batch.pixels), batch.labels
