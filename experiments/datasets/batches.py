"""Batches of images in memory: shuffled, augmented and standardized by operations on whole batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.datasets.formats import Images

__all__ = [
    "Standardizer",
    "augmented_batches",
    "crop_and_flip",
    "plain_batches",
    "translate_and_alternate",
]

PADDING = 4
SHIFT = 2


@dataclass(frozen=True, slots=True)
class Standardizer:
    """Brings each channel to mean 0 and standard deviation 1.

    Args:
        mean: Mean of each channel, of pixels in 0 to 1; ``(C, 1, 1)``, float32.
        deviation: Standard deviation of each channel, likewise.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def from_images(cls, images: Images) -> Standardizer:
        """Take the statistics over all pixels of ``images``, on their device."""
        channels = images.pixels.transpose(0, 1).flatten(1).double() / 255
        deviation, mean = torch.std_mean(channels, dim=1, correction=0)
        return cls(mean.float()[:, None, None], deviation.float()[:, None, None])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Standardize pixels: ``(N, C, H, W)`` uint8 in, float32 of the same shape out."""
        return (pixels.float() / 255 - self.mean) / self.deviation


def crop_and_flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Augment as usual on CIFAR: pad with 4 zeros, crop at random to the old size, mirror at random.

    Args:
        pixels: ``(N, C, H, W)``, any dtype and device.
        generator: A generator on the CPU, so that every device sees the same draws.

    Returns:
        A new tensor of the same shape, dtype and device. Each image has its own crop and mirror.
    """
    count = len(pixels)
    offsets = torch.randint(2 * PADDING + 1, (2, count), generator=generator)
    mirrored = torch.randint(2, (count, 1, 1, 1), generator=generator).bool()
    return _cropped(F.pad(pixels, (PADDING,) * 4), 2 * PADDING, offsets, mirrored)


def translate_and_alternate(pixels: Tensor, seed: int, epoch: int) -> Tensor:
    """Augment as in the CIFAR-10 speedrun: shift by up to 2 pixels over reflected borders, mirror every other epoch.

    Half of the images, drawn by ``seed``, are mirrored in odd epochs, the others in even ones, so each image is seen
    both ways in any two epochs.

    Args:
        pixels: ``(N, C, H, W)``, any dtype and device.
        seed: Decides the draws together with ``epoch``.
        epoch: Counted from 1.

    Returns:
        A new tensor of the same shape, dtype and device.
    """
    count, _, height, width = pixels.shape
    offsets = torch.randint(
        2 * SHIFT + 1, (2, count), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    )
    first = torch.randint(2, (count, 1, 1, 1), generator=torch.Generator().manual_seed(seed)).bool()
    padded = pixels[:, :, _reflected(height, pixels.device)][:, :, :, _reflected(width, pixels.device)]
    return _cropped(padded, 2 * SHIFT, offsets, first ^ (epoch % 2 == 0))


def _reflected(size: int, device: torch.device) -> Tensor:
    """Give the indices of a row with ``SHIFT`` pixels reflected at each end. torch reflects no bytes."""
    places = torch.arange(-SHIFT, size + SHIFT, device=device).abs()
    return torch.where(places < size, places, 2 * (size - 1) - places)


def _cropped(padded: Tensor, margin: int, offsets: Tensor, mirrored: Tensor) -> Tensor:
    """Cut a window out of each image, ``margin`` pixels smaller, and mirror some."""
    count, _, height, width = padded.shape
    top, left = offsets.to(padded.device)
    windows = padded.unfold(2, height - margin, 1).unfold(3, width - margin, 1)
    crops = windows[torch.arange(count, device=padded.device), :, top, left]
    return torch.where(mirrored.to(padded.device), crops.flip(-1), crops)


def augmented_batches(
    images: Images, size: int, standardizer: Standardizer, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give one epoch's batches in random order, augmented. An incomplete last batch is dropped.

    The draws depend on ``seed`` and ``epoch`` alone. So every optimizer sees the same batches, and a run that
    resumes at a later epoch sees the batches that it would have seen.

    Yields:
        Inputs ``(size, C, H, W)`` float32 and labels ``(size,)`` int64, on the images' device.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(images), generator=generator).to(images.labels.device)
    for start in range(0, len(images) - size + 1, size):
        batch = images[order[start : start + size]]
        yield standardizer(crop_and_flip(batch.pixels, generator)), batch.labels


def plain_batches(images: Images, size: int, standardizer: Standardizer) -> Iterator[tuple[Tensor, Tensor]]:
    """Give all images in order, without augmentation. The last batch may be smaller."""
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        yield standardizer(batch.pixels), batch.labels
