"""One training run: a recipe in, a record an epoch out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from experiments.checkpoints import Checkpoint
from experiments.clock import Clock
from experiments.networks import build
from experiments.systems import SYSTEMS, System
from experiments.tasks import Batch, Feed
from experiments.team import ALONE, Team

__all__ = ["Epoch", "Recipe", "judge", "train"]

DECAY = 0.1
DECAYS_EVERY = 0.3


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides a run, given the images.

    Args:
        network: A key of :data:`experiments.networks.NETWORKS`.
        width: Channels of its first convolution.
        system: A key of :data:`experiments.systems.SYSTEMS`: how it is prepared and optimized.
        lr: Learning rate τ at the start; it is multiplied by 0.1 at each decay.
        weight_decay: Weight decay η.
        epochs: Number of epochs.
        batch_size: Images in a batch; an incomplete last one is left out.
        seed: Decides the network's start and the batches, alike for every system.
        decay_every: Epochs between decays. None: whenever 30% of the epochs have passed, which is the
            paper's schedule (every 60 of 200 epochs, every 30 of 100) at any length.
        options: The system's further hyper-parameters by their names.
        judge_every: Epochs between judgements on the test images; the last epoch is always judged.
        channels_last: Keep channels innermost in memory: the same numbers but for rounding, in less time on
            most devices.
    """

    network: str
    width: int
    system: str
    lr: float
    weight_decay: float
    epochs: int
    batch_size: int = 128
    seed: int = 0
    decay_every: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    judge_every: int = 1
    channels_last: bool = False

    def lr_at(self, epoch: int) -> float:
        """Learning rate in ``epoch``, counted from 1."""
        every = DECAYS_EVERY * self.epochs if self.decay_every is None else self.decay_every
        return float(self.lr * DECAY ** math.floor((epoch - 1) / every + 1e-9))

    def judged(self, epoch: int) -> bool:
        """Whether the test images are looked at after ``epoch``."""
        return epoch % self.judge_every == 0 or epoch == self.epochs


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave.

    Args:
        epoch: Counted from 1.
        train_loss: Cross-entropy on the augmented batches, mean over the epoch as it ran.
        train_accuracy: Percentage of them classified rightly.
        test_loss: Cross-entropy on the test images after the epoch, in eval mode; NaN where not judged.
        test_accuracy: Percentage of these classified rightly; NaN where not judged.
        seconds: Wall time of training so far, judging excluded.
        cpu_seconds: Processor time of training so far, over all threads.
        data_seconds: The part of ``seconds`` that went into making batches.
        peak_bytes: Most memory that tensors took on an accelerator in the epoch; NaN on a CPU.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    cpu_seconds: float
    data_seconds: float
    peak_bytes: float = math.nan

    @property
    def judged(self) -> bool:
        """Whether there is a number of the test images."""
        return math.isfinite(self.test_accuracy)

    @property
    def diverged(self) -> bool:
        """Whether a loss is no finite number any more."""
        return not (math.isfinite(self.train_loss) and (math.isfinite(self.test_loss) or not self.judged))


def train(
    recipe: Recipe,
    task: Feed,
    on_step: Callable[[], object] = lambda: None,
    checkpoint: Checkpoint | None = None,
    team: Team = ALONE,
) -> Iterator[Epoch]:
    """Train as ``recipe`` says; a run that diverges ends early.

    The last epoch is judged on the finished network: plain convolutions, as one would ship it. With a
    checkpoint the state is written once the caller has taken an epoch's record and asks for the next one; a
    run that finds it there goes on after that epoch, with the bits that it would have had.

    Args:
        recipe: The run.
        task: Its images.
        on_step: Called after each step.
        checkpoint: Where the state is kept; None keeps none.
        team: The processes that train together; each calls this with the same recipe.

    Yields:
        The record of each epoch, once it is over; those before the checkpoint are not given again.

    Raises:
        ValueError: if there is not one whole batch, or the team cannot share the work.
    """
    _check(recipe, task, team)
    system = _system(recipe, task)
    clock = Clock(task.device)
    done = _resume(system, clock, checkpoint)
    called = team.wrap(system.model)
    for epoch in range(done + 1, recipe.epochs + 1):
        fitted = _epoch(recipe, task, system, called, clock, epoch, on_step, team)
        model = system.finish(system.model) if epoch == recipe.epochs else system.model
        judged = _judged(model, task, team) if recipe.judged(epoch) else (math.nan, math.nan)
        record = Epoch(epoch, *fitted, *judged, *clock.times, peak_bytes=clock.peak_bytes)
        yield record
        if record.diverged:
            return
        if checkpoint is not None and epoch < recipe.epochs and team.leads:
            checkpoint.write(_state(system, clock, epoch))


@torch.no_grad()
def judge(model: nn.Module, task: Feed) -> tuple[float, float]:
    """Mean cross-entropy and percentage of right answers on the test images, in eval mode."""
    model.eval()
    return _mean((model(inputs), labels) for inputs, labels in task.judging())


def _judged(model: nn.Module, task: Feed, team: Team) -> tuple[float, float]:
    """What the leading process finds, on all."""
    found = judge(model, task) if team.leads else (0.0, 0.0)
    loss, accuracy = team.sum(torch.tensor(found, dtype=torch.float64, device=task.device)).tolist()
    return loss, accuracy


def _check(recipe: Recipe, task: Feed, team: Team) -> None:
    if len(task) < recipe.batch_size:
        raise ValueError(f"{len(task)} training images make no batch of {recipe.batch_size}.")
    if recipe.batch_size % team.size:
        raise ValueError(f"{team.size} processes cannot share batches of {recipe.batch_size} evenly.")
    if team.size > 1 and recipe.system == "adahessian":
        raise ValueError(
            "AdaHessian cannot be trained by several processes: DistributedDataParallel does not average "
            "gradients that are differentiated again. Start it without torchrun."
        )


def _system(recipe: Recipe, task: Feed) -> System:
    example = task.example(recipe.batch_size)
    net = build(
        recipe.network,
        width=recipe.width,
        channels=example.shape[1],
        classes=task.classes,
        seed=recipe.seed,
    ).to(example.device)
    if recipe.channels_last:
        net = net.to(memory_format=torch.channels_last)
    system = SYSTEMS[recipe.system](net, example, recipe.lr, recipe.weight_decay, **recipe.options)
    for group in system.optimizer.param_groups:
        if "seed" in group:
            group["seed"] = recipe.seed
    return system


def _epoch(
    recipe: Recipe,
    task: Feed,
    system: System,
    called: nn.Module,
    clock: Clock,
    epoch: int,
    on_step: Callable[[], object],
    team: Team,
) -> tuple[float, float]:
    for group in system.optimizer.param_groups:
        group["lr"] = recipe.lr_at(epoch)
    cuda = [task.device] if task.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(recipe.seed * 1_000_003 + epoch)
        if system.generator is not None:
            system.generator.manual_seed(recipe.seed * 1_000_003 + epoch)
        batches = task.batches(recipe.batch_size, recipe.seed, epoch, team)
        with clock:
            called.train()
            return _mean(_steps(system, called, clock.watch(batches), on_step), team)


def _state(system: System, clock: Clock, epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "model": system.model.state_dict(),
        "optimizer": system.optimizer.state_dict(),
        "times": list(clock.times),
    }


def _resume(system: System, clock: Clock, checkpoint: Checkpoint | None) -> int:
    """Load the checkpoint, if there is one; returns the number of epochs done."""
    state = None if checkpoint is None else checkpoint.read(clock.device)
    if state is None:
        return 0
    system.model.load_state_dict(state["model"])
    system.optimizer.load_state_dict(state["optimizer"])
    wall, processor, data = state["times"]
    clock.times = wall, processor, data
    done: int = state["epoch"]
    return done


def _steps(
    system: System, called: nn.Module, batches: Iterable[Batch], on_step: Callable[[], object]
) -> Iterator[Batch]:
    for inputs, labels in batches:
        system.optimizer.zero_grad()
        logits = called(inputs)
        system.backward(F.cross_entropy(logits, labels))
        system.optimizer.step()
        on_step()
        yield logits.detach(), labels


def _mean(answers: Iterable[Batch], team: Team = ALONE) -> tuple[float, float]:
    """Mean cross-entropy and percentage of right answers; the device is waited for only at the end."""
    losses, right, count = [], [], 0
    for logits, labels in answers:
        losses.append(F.cross_entropy(logits, labels, reduction="sum"))
        right.append((logits.argmax(1) == labels).sum())
        count += len(labels)
    sums = torch.stack([torch.stack(losses).sum(), torch.stack(right).sum()])
    loss, hits = team.sum(sums).tolist()
    return loss / (count * team.size), 100 * hits / (count * team.size)
