"""Time and convolution arithmetic, all contenders interleaved in one process on one core."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step.contenders import Trainer

__all__ = ["Cost", "measure"]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a mean step of one contender costs over its Hessian cycle.

    Args:
        seconds: Of processor time.
        flops: Of convolutions and matrix products.
    """

    seconds: float
    flops: float


@dataclass(slots=True)
class _Lane:
    trainer: Trainer
    moments: list[tuple[int, float]]
    seconds: list[list[float]] = field(default_factory=list)

    def cost(self, batch: tuple[Tensor, Tensor]) -> Cost:
        shares = [share for _, share in self.moments]
        seconds = (s * statistics.median(taken) for s, taken in zip(shares, self.seconds, strict=True))
        flops = (share * _flops(self.trainer, step, batch) for step, share in self.moments)
        return Cost(sum(seconds), sum(flops))


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
    Of each moment of a cycle the median over the rounds counts. Time is the processor's.

    Args:
        trainers: By name.
        batch: Images and labels.
        sample: How many refreshes stand for a Hessian cycle.
        rounds: How often each of them is timed.
        done: Called after each turn; there are ``rounds`` times the longest cycle's moments of them.
    """
    lanes = {name: _Lane(t, t.moments(sample)) for name, t in trainers.items()}
    for lane in lanes.values():
        lane.seconds = [[] for _ in lane.moments]
        _timed(lane, 0, batch)
        lane.seconds[0].clear()
    turns = max(len(lane.moments) for lane in lanes.values())
    for turn in range(rounds * turns):
        for lane in lanes.values():
            _timed(lane, turn % len(lane.moments), batch)
        done()
    return {name: lane.cost(batch) for name, lane in lanes.items()}


def _timed(lane: _Lane, moment: int, batch: tuple[Tensor, Tensor]) -> None:
    lane.trainer.go_to(lane.moments[moment][0])
    started = time.process_time()
    lane.trainer.step(batch)
    lane.seconds[moment].append(time.process_time() - started)


def _flops(trainer: Trainer, step: int, batch: tuple[Tensor, Tensor]) -> float:
    trainer.go_to(step)
    with FlopCounterMode(display=False) as counter:
        trainer.step(batch)
    return float(counter.get_total_flops())
