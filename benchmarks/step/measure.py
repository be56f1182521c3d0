"""Time and convolution arithmetic, all contenders interleaved in one process, on one core or one GPU."""

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
    """What a mean step of one contender costs over its Hessian cycle.

    Args:
        seconds: Of processor time; on a GPU of the clock, from one empty queue to the next.
        flops: Of convolutions and matrix products.
    """

    seconds: float
    flops: float


@dataclass(slots=True)
class _Lane:
    trainer: Trainer
    moments: list[tuple[int, float]]
    turns: list[list[float]] = field(default_factory=list)

    def cost(self, batch: tuple[Tensor, Tensor]) -> Cost:
        best = [min(taken) for taken in self.turns]
        count = len(self.moments)
        seconds = (share * statistics.mean(best[i::count]) for i, (_, share) in enumerate(self.moments))
        flops = {step: _flops(self.trainer, step, batch) for step in {step for step, _ in self.moments}}
        return Cost(sum(seconds), sum(share * flops[step] for step, share in self.moments))


def measure(
    trainers: dict[str, Trainer],
    batch: tuple[Tensor, Tensor],
    *,
    sample: int,
    rounds: int,
    done: Callable[[], None],
) -> dict[str, Cost]:
    """Mean cost of a step of each contender.

    Steps take turns, one of each contender, so that whatever else the machine does falls on all alike.
    Of each turn the best round counts, as the machine's other work only adds; it is the same choice among as many
    for all, and a contender with fewer moments than turns has the mean of those that fall on one.

    Args:
        trainers: By name, on the batch's device.
        batch: Images and labels.
        sample: How many refreshes stand for a Hessian cycle.
        rounds: How often each of them is timed.
        done: Called after each turn; there are ``rounds`` times the longest cycle's moments of them.
    """
    lanes = {name: _Lane(t, t.moments(sample)) for name, t in trainers.items()}
    turns = max(len(lane.moments) for lane in lanes.values())
    for lane in lanes.values():
        lane.turns = [[] for _ in range(turns)]
        _warm(lane, batch)
    for turn in list(range(turns)) * rounds:
        for lane in lanes.values():
            lane.turns[turn].append(_timed(lane, turn % len(lane.moments), batch))
        done()
    return {name: lane.cost(batch) for name, lane in lanes.items()}


def _warm(lane: _Lane, batch: tuple[Tensor, Tensor]) -> None:
    # A GPU loads each kernel at its first call, and every moment of a cycle has kernels of its own.
    for moment in range(1 if batch[0].is_cpu else len(lane.moments)):
        _timed(lane, moment, batch)


def _timed(lane: _Lane, moment: int, batch: tuple[Tensor, Tensor]) -> float:
    lane.trainer.go_to(lane.moments[moment][0])
    started = _now(batch[0].device)
    lane.trainer.step(batch)
    return _now(batch[0].device) - started


def _now(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def _flops(trainer: Trainer, step: int, batch: tuple[Tensor, Tensor]) -> float:
    trainer.go_to(step)
    return flops_of(lambda: trainer.step(batch))
