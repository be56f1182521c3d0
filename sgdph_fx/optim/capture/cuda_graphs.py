"""Functions recorded as CUDA graphs that share one pool of memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Recorder", "Recording"]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What was recorded.

    Args:
        replay: Runs it again, on the current stream.
        result: What it returns; each replay writes over it.
        given_up: How many products torch's double backward takes in it.
        counts: Whether it is a step at all, or was left without any gradient.
    """

    replay: Callable[[], object]
    result: Tensor
    given_up: int = 0
    counts: bool = True


class Recorder:
    """Records on a stream of its own, as CUDA asks for.

    Args:
        device: The GPU.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None

    def warm_up(self, run: Callable[[], Tensor]) -> Tensor:
        """Run the function where it is going to be recorded, so that libraries choose their kernels beforehand.

        Returns:
            What it returned.
        """
        current, own = torch.cuda.current_stream(self._device), self._own_stream()
        own.wait_stream(current)
        with torch.cuda.stream(own):
            result = run()
        current.wait_stream(own)
        return result.clone()

    def record(self, run: Callable[[], Tensor]) -> Recording:
        """Record the function without running it.

        Returns:
            The recording; its memory is taken from the pool that all recordings share.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._own_stream()):
            result = run()
        return Recording(graph.replay, result)

    def _own_stream(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return self._stream
