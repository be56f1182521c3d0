"""Train a network for a few hundred steps of SGD on CIFAR-10, so that its Hessian can be measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from experiments.datasets.batches import Standardizer, augmented_batches
from experiments.datasets.formats import Images
from experiments.datasets.load import MissingDataError, load
from experiments.networks import build
from sgdph_fx import Prepared, prepare

__all__ = [
    "SETTINGS",
    "WEIGHT_DECAY",
    "ShortTraining",
    "TrainedNetwork",
    "TrainingSettings",
    "load_images",
    "training_options",
]

F = TypeVar("F", bound=Callable[..., Any])

SEED, NEW_SEED = 0, 1
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """A width that one processor core can train, and a learning rate for SGD with momentum."""

    width: int
    lr: float


SETTINGS = {
    "resnet18": TrainingSettings(8, 0.05),
    "resnet18-no-norm": TrainingSettings(8, 0.02),
    "vgg11": TrainingSettings(16, 0.02),
    "vgg19": TrainingSettings(16, 0.02),
    "convnext": TrainingSettings(16, 0.05),
    "vit": TrainingSettings(16, 0.05),
}
"""By network of :data:`experiments.networks.NETWORKS`."""


def training_options(command: F) -> F:
    """Add the options that say which network to train, and for how long."""
    folder = click.Path(path_type=Path)
    for option in (
        click.option("--threads", type=int, default=1, show_default=True),
        click.option("--steps", type=int, default=300, show_default=True),
        click.option(
            "--width", type=int, help="Channels of the first layer, or of a head; narrow by default."
        ),
        click.option("--data", type=folder, default=Path("data"), show_default=True),
        click.option("--network", type=click.Choice(list(SETTINGS)), required=True),
    ):
        command = option(command)
    return command


def load_images(folder: Path) -> Images:
    """Load the training images of CIFAR-10.

    Args:
        folder: The data folder.

    Raises:
        ClickException: if they are not there.
    """
    try:
        return load("cifar10", folder).train
    except MissingDataError as error:
        raise click.ClickException(str(error)) from error


class ShortTraining:
    """A prepared network, trained by SGD with momentum while you iterate.

    Args:
        network: A key of :data:`SETTINGS`.
        width: Its width; None is the narrow default.
        images: The training images.
    """

    def __init__(self, network: str, width: int | None, images: Images) -> None:
        settings = SETTINGS[network]
        self.images = images
        self.standardizer = Standardizer.from_images(images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            net = build(network, width=width or settings.width, seed=SEED)
            self.prepared: Prepared = prepare(net, self.standardizer(images[:2].pixels))
        self.loss_fn = cross_entropy
        self._optimizer = torch.optim.SGD(
            self.prepared.param_groups, lr=settings.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )

    def steps(self, count: int) -> Iterator[float]:
        """Take ``count`` steps on batches of at most 128 images; yield the loss of each step."""
        size = min(128, len(self.images))
        epochs = (
            augmented_batches(self.images, size, self.standardizer, SEED, epoch)
            for epoch in range(1 + count * size // len(self.images))
        )
        for inputs, labels in islice((batch for epoch in epochs for batch in epoch), count):
            self._optimizer.zero_grad()
            loss = cross_entropy(self.prepared.model(inputs), labels)
            torch.autograd.backward(loss)
            self._optimizer.step()
            yield loss.item()

    def new_batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give batches of ``size`` augmented training images, drawn by another seed than the training's."""
        return augmented_batches(self.images, size, self.standardizer, NEW_SEED, 0)


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """A prepared network, and what it was trained on.

    Args:
        prepared: The network.
        images: The training images.
        standardizer: Brings them to mean 0 and variance 1.
        loss: The mean over the last 20 steps; NaN if there were none.
    """

    prepared: Prepared
    images: Images
    standardizer: Standardizer
    loss: float

    @classmethod
    def from_folder(cls, folder: Path, network: str, width: int | None, steps: int) -> TrainedNetwork:
        """Train on the CIFAR-10 images in a folder, and print the loss.

        Raises:
            ClickException: if the images are not there.
        """
        trained = cls.after(steps, network, width, load_images(folder))
        click.echo(f"Mean loss of the last {min(steps, 20)} of {steps} steps: {trained.loss:.3f}")
        return trained

    @classmethod
    def after(cls, steps: int, network: str, width: int | None, images: Images) -> TrainedNetwork:
        """Train for that many steps."""
        training = ShortTraining(network, width, images)
        last = list(training.steps(steps))[-20:]
        loss = sum(last) / len(last) if last else float("nan")
        return cls(training.prepared, images, training.standardizer, loss)
