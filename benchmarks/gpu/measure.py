"""Measure a loop: wall time, the time and number of its kernels, and memory."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.loops import INTERVAL, Loop
from sgdph_fx import SGDPH

__all__ = ["Kernels", "Measured", "measure", "summed"]

# How many steps are timed in one go. The host runs ahead of the device within them, as it does in training.
STEPS = 4
# A recorded step needs two steps before the timing: one to warm up, one to record.
WARM_UPS = 2


@dataclass(frozen=True, slots=True)
class Kernels:
    """What ran on the device in a mean step.

    Args:
        milliseconds: The sum of the kernels' times.
        launches: How many there were: kernels, copies and fills.
        longest: Name, milliseconds and number of those that took longest.
    """

    milliseconds: float
    launches: float
    longest: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What a step of one loop costs on average.

    Args:
        interval: Every how many steps a Hessian is refreshed; 1 for optimizers without Hessians.
        milliseconds: Wall time.
        megabytes: The most memory that torch's allocator gave out. Of steps captured as graphs, what it reserved,
            because a graph keeps its memory.
        kernels: None on a CPU, and where only some steps refresh a Hessian.
    """

    interval: int
    milliseconds: float
    megabytes: float | None
    kernels: Kernels | None


def measure(
    loop: Loop, device: torch.device, *, sample: int, rounds: int, captured: bool
) -> Iterator[Measured]:
    """Measure one loop.

    Args:
        loop: Its steps.
        device: What they run on.
        sample: How many refreshes, spread evenly over the Hessian cycle, stand for all of them.
        rounds: How often each block of steps is timed; the best counts.
        captured: Whether the steps are CUDA graphs.

    Yields:
        One entry; for SGD-PH two, each as soon as it is there: refreshes at every step, and at every tenth.
    """
    counts = isinstance(loop.optimizer, SGDPH)
    places = _places(loop.cycle, sample)
    blocks = {1: [[place * INTERVAL] * STEPS for place in places]}
    if counts:
        some = _places(loop.cycle, min(sample, 3))
        blocks[INTERVAL] = [[place * INTERVAL + k for k in range(INTERVAL)] for place in some]
    for interval, each in blocks.items():
        for block in each * WARM_UPS:
            _run(loop, block)
        megabytes = _peak(loop, device, each, captured)
        seconds = statistics.mean(min(_timed(loop, b, device) for _ in range(rounds)) for b in each)
        kernels = _profiled(loop, device, places[:: max(1, len(places) // 3)]) if interval == 1 else None
        yield Measured(interval, 1e3 * seconds, megabytes, kernels)


def _places(cycle: int, count: int) -> list[int]:
    """Choose parameters that are spread evenly over the cycle."""
    chosen = min(cycle, count)
    return [int((i + 0.5) * cycle / chosen) for i in range(chosen)]


def _run(loop: Loop, block: Sequence[int]) -> None:
    for step in block:
        loop.go_to(step)
        loop.step()


def _timed(loop: Loop, block: Sequence[int], device: torch.device) -> float:
    started = _now(device)
    _run(loop, block)
    return (_now(device) - started) / len(block)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def _peak(loop: Loop, device: torch.device, blocks: Sequence[Sequence[int]], captured: bool) -> float | None:
    """Measure memory. The refresh of the lowest layer, step 0, needs most; it is measured if it needs no new graph."""
    if device.type != "cuda":
        return None
    gc.collect()
    torch.cuda.empty_cache()
    if captured:
        _run(loop, blocks[0])
        return torch.cuda.memory_reserved(device) / 2**20
    torch.cuda.reset_peak_memory_stats(device)
    _run(loop, [0, *blocks[0]])
    return torch.cuda.max_memory_allocated(device) / 2**20


def _profiled(loop: Loop, device: torch.device, places: Sequence[int]) -> Kernels | None:
    if device.type != "cuda":
        return None
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        for place in places:
            _run(loop, [place * INTERVAL])
        torch.cuda.synchronize(device)
    return summed(recorded.events() or [], len(places))


def summed(events: Iterable[Any], steps: int) -> Kernels:
    """Sum up a profile.

    Args:
        events: As of ``torch.profiler.profile.events()``. Those of the host are left out.
        steps: How many steps were profiled.
    """
    by_name: dict[str, tuple[float, int]] = {}
    for event in events:
        # A range that the host names (`Optimizer.step#SGD.step`) is shown on the device, too, and is no kernel.
        if event.device_type != DeviceType.CUDA or "#" in event.name:
            continue
        taken, number = by_name.get(event.name, (0.0, 0))
        by_name[event.name] = taken + event.self_device_time_total / 1e3, number + 1
    each = [(name, taken / steps, number / steps) for name, (taken, number) in by_name.items()]
    each.sort(key=lambda entry: -entry[1])
    return Kernels(sum(e[1] for e in each), sum(e[2] for e in each), tuple(each[:25]))
