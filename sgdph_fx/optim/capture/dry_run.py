"""A dry run of the forward pass, to tell whether it can be captured: nothing may depend on what the host reads.

A CUDA graph repeats the kernels that it recorded. Whatever Python decided at the time, from a number on the device, a
random number of its own or a counter, stays as it was decided. So these are looked for beforehand.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sgdph_fx.errors import CaptureError
from sgdph_fx.optim.hessian.isolated_forward import isolated_loss

__all__ = ["dry_run"]

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


def dry_run(loss_fn: Callable[[], Tensor], model: nn.Module, batch: Any, device: torch.device) -> Tensor:
    """Compute a loss twice, the second time under observation.

    Args:
        loss_fn: Runs the model and the loss; buffers, random numbers and plain attributes are put back.
        model: The model.
        batch: What it runs on.
        device: Where.

    Returns:
        The loss, with its graph.

    Raises:
        CaptureError: naming what depends on the host, and where.
    """
    with _host_put_back(model):
        isolated_loss(loss_fn, device)  # whatever is made at a first call is made by now
        before = _plain_values(model)
        sources = [*model.parameters(), *model.buffers(), *pytree.tree_leaves(batch)]
        with _python_draws_refused(device), _ReadsRefused(t for t in sources if isinstance(t, Tensor)):
            loss = isolated_loss(loss_fn, device)
        _refuse_changed(before, _plain_values(model))
    return loss


class _ReadsRefused(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses to let the host read what follows from the batch or the weights; on a GPU, to let it read at all."""

    def __init__(self, sources: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # By storage, as views are other tensors; the storages are kept, so that their addresses stay theirs.
        self._kept: dict[int, Any] = {}
        for tensor in sources:
            self._mark(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        depends = any(t.is_cuda or self._is_marked(t) for t in given)
        if depends and _is_read(func.name(), args):
            raise CaptureError(
                f"This step cannot be captured as a CUDA graph: the host reads a number that the device computes, by "
                f"{func.name()} {_where()}. Compute with tensors there (`torch.where` in place of `if`), or train this "
                "model without CapturedStep. Nothing has been changed."
            )
        result = func(*args, **(kwargs or {}))
        if depends:
            for tensor in pytree.tree_leaves(result):
                if isinstance(tensor, Tensor):
                    self._mark(tensor)
        return result

    def _mark(self, tensor: Tensor) -> None:
        if tensor.layout is torch.strided and tensor.numel():
            storage = tensor.untyped_storage()
            self._kept[storage.data_ptr()] = storage

    def _is_marked(self, tensor: Tensor) -> bool:
        return tensor.layout is not torch.strided or tensor.untyped_storage().data_ptr() in self._kept


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


def _plain_values(model: nn.Module) -> dict[str, Any]:
    """Numbers and texts that modules hold as attributes."""
    return {
        f"{name}.{key}" if name else key: value
        for name, module in model.named_modules()
        for key, value in module.__dict__.items()
        if isinstance(value, (bool, int, float, str))
    }


@contextmanager
def _host_put_back(model: nn.Module) -> Iterator[None]:
    """Put back what Python may have changed: attributes of modules, and its random numbers."""
    kept = [
        (module, {k: v for k, v in module.__dict__.items() if isinstance(v, (bool, int, float, str))})
        for module in model.modules()
    ]
    drawn, numpy = random.getstate(), sys.modules.get("numpy")
    drawn_by_numpy = None if numpy is None else numpy.random.get_state()
    try:
        yield
    finally:
        for module, values in kept:
            module.__dict__.update(values)
        random.setstate(drawn)
        if numpy is not None:
            numpy.random.set_state(drawn_by_numpy)


def _refuse_changed(before: dict[str, Any], after: dict[str, Any]) -> None:
    changed = [name for name in after if before.get(name, after[name]) != after[name]]
    if changed:
        raise CaptureError(
            f"This step cannot be captured as a CUDA graph: the forward pass changes the attribute {changed[0]!r} "
            f"from {before[changed[0]]!r} to {after[changed[0]]!r}, and a graph would keep what follows from it. Hold "
            "it in a buffer on the device, or train this model without CapturedStep. Nothing has been changed."
        )
