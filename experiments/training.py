"""One training run: a recipe in, a record an epoch out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.batches import Standard, augmented_batches, plain_batches
from experiments.clock import Clock
from experiments.formats import Images
from experiments.networks import build
from experiments.systems import SYSTEMS, System

__all__ = ["Epoch", "Recipe", "Task", "judge", "train"]

JUDGING_BATCH = 500
DECAY = 0.1
DECAYS_EVERY = 0.3


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a run, given the images.

    Args:
        network: A key of :data:`experiments.networks.NETWORKS`.
        width: Channels of its first convolution.
        system: A key of :data:`experiments.systems.SYSTEMS`: how it is prepared and optimized.
        lr: Learning rate τ at the start. It is multiplied by 0.1 whenever 30% of the epochs have passed,
            which is the paper's schedule (every 60 of 200 epochs) at any length.
        weight_decay: Weight decay η.
        epochs: Number of epochs.
        batch_size: Images in a batch; an incomplete last one is left out.
        seed: Decides the network's start and the batches, alike for every system.
    """

    network: str
    width: int
    system: str
    lr: float
    weight_decay: float
    epochs: int
    batch_size: int = 128
    seed: int = 0

    def lr_at(self, epoch: int) -> float:
        """Learning rate in ``epoch``, counted from 1."""
        return float(self.lr * DECAY ** math.floor((epoch - 1) / (DECAYS_EVERY * self.epochs) + 1e-9))


@dataclass(frozen=True, slots=True)
class Task:
    """The images of a run, on its device.

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


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave.

    Args:
        epoch: Counted from 1.
        train_loss: Cross-entropy on the augmented batches, mean over the epoch as it ran.
        train_accuracy: Percentage of them classified rightly.
        test_loss: Cross-entropy on the test images after the epoch, in eval mode.
        test_accuracy: Percentage of these classified rightly.
        seconds: Wall time of training so far, judging excluded.
        cpu_seconds: Processor time of training so far, over all threads.
        data_seconds: The part of ``seconds`` that went into making batches.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    cpu_seconds: float
    data_seconds: float

    @property
    def diverged(self) -> bool:
        """Whether a loss is no finite number any more."""
        return not (math.isfinite(self.train_loss) and math.isfinite(self.test_loss))


def train(recipe: Recipe, task: Task, on_step: Callable[[], object] = lambda: None) -> Iterator[Epoch]:
    """Train as ``recipe`` says; a run that diverges ends early.

    The last epoch is judged on the finished network: plain convolutions, as one would ship it.

    Args:
        recipe: The run.
        task: Its images.
        on_step: Called after each step.

    Yields:
        The record of each epoch, once it is over.

    Raises:
        ValueError: if there is not one whole batch.
    """
    if len(task.train) < recipe.batch_size:
        raise ValueError(f"{len(task.train)} training images make no batch of {recipe.batch_size}.")
    system = _system(recipe, task)
    clock = Clock(task.train.pixels.device)
    for epoch in range(1, recipe.epochs + 1):
        for group in system.optimizer.param_groups:
            group["lr"] = recipe.lr_at(epoch)
        batches = augmented_batches(task.train, recipe.batch_size, task.standard, recipe.seed, epoch)
        with clock:
            fitted = _fit(system, clock.watch(batches), on_step)
        model = system.finish(system.model) if epoch == recipe.epochs else system.model
        times = clock.seconds, clock.cpu_seconds, clock.data_seconds
        record = Epoch(epoch, *fitted, *judge(model, task), *times)
        yield record
        if record.diverged:
            return


@torch.no_grad()
def judge(model: nn.Module, task: Task) -> tuple[float, float]:
    """Mean cross-entropy and percentage of right answers on the test images, in eval mode."""
    model.eval()
    batches = plain_batches(task.test, JUDGING_BATCH, task.standard)
    return _mean((model(inputs), labels) for inputs, labels in batches)


def _system(recipe: Recipe, task: Task) -> System:
    pixels = task.train.pixels[: recipe.batch_size]
    net = build(
        recipe.network,
        width=recipe.width,
        channels=pixels.shape[1],
        classes=task.classes,
        seed=recipe.seed,
    ).to(pixels.device)
    return SYSTEMS[recipe.system](net, task.standard(pixels), recipe.lr, recipe.weight_decay)


def _fit(
    system: System, batches: Iterable[tuple[Tensor, Tensor]], on_step: Callable[[], object]
) -> tuple[float, float]:
    def steps() -> Iterator[tuple[Tensor, Tensor]]:
        for inputs, labels in batches:
            system.optimizer.zero_grad()
            logits = system.model(inputs)
            system.backward(F.cross_entropy(logits, labels))
            system.optimizer.step()
            on_step()
            yield logits.detach(), labels

    system.model.train()
    return _mean(steps())


def _mean(answers: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Mean cross-entropy and percentage of right answers; the device is waited for only at the end."""
    losses, right, count = [], [], 0
    for logits, labels in answers:
        losses.append(F.cross_entropy(logits, labels, reduction="sum"))
        right.append((logits.argmax(1) == labels).sum())
        count += len(labels)
    return float(torch.stack(losses).sum()) / count, 100 * float(torch.stack(right).sum()) / count
