"""Functions recorded as CUDA graphs that share one pool of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from sgdph_fx.errors import CaptureError, OptimizerError, first_line

__all__ = ["Recorder", "Recording", "failures_explained"]


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """What was recorded.

    Args:
        replay: Runs it again, on the current stream.
        result: What it returns; each replay writes over it.
        given_up: How many products torch's double backward takes in it.
        counts: Whether it is a step at all, or was left without any gradient.
        written: Tensors that were there before and that it writes.
    """

    replay: Callable[[], object]
    result: Tensor
    given_up: int = 0
    counts: bool = True
    written: tuple[Tensor, ...] = ()

    def run(self) -> Tensor:
        """Replay it, and note with each tensor that it was written, as autograd and computed weights ask."""
        self.replay()
        increment_version(self.written)
        return self.result.clone()


@contextmanager
def failures_explained() -> Iterator[None]:
    """Say of what CUDA refuses to record that it cannot be captured."""
    try:
        yield
    except (OptimizerError, torch.OutOfMemoryError):
        raise
    except RuntimeError as error:
        raise CaptureError(
            f"This step cannot be captured as a CUDA graph: {first_line(error)} Something in the model, "
            "the loss or `before_step` works with the host in a way that the dry run did not see. Train this "
            "model without CapturedStep. Nothing has been changed by this step."
        ) from error


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
        try:
            with torch.cuda.stream(own):
                result = run()
        finally:  # what a step that failed has begun
            current.wait_stream(own)
        return result.clone()

    def record(self, run: Callable[[], Tensor]) -> Recording:
        """Record the function without running it.

        Returns:
            The recording; its memory is taken from the pool that all recordings share.

        Raises:
            Exception: what the function raised, or the end of the recording.
        """
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph, own = torch.cuda.CUDAGraph(), self._own_stream()
        reason: BaseException | None = None
        try:
            # Other threads go on: that of a data loader pins memory, which would spoil a recording of all threads. And
            # where a recording fails, torch stays on its stream, so that the outer one of the two leaves it.
            with (
                torch.cuda.stream(own),
                torch.cuda.graph(graph, pool=self._pool, stream=own, capture_error_mode="thread_local"),
            ):
                try:
                    result = run()
                except BaseException as error:  # also of a user who stops the training
                    reason = error
                    raise
        except Exception:
            if reason is None:
                raise
            raise reason  # noqa: B904 - ending such a recording fails too, and says less
        return Recording(graph.replay, result)

    def forget(self) -> None:
        """Take another pool for the next recording: torch refuses one whose recordings are all gone."""
        self._pool = None

    def _own_stream(self) -> torch.cuda.Stream:
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        return self._stream
