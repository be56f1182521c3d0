"""Measure the time spent in training, the part of it spent on data, and peak memory."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

__all__ = ["Timer"]

T = TypeVar("T")


class Timer:
    """A stopwatch: runs inside ``with``, and adds up over several uses.

    Args:
        device: The timer waits for its pending work at start and stop, and watches its memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.data_seconds = 0.0
        self.peak_bytes = math.nan
        self._started = (0.0, 0.0)

    @property
    def times(self) -> tuple[float, float, float]:
        """Wall time, processor time over all threads, and wall time spent on data, in seconds so far."""
        return self.seconds, self.cpu_seconds, self.data_seconds

    @times.setter
    def times(self, times: tuple[float, float, float]) -> None:
        self.seconds, self.cpu_seconds, self.data_seconds = times

    def __enter__(self) -> Timer:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        self._started = (time.perf_counter(), time.process_time())
        return self

    def __exit__(self, *exception: object) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            self.peak_bytes = float(torch.cuda.max_memory_allocated(self.device))
        self.seconds += time.perf_counter() - self._started[0]
        self.cpu_seconds += time.process_time() - self._started[1]

    def time_batches(self, batches: Iterable[T]) -> Iterator[T]:
        """Pass the batches through, and add the time that making them takes to ``data_seconds``."""
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self.data_seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch
