"""A stand-in for CUDA graphs on the CPU: operations are recorded with their tensors, and replayed without Python.

As in a CUDA graph, each operation of a replay reads and writes the memory that it was recorded with, numbers of the
host's stay what they were, no tensor is told that it was written, and a read by the host is an error while recording.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sgdph_fx.curvature import capturing
from sgdph_fx.optim.capture.cuda_graphs import Recording

__all__ = ["FakeRecorder"]

READS = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "unique")


class FakeRecorder:
    """In the place of :class:`sgdph_fx.optim.capture.cuda_graphs.Recorder`."""

    def __init__(self, device: torch.device) -> None:
        self.warmed = 0
        self.recorded = 0
        self.replayed = 0

    def warm_up(self, run: Callable[[], Tensor]) -> Tensor:
        self.warmed += 1
        return run().clone()

    def record(self, run: Callable[[], Tensor]) -> Recording:
        self.recorded += 1
        tape = _Tape()
        with mock.patch.object(capturing, "is_capturing", return_value=True), _Untouched(tape), tape:
            result = run()
        return Recording(self._counted(tape.replay), result)

    def forget(self) -> None:
        """There is no pool of memory here."""

    def _counted(self, replay: Callable[[], None]) -> Callable[[], None]:
        def counted() -> None:
            self.replayed += 1
            replay()

        return counted


class _Tape(TorchDispatchMode):
    """Every operation below autograd, with the tensors that it got and gave."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, list[Tensor | None]]] = []
        self.written: dict[int, tuple[Tensor, Tensor]] = {}
        self._made: set[int] = set()
        self._kept: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if any(read in func.name() for read in READS):
            raise RuntimeError(f"operation not permitted when stream is capturing: {func.name()}")
        tensors = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        self._keep_what_may_be_written(tensors)
        result = func(*args, **kwargs)
        given = {_storage(t) for t in tensors}
        outputs: list[Tensor | None] = []
        for out in pytree.tree_leaves(result):
            is_new = isinstance(out, Tensor) and _storage(out) not in given
            # A name of its own for the same memory: what autograd makes of `out` is not to be written through.
            outputs.append(torch.ops.aten.alias(out) if is_new else None)
            if is_new:
                self._made.add(_storage(out))
                self._kept.append(out.untyped_storage())
        self.operations.append((func, args, kwargs, outputs))
        return result

    def _keep_what_may_be_written(self, given: list[Tensor]) -> None:
        """What was there before the recording is put back after it: recording runs nothing on a GPU.

        All that comes from outside, as batch norm writes its statistics without saying so in its schema.
        """
        for tensor in given:
            if _storage(tensor) not in self._made and _storage(tensor) not in self.written:
                self.written[_storage(tensor)] = (tensor.detach(), tensor.detach().clone())

    def replay(self) -> None:
        outside = tuple(tensor for tensor, _ in self.written.values())
        with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(outside):
            for func, args, kwargs, outputs in self.operations:
                found = pytree.tree_leaves(func(*args, **kwargs))
                for out, place in zip(found, outputs, strict=True):
                    if place is not None:
                        place.copy_(out)


class _Untouched:
    """Puts back what was written while recording."""

    def __init__(self, tape: _Tape) -> None:
        self._tape = tape
        self._generator = torch.empty(0)

    def __enter__(self) -> None:
        self._generator = torch.get_rng_state()

    def __exit__(self, *error: object) -> None:
        with torch.no_grad():
            for tensor, before in reversed(list(self._tape.written.values())):
                tensor.copy_(before)
        torch.set_rng_state(self._generator)


def _storage(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
