"""A dry run of the forward pass, to tell whether it can be captured: nothing may depend on what the host reads.

A CUDA graph repeats the kernels that it recorded. Whatever Python decided at the time, from a number on the device, a
random number of its own or a counter, stays as it was decided. So these are looked for beforehand.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sgdph_fx.errors import CaptureError
from sgdph_fx.optim.capture.host_state import host_put_back, plain_values, tensors_held
from sgdph_fx.optim.capture.host_values import PLAIN, modules_of, variables
from sgdph_fx.optim.hessian.isolated_forward import isolated_loss

__all__ = ["Observed", "ReadsRefused", "dry_run"]

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


class Observed(NamedTuple):
    """What a dry run found.

    Args:
        loss: The loss, with its graph.
        left_behind: Module and attribute, by ``id`` and name, that the forward pass writes and does not read: a
            recording has its own, whatever is there.
    """

    loss: Tensor
    left_behind: frozenset[tuple[int, str]]


def dry_run(
    loss_of: Callable[[], Tensor],
    model: nn.Module,
    loss_fn: object,
    leaves: Sequence[Any],
    device: torch.device,
) -> Observed:
    """Compute a loss twice, the second time under observation.

    Args:
        loss_of: Runs the model and the loss function; buffers, random numbers, attributes of modules and variables of
            the loss function are put back.
        model: The model.
        loss_fn: The loss function.
        leaves: The parts of the batch that they run on.
        device: Where.

    Raises:
        CaptureError: naming what depends on the host, and where.
    """
    modules = modules_of((model, loss_fn))
    names = {id(module): name for name, module in model.named_modules()}
    named = [(names.get(id(module), type(module).__name__), module) for module in modules]
    with host_put_back(modules, loss_fn):
        isolated_loss(loss_of, device)  # whatever is made at a first call is made by now
        before, held = _plain(named, loss_fn), tensors_held(named)
        rebound = [(module, dict(module.__dict__)) for module in modules]
        sources = [*_tensors_of(modules), *leaves]
        watch = ReadsRefused((t for t in sources if isinstance(t, Tensor)), device)
        with _python_draws_refused(device), watch:
            loss = isolated_loss(loss_of, device)
        _refuse_changed(before, _plain(named, loss_fn))
        _refuse_carried(held, tensors_held(named), watch)
        left_behind = frozenset(
            (id(module), key)
            for module, values in rebound
            for key, value in values.items()
            if module.__dict__.get(key) is not value
        )
    return Observed(loss, left_behind)


def _tensors_of(modules: Iterable[nn.Module]) -> Iterator[Tensor | None]:
    for module in modules:
        yield from module._parameters.values()
        yield from module._buffers.values()


def _plain(named: Sequence[tuple[str, nn.Module]], function: object) -> dict[str, Any]:
    variables_now = {name: value for name, value in variables(function) if type(value) in PLAIN}
    return {f"attribute {n!r}": v for n, v in plain_values(named).items()} | {
        f"variable {n!r}": v for n, v in variables_now.items()
    }


class ReadsRefused(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses to let the host read what follows from the batch or the weights; on a GPU, to let it read at all."""

    def __init__(self, sources: Iterable[Tensor], device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # By storage, as views are other tensors; the storages are kept, so that their addresses stay theirs.
        self._kept: dict[int, Any] = {}
        self._made: dict[int, Any] = {}
        self._used: dict[int, Any] = {}
        self._read: dict[int, Any] = {}
        self._written: dict[int, Any] = {}
        self._device = device
        for tensor in sources:
            self._mark(tensor)

    def has_used(self, tensor: Tensor) -> bool:
        """Whether an operation took a tensor of this memory."""
        return _address(tensor) in self._used

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        depends = any(t.is_cuda or self._is_marked(t) for t in given)
        if _is_read(func.name(), args):
            if depends or any(_address(t) in self._written for t in given):
                raise CaptureError(
                    f"This step cannot be captured as a CUDA graph: the host reads a number that the device computes, "
                    f"by {func.name()} {_where()}. Compute with tensors there (`torch.where` in place of `if`), or "
                    "train this model without CapturedStep. Nothing has been changed."
                )
            _note(self._read, given)
        _note(self._used, given)
        self._refuse_host_numbers(func, args, kwargs or {})
        result = func(*args, **(kwargs or {}))
        made = [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]
        _note(self._made, [t for t in made if _address(t) not in self._used])
        for tensor in made if depends else ():
            self._mark(tensor)
        return result

    def _refuse_host_numbers(self, func: Any, args: Any, kwargs: Any) -> None:
        """Refuse to write what lies with the host and outlives the step: kernels and Python have taken its number."""
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        written = [
            value
            for argument in (func._schema.arguments if func._schema.is_mutable else ())
            if argument.alias_info is not None and argument.alias_info.is_write
            for value in pytree.tree_leaves(given.get(argument.name))
            if isinstance(value, Tensor) and _address(value) not in self._made
        ]
        _note(self._written, written)
        on_host = [t for t in written if t.device.type == "cpu" and self._device.type != "cpu"]
        if on_host or any(_address(t) in self._read for t in written):
            raise CaptureError(
                f"This step cannot be captured as a CUDA graph: it writes into a tensor that lies with the host, by "
                f"{func.name()} {_where()}, and a graph would keep the number that was there once. Hold it in a "
                "buffer on the device and compute with that, or train this model without CapturedStep. Nothing has "
                "been changed."
            )

    def _mark(self, tensor: Tensor) -> None:
        _note(self._kept, [tensor])

    def _is_marked(self, tensor: Tensor) -> bool:
        return tensor.layout is not torch.strided or tensor.untyped_storage().data_ptr() in self._kept


def _note(places: dict[int, Any], tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        if tensor.layout is torch.strided and tensor.numel():
            storage = tensor.untyped_storage()
            places[storage.data_ptr()] = storage


def _address(tensor: Tensor) -> int | None:
    """Where its memory begins; None where it has none of the usual kind."""
    if tensor.layout is not torch.strided or not tensor.numel():
        return None
    address: int = tensor.untyped_storage().data_ptr()
    return address


def _is_read(name: str, args: Any) -> bool:
    operation = name.removeprefix("aten::")
    if operation.startswith("index.Tensor") and len(args) > 1:
        return any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return operation.startswith(_READS)


def _where() -> str:
    """The innermost line that is neither torch's nor ours."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(("torch.", "sgdph_fx.optim", "contextlib")) and name != "torch":
            return f"at {frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back
    return "inside torch"


@contextmanager
def _python_draws_refused(device: torch.device) -> Iterator[None]:
    """Refuse random numbers that the host draws: a graph would repeat what followed from them."""
    before = _generators(device)
    yield
    after = _generators(device)
    drawn = [name for name in before if before[name] != after[name]]
    if drawn:
        raise CaptureError(
            f"This step cannot be captured as a CUDA graph: the forward pass draws from {drawn[0]}, and a graph would "
            "repeat what follows from it at each step. Draw with torch on the model's device. Nothing has been changed."
        )


def _generators(device: torch.device) -> dict[str, Any]:
    states: dict[str, Any] = {"Python's `random`": random.getstate()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kind, keys, *rest = numpy.random.get_state()
        states["NumPy's global generator"] = (kind, keys.tolist(), *rest)
    if device.type != "cpu":
        states["torch's generator on the CPU"] = torch.get_rng_state().tolist()
    return states


def _refuse_changed(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = [name for name in after if before.get(name, after[name]) != after[name]]
    if changed:
        raise CaptureError(
            f"This step cannot be captured as a CUDA graph: the forward pass changes the {changed[0]} from "
            f"{before[changed[0]]!r} to {after[changed[0]]!r}, and a graph would keep what follows from it. Hold it in "
            "a buffer on the device, or train this model without CapturedStep. Nothing has been changed."
        )


def _refuse_carried(before: dict[str, Tensor], after: dict[str, Tensor], watch: ReadsRefused) -> None:
    for name, tensor in before.items():
        if name in after and after[name] is not tensor and watch.has_used(tensor):
            raise CaptureError(
                f"This step cannot be captured as a CUDA graph: the forward pass puts another tensor into the "
                f"attribute {name!r}, which it reads at the next step, and a graph would read the first one again. "
                "Write into a buffer in place, by `copy_`, or train this model without CapturedStep. Nothing has "
                "been changed."
            )
