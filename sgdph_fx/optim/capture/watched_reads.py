"""What the host reads and writes while a step is watched: a graph would keep the numbers that were there once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sgdph_fx.errors import CaptureError

__all__ = ["ChecksOfTheCPU", "ReadsRefused", "address", "where", "written_by"]

# Operations whose result's value or shape the host reads.
_READS = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "equal",
    "unique_",
    "_unique",
    "repeat_interleave.Tensor",
)

_WEIGHTS = "sgdph_fx.transform.decoupled"
"""Where decoupled layers take what is written into their weights."""


class ReadsRefused(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses to let the host read what follows from the batch or the weights; on a GPU, to let it read or draw."""

    def __init__(self, sources: Iterable[Tensor], device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # By storage, as views are other tensors; the storages are kept, so that their addresses stay theirs.
        self._kept: dict[int, Any] = {}
        self._made: dict[int, Any] = {}
        self._used: dict[int, Any] = {}
        self._read: dict[int, Any] = {}
        self._written: dict[int, Any] = {}
        self._device = device
        self.only_checks = False
        """Whether what is read now is read on a CPU alone."""
        _note(self._kept, sources)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        depends = any(t.is_cuda or self._is_marked(t) for t in given)
        if _is_read(func.name(), args) and not self.only_checks:
            if depends or any(address(t) in self._written for t in given):
                if _WEIGHTS in _modules_inside():
                    raise CaptureError(
                        f"This step cannot be captured as a CUDA graph: it writes into the weight of a decoupled layer "
                        f"{where()}, and to find direction and gain of what is written the host looks at its norms. "
                        'Keep that layer as it is by a rule, `Config(rules={"NAME": "keep"})`, or train this model '
                        "without CapturedStep. Nothing has been changed."
                    )
                raise CaptureError(
                    f"This step cannot be captured as a CUDA graph: the host reads a number that the device computes, "
                    f"by {func.name()} {where()}. Compute with tensors there (`torch.where` in place of `if`), or "
                    "train this model without CapturedStep. Nothing has been changed."
                )
            _note(self._read, given)
        _note(self._used, given)
        self._refuse_host_numbers(func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        made = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]
        self._refuse_host_draws(func, (*given, *made))
        _note(self._made, [t for t in made if address(t) not in self._used])
        _note(self._kept, made if depends else ())
        return result

    def _refuse_host_numbers(self, func: Any, args: Any, kwargs: Any) -> None:
        """Refuse to write what lies with the host and outlives the step: kernels and Python have taken its number."""
        written = [t for t in written_by(func, args, kwargs) if address(t) not in self._made]
        _note(self._written, written)
        on_host = [t for t in written if t.device.type == "cpu" and self._device.type != "cpu"]
        if on_host or any(address(t) in self._read for t in written):
            raise CaptureError(
                f"This step cannot be captured as a CUDA graph: it writes into a tensor that lies with the host, by "
                f"{func.name()} {where()}, and a graph would keep the number that was there once. Hold it in a "
                "buffer on the device and compute with that, or train this model without CapturedStep. Nothing has "
                "been changed."
            )

    def _refuse_host_draws(self, func: Any, tensors: Sequence[Tensor]) -> None:
        """Refuse random numbers that torch draws for the host, from whatever generator."""
        by_host = self._device.type != "cpu" and torch.Tag.nondeterministic_seeded in func.tags
        if by_host and all(t.device.type == "cpu" for t in tensors):
            raise CaptureError(
                f"This step cannot be captured as a CUDA graph: the forward pass draws random numbers on the CPU, by "
                f"{func.name()} {where()}, and a graph would repeat what follows from them at each step. Draw with "
                "torch on the model's device. Nothing has been changed."
            )

    def _is_marked(self, tensor: Tensor) -> bool:
        return tensor.layout is not torch.strided or address(tensor) in self._kept


class ChecksOfTheCPU(TorchFunctionMode):
    """Lets ``one_hot`` look at its labels, which it does on a CPU alone where it is told the number of classes.

    Args:
        watch: What refuses reads meanwhile.
        device: Where the step runs.
    """

    def __init__(self, watch: ReadsRefused, device: torch.device) -> None:
        super().__init__()
        self._watch, self._on_cpu = watch, device.type == "cpu"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        classes = [*args[1:], *kwargs.values()]
        self._watch.only_checks = self._on_cpu and func is one_hot and bool(classes) and -1 not in classes
        try:
            return func(*args, **kwargs)
        finally:
            self._watch.only_checks = False


def _note(places: dict[int, Any], tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        place = address(tensor)
        if place is not None:
            places[place] = tensor.untyped_storage()


def written_by(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors among the arguments that the operation writes into, as its schema says."""
    schema = func._schema
    if not schema.is_mutable:
        return []
    given = dict(zip((a.name for a in schema.arguments), args, strict=False)) | kwargs
    return [
        value
        for argument in schema.arguments
        if argument.alias_info is not None and argument.alias_info.is_write
        for value in pytree.tree_leaves(given.get(argument.name))
        if isinstance(value, Tensor)
    ]


def address(tensor: Tensor) -> int | None:
    """Where its memory begins; None where it has none of the usual kind."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return None
    try:
        place: int = tensor.untyped_storage().data_ptr()
    except RuntimeError:  # a zero that torch has not written, or a wrapper of torch.func
        return None
    return place


def _is_read(name: str, args: Any) -> bool:
    operation = name.removeprefix("aten::")
    if operation.startswith("index.Tensor") and len(args) > 1:
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return operation.startswith(_READS)


def _modules_inside() -> set[str]:
    """The modules of torch and ours that the innermost line that is neither has called."""
    return set(_inside(sys._getframe(1))[0])


def where() -> str:
    """The innermost line that is neither torch's nor ours."""
    frame = _inside(sys._getframe(1))[1]
    return "inside torch" if frame is None else f"at {frame.f_code.co_filename}:{frame.f_lineno}"


def _inside(frame: FrameType | None) -> tuple[list[str], FrameType | None]:
    passed: list[str] = []
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(("torch.", "sgdph_fx.", "contextlib")) and name != "torch":
            break
        passed.append(name)
        frame = frame.f_back
    return passed, frame
