"""What a training is given: batches to train on, batches to judge by, on its device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from experiments.batches import Standard, augmented_batches, plain_batches
from experiments.formats import Images
from experiments.team import ALONE, Team

__all__ = ["Batch", "Feed", "Task"]

JUDGING_BATCH = 500

Batch = tuple[Tensor, Tensor]


class Feed(Protocol):
    """Images of a data set, however they are kept. Inputs are ``(N, C, H, W)`` float32, labels ``(N,)`` int64."""

    @property
    def classes(self) -> int:
        """Number of classes."""

    @property
    def device(self) -> torch.device:
        """Where the batches lie."""

    def __len__(self) -> int:
        """Number of images to train on."""

    def example(self, size: int) -> Tensor:
        """Inputs as a training batch has them, always the same."""

    def batches(self, size: int, seed: int, epoch: int, team: Team = ALONE) -> Iterator[Batch]:
        """One epoch's augmented batches, decided by ``seed`` and ``epoch`` alone; a partial one is left out.

        A process of a team gets its part of each batch of ``size``.
        """

    def judging(self) -> Iterator[Batch]:
        """All images to judge by, in order, as they are."""


@dataclass(frozen=True, slots=True)
class Task:
    """Images held whole on the device of the training.

    Args:
        train: Images to train on.
        test: Images to judge by, never trained on.
        standard: Mean and deviation of the training images.
        classes: Number of classes.
    """

    train: Images
    test: Images
    standard: Standard
    classes: int

    @classmethod
    def of(cls, train: Images, test: Images, classes: int, device: torch.device) -> Task:
        """The task on ``device``, standardised by the training images."""
        train = train.to(device)
        return cls(train, test.to(device), Standard.of(train), classes)

    @property
    def device(self) -> torch.device:
        """Where the images lie."""
        return self.train.pixels.device

    def __len__(self) -> int:
        return len(self.train)

    def example(self, size: int) -> Tensor:
        """The first images, standardised."""
        return self.standard(self.train.pixels[:size])

    def batches(self, size: int, seed: int, epoch: int, team: Team = ALONE) -> Iterator[Batch]:
        """Shuffled, cropped, mirrored and standardised."""
        part = slice(team.rank, None, team.size)
        whole = augmented_batches(self.train, size, self.standard, seed, epoch)
        return ((inputs[part], labels[part]) for inputs, labels in whole)

    def judging(self) -> Iterator[Batch]:
        """The test images in order."""
        return plain_batches(self.test, JUDGING_BATCH, self.standard)
