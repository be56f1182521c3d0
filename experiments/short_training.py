"""A network after a few hundred steps of SGD on CIFAR-10: what docs/curvature.md measures the Hessian of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.nn.functional import cross_entropy

from experiments.batches import Standard, augmented_batches
from experiments.data import MissingDataError, load
from experiments.formats import Images
from experiments.networks import build
from sgdph_fx import Prepared, prepare

__all__ = ["SETTINGS", "WEIGHT_DECAY", "Setting", "Trained", "training_options", "with_bar"]

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

SEED = 0
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4


@dataclass(frozen=True, slots=True)
class Setting:
    """A width that one processor core has time for, and the learning rate with which SGD with momentum trains it."""

    width: int
    lr: float


SETTINGS = {
    "resnet18": Setting(8, 0.05),
    "vgg19": Setting(16, 0.02),
    "convnext": Setting(16, 0.05),
    "vit": Setting(16, 0.05),
}
"""By network of :data:`experiments.networks.NETWORKS`."""


def training_options(command: F) -> F:
    """The options of a command that says which network to train, and for how long."""
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


@dataclass(frozen=True, slots=True)
class Trained:
    """A prepared network, and what it was trained on.

    Args:
        prepared: The network.
        images: The training images.
        standard: How they are brought to mean 0 and variance 1.
        loss: The mean over the last 20 steps; NaN if there were none.
    """

    prepared: Prepared
    images: Images
    standard: Standard
    loss: float

    @classmethod
    def on(cls, folder: Path, network: str, width: int | None, steps: int) -> Trained:
        """One trained on the images of CIFAR-10 in a folder; its loss is printed.

        Raises:
            ClickException: if the images are not there.
        """
        try:
            images = load("cifar10", folder).train
        except MissingDataError as error:
            raise click.ClickException(str(error)) from error
        trained = cls.after(steps, network, width, images)
        click.echo(f"Mean loss of the last {min(steps, 20)} of {steps} steps: {trained.loss:.3f}")
        return trained

    @classmethod
    def after(cls, steps: int, network: str, width: int | None, images: Images) -> Trained:
        """One after so many steps of SGD with momentum."""
        setting, standard = SETTINGS[network], Standard.of(images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            net = build(network, width=width or setting.width, seed=SEED)
            prepared = prepare(net, standard(images[:2].pixels))
        optimizer = torch.optim.SGD(
            prepared.param_groups, lr=setting.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        size = min(128, len(images))
        epochs = (
            augmented_batches(images, size, standard, SEED, e) for e in range(1 + steps * size // len(images))
        )
        losses = []
        for inputs, labels in islice((batch for epoch in epochs for batch in epoch), steps):
            optimizer.zero_grad()
            loss = cross_entropy(prepared.model(inputs), labels)
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(loss.item())
        last = losses[-20:]
        return cls(prepared, images, standard, sum(last) / len(last) if last else float("nan"))


def with_bar(what: str, run: Callable[[Callable[[int, int], None]], T]) -> T:
    """Run with a progress bar of that name on standard error, where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:  # older releases of rich end a disabled bar, too, by an empty line
        return run(lambda done, total: None)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=None)
        return run(lambda done, total: bar.update(task, completed=done, total=total))
