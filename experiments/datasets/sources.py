"""What a training reads: batches to train on and batches to evaluate on, on its device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from experiments.datasets.batches import Standardizer, augmented_batches, plain_batches
from experiments.datasets.formats import Images
from experiments.datasets.objectives import Classification, Objective
from experiments.distributed import SINGLE_PROCESS, World

__all__ = ["Batch", "DataSource", "InMemorySource"]

EVAL_BATCH = 500

Batch = tuple[Tensor, Tensor]


class DataSource(Protocol):
    """A data set, however it is stored.

    For images, inputs are ``(N, C, H, W)`` float32 and targets are labels ``(N,)`` int64.
    """

    @property
    def classes(self) -> int:
        """Number of the network's outputs."""

    @property
    def device(self) -> torch.device:
        """Device of the batches."""

    @property
    def objective(self) -> Objective:
        """The loss to train on, and the score."""

    def __len__(self) -> int:
        """Number of training samples in an epoch."""

    def example_inputs(self, size: int) -> Tensor:
        """Give the inputs of one training batch, always the same ones."""

    def train_batches(
        self, size: int, seed: int, epoch: int, world: World = SINGLE_PROCESS
    ) -> Iterator[Batch]:
        """Give one epoch's augmented batches, which depend on ``seed`` and ``epoch`` alone.

        An incomplete last batch is dropped. Each process of ``world`` gets its part of each batch of ``size``.
        """

    def eval_batches(self) -> Iterator[Batch]:
        """Give everything to evaluate on, in order, without augmentation."""


@dataclass(frozen=True, slots=True)
class InMemorySource:
    """Images held whole on the training's device.

    Args:
        train: Images to train on.
        test: Images to evaluate on, never trained on.
        standardizer: Mean and standard deviation of the training images.
        classes: Number of classes.
    """

    train: Images
    test: Images
    standardizer: Standardizer
    classes: int

    @classmethod
    def on_device(cls, train: Images, test: Images, classes: int, device: torch.device) -> InMemorySource:
        """Move the images to ``device``, and standardize by the training images."""
        train = train.to(device)
        return cls(train, test.to(device), Standardizer.from_images(train), classes)

    @property
    def device(self) -> torch.device:
        """Device of the images."""
        return self.train.pixels.device

    @property
    def objective(self) -> Objective:
        """Classification."""
        return Classification()

    def __len__(self) -> int:
        return len(self.train)

    def example_inputs(self, size: int) -> Tensor:
        """Give the first images, standardized."""
        return self.standardizer(self.train.pixels[:size])

    def train_batches(
        self, size: int, seed: int, epoch: int, world: World = SINGLE_PROCESS
    ) -> Iterator[Batch]:
        """Give shuffled, cropped, mirrored and standardized images."""
        part = slice(world.rank, None, world.size)
        whole = augmented_batches(self.train, size, self.standardizer, seed, epoch)
        return ((inputs[part], labels[part]) for inputs, labels in whole)

    def eval_batches(self) -> Iterator[Batch]:
        """Give the test images in order."""
        return plain_batches(self.test, EVAL_BATCH, self.standardizer)
