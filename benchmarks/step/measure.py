"""Measure time and arithmetic of all candidates, which take turns in one process, on one core or one GPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from benchmarks.step.arithmetic import flops_of
from benchmarks.step.candidates import Trainer

__all__ = ["Cost", "measure"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a step of one candidate costs, averaged over its Hessian cycle.

    Args:
        seconds: Processor time. On a GPU it is wall time, from one empty queue to the next.
        flops: Operations of convolutions and matrix products.
    """

    seconds: float
    flops: float


@dataclass(slots=True)
class _Timings:
    trainer: Trainer
    steps: list[tuple[int, float]]
    turns: list[list[float]] = field(default_factory=list)

    def cost(self, batch: tuple[Tensor, Tensor]) -> Cost:
        best = [min(taken) for taken in self.turns]
        count = len(self.steps)
        seconds = (share * statistics.mean(best[i::count]) for i, (_, share) in enumerate(self.steps))
        flops = {step: _flops(self.trainer, step, batch) for step in {step for step, _ in self.steps}}
        return Cost(sum(seconds), sum(share * flops[step] for step, share in self.steps))


def measure(
    trainers: dict[str, Trainer],
    batch: tuple[Tensor, Tensor],
    *,
    sample: int,
    rounds: int,
    done: Callable[[], None],
) -> dict[str, Cost]:
    """Measure the mean cost of a step of each candidate.

    The candidates take turns, one step each, so that other work on the machine affects all alike. Of each turn
    the best round counts, because other work only adds time. Every candidate has the same number of turns. If
    it has fewer steps than turns, the mean of the turns of a step counts.

    Args:
        trainers: By name, on the batch's device.
        batch: Images and labels.
        sample: How many refreshes stand for a Hessian cycle.
        rounds: How often each step is timed.
        done: Called after each turn. There are ``rounds`` times as many as steps of the longest cycle.
    """
    timings = {name: _Timings(t, t.sampled_steps(sample)) for name, t in trainers.items()}
    turns = max(len(each.steps) for each in timings.values())
    for each in timings.values():
        each.turns = [[] for _ in range(turns)]
        _warm_up(each, batch)
    for turn in list(range(turns)) * rounds:
        for each in timings.values():
            each.turns[turn].append(_time(each, turn % len(each.steps), batch))
        done()
    return {name: each.cost(batch) for name, each in timings.items()}


def _warm_up(timings: _Timings, batch: tuple[Tensor, Tensor]) -> None:
    # A GPU loads each kernel at its first call, and every step of a cycle has its own kernels.
    for number in range(1 if batch[0].is_cpu else len(timings.steps)):
        _time(timings, number, batch)


def _time(timings: _Timings, number: int, batch: tuple[Tensor, Tensor]) -> float:
    timings.trainer.go_to(timings.steps[number][0])
    started = _now(batch[0].device)
    timings.trainer.step(batch)
    return _now(batch[0].device) - started


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _flops(trainer: Trainer, step: int, batch: tuple[Tensor, Tensor]) -> float:
    trainer.go_to(step)
    return flops_of(lambda: trainer.step(batch))
