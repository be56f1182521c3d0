"""Time spent in training, and the part of it that goes into making batches."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import torch

__all__ = ["Clock"]

T = TypeVar("T")


class Clock:
    """A stop watch: runs inside ``with``, adds up over several of them.

    Args:
        device: The device whose pending work is awaited at start and stop.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds = 0.0
        self.cpu_seconds = 0.0
        self.data_seconds = 0.0
        self._device = device
        self._started = (0.0, 0.0)

    def __enter__(self) -> Clock:
        self._await_device()
        self._started = (time.perf_counter(), time.process_time())
        return self

    def __exit__(self, *exception: object) -> None:
        self._await_device()
        self.seconds += time.perf_counter() - self._started[0]
        self.cpu_seconds += time.process_time() - self._started[1]

    def watch(self, batches: Iterable[T]) -> Iterator[T]:
        """The same batches; the time that making them takes is added to ``data_seconds``."""
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self.data_seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def _await_device(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
