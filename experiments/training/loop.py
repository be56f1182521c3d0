"""The training loop: settings in, the numbers of each epoch out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from experiments.datasets.objectives import Score
from experiments.datasets.sources import Batch, DataSource
from experiments.distributed import SINGLE_PROCESS, World
from experiments.networks import build
from experiments.training.checkpoints import Checkpoint
from experiments.training.config import PRECISIONS, RunConfig
from experiments.training.methods import METHODS, Setup
from experiments.training.metrics import EpochMetrics
from experiments.training.timer import Timer

__all__ = ["evaluate", "train"]


@dataclass(frozen=True, slots=True)
class _Training:
    """What the functions below share."""

    config: RunConfig
    source: DataSource
    setup: Setup
    called: nn.Module
    base_lrs: tuple[float, ...]
    timer: Timer
    world: World

    def autocast(self) -> torch.autocast:
        enabled = self.config.precision == "bfloat16"
        return torch.autocast(self.source.device.type, torch.bfloat16, enabled=enabled)


def train(
    config: RunConfig,
    source: DataSource,
    on_step: Callable[[], object] = lambda: None,
    checkpoint: Checkpoint | None = None,
    world: World = SINGLE_PROCESS,
) -> Iterator[EpochMetrics]:
    """Train as ``config`` says. A run that diverges ends early.

    The last epoch is evaluated on the finished network, with plain convolutions, as you would ship it. With a
    checkpoint the state is written once the caller has taken an epoch's numbers and asks for the next. A run
    that finds the state there resumes after that epoch, with the bits that it would have had.

    Args:
        config: The run.
        source: Its data.
        on_step: Called after each step.
        checkpoint: Where the state is saved; None saves none.
        world: The processes that train together. Each calls this function with the same arguments.

    Yields:
        The numbers of each epoch, once it is over. Epochs before the checkpoint are not given again.

    Raises:
        ValueError: if there is not one whole batch, or the processes cannot share the work.
    """
    _check(config, source, world)
    training = _start(config, source, world)
    for epoch in range(_resume(training, checkpoint) + 1, config.epochs + 1):
        trained = _train_epoch(training, epoch, on_step)
        setup = training.setup
        model = setup.finish(setup.model) if epoch == config.epochs else setup.model
        tested = _evaluate_on_main(training, model) if config.evaluates_after(epoch) else Score(math.nan)
        times, peak = training.timer.times, training.timer.peak_bytes
        metrics = EpochMetrics(
            epoch, trained.loss, trained.score, tested.loss, tested.score, *times, peak_bytes=peak
        )
        yield metrics
        if metrics.diverged:
            return
        if checkpoint is not None and epoch < config.epochs and world.is_main:
            checkpoint.write(_state(training, epoch))


def evaluate(model: nn.Module, source: DataSource) -> Score:
    """Score the model on everything in ``source.eval_batches()``, in evaluation mode."""
    model.eval()
    with torch.no_grad():
        sums = [
            source.objective.eval_sums(model, inputs, targets) for inputs, targets in source.eval_batches()
        ]
    return source.objective.eval_score(torch.stack(sums).sum(0))


def _evaluate_on_main(training: _Training, model: nn.Module) -> Score:
    """Evaluate in the main process, and give the score to all processes."""
    found = Score(0.0, 0.0)
    if training.world.is_main:
        with training.autocast():
            found = evaluate(model, training.source)
    numbers = torch.tensor([found.loss, found.score], dtype=torch.float64, device=training.source.device)
    return Score(*training.world.all_reduce(numbers).tolist())


def _check(config: RunConfig, source: DataSource, world: World) -> None:
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision is {config.precision!r}, but must be one of {', '.join(PRECISIONS)}.")
    if len(source) < config.batch_size:
        raise ValueError(f"{len(source)} training samples make no batch of {config.batch_size}.")
    if config.batch_size % world.size:
        raise ValueError(f"{world.size} processes cannot share batches of {config.batch_size} evenly.")
    if world.size > 1 and config.method == "adahessian":
        raise ValueError(
            "AdaHessian cannot be trained by several processes: DistributedDataParallel does not average "
            "gradients that are differentiated again. Start it without torchrun."
        )


def _start(config: RunConfig, source: DataSource, world: World) -> _Training:
    example = source.example_inputs(config.batch_size)
    sizes = {"width": config.width, "channels": example.shape[1], "classes": source.classes}
    net = build(config.network, seed=config.seed, **sizes).to(example.device)
    if config.channels_last:
        net = net.to(memory_format=torch.channels_last)
    setup = METHODS[config.method](net, example, config.lr, config.weight_decay, **config.options)
    for group in setup.optimizer.param_groups:
        if "seed" in group:
            group["seed"] = config.seed
    base_lrs = tuple(group["lr"] for group in setup.optimizer.param_groups)
    return _Training(config, source, setup, world.wrap(setup.model), base_lrs, Timer(source.device), world)


def _train_epoch(training: _Training, epoch: int, on_step: Callable[[], object]) -> Score:
    config, source, setup = training.config, training.source, training.setup
    for group, base_lr in zip(setup.optimizer.param_groups, training.base_lrs, strict=True):
        group["lr"] = base_lr * config.lr_factor(epoch)
    cuda = [source.device] if source.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(config.seed * 1_000_003 + epoch)
        if setup.generator is not None:
            setup.generator.manual_seed(config.seed * 1_000_003 + epoch)
        batches = source.train_batches(config.batch_size, config.seed, epoch, training.world)
        with training.timer as timer:
            training.called.train()
            sums = torch.stack(list(_steps(training, timer.time_batches(batches), on_step))).sum(0)
            return source.objective.train_score(training.world.all_reduce(sums))


def _steps(training: _Training, batches: Iterable[Batch], on_step: Callable[[], object]) -> Iterator[Tensor]:
    setup, objective = training.setup, training.source.objective
    for inputs, targets in batches:
        setup.optimizer.zero_grad()
        with training.autocast():
            loss, sums = objective.loss(training.called, inputs, targets)
        setup.backward(loss)
        setup.optimizer.step()
        on_step()
        yield sums


def _state(training: _Training, epoch: int) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "model": training.setup.model.state_dict(),
        "optimizer": training.setup.optimizer.state_dict(),
        "times": list(training.timer.times),
    }


def _resume(training: _Training, checkpoint: Checkpoint | None) -> int:
    """Load the checkpoint, if there is one, and return the number of epochs done."""
    state = None if checkpoint is None else checkpoint.read(training.source.device)
    if state is None:
        return 0
    training.setup.model.load_state_dict(state["model"])
    training.setup.optimizer.load_state_dict(state["optimizer"])
    wall, processor, data = state["times"]
    training.timer.times = wall, processor, data
    done: int = state["epoch"]
    return done
