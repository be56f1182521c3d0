"""A dry run of the forward pass, to tell whether it can be captured: nothing may depend on what the host reads.

A CUDA graph repeats the kernels that it recorded. Whatever Python decided at the time, from a number on the device, a
random number of its own or a counter, stays as it was decided. So these are looked for beforehand.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sgdph_fx.errors import CaptureError
from sgdph_fx.optim.capture.host_state import host_put_back, plain_values, tensors_held
from sgdph_fx.optim.capture.host_values import variables
from sgdph_fx.optim.capture.repeated_run import Operations, refuse_differences
from sgdph_fx.optim.capture.seen_as_captured import seen_as_captured
from sgdph_fx.optim.capture.seen_values import PLAIN
from sgdph_fx.optim.capture.step_code import StepCode
from sgdph_fx.optim.capture.watched_reads import ChecksOfTheCPU, ReadsRefused, address
from sgdph_fx.optim.capture.writes_put_back import WritesPutBack
from sgdph_fx.optim.hessian.isolated_forward import isolated_loss

__all__ = ["dry_run"]


class Observed(NamedTuple):
    """What a dry run found.

    Args:
        loss: The loss, with its graph.
        left_behind: Module and attribute, by ``id`` and name, that the forward pass writes and does not read: a
            recording has its own, whatever is there.
        memory: What the forward pass read that belongs to no module, as a mask that a function keeps in its cache: a
            recording goes on to read it when the cache has let it go.
    """

    loss: Tensor
    left_behind: frozenset[tuple[int, str]]
    memory: tuple[Any, ...]


def dry_run(
    loss_of: Callable[[], Tensor],
    model: nn.Module,
    loss_fn: object,
    leaves: Sequence[Any],
    device: torch.device,
) -> Observed:
    """Compute a loss three times, the last two under observation.

    Args:
        loss_of: Runs the model and the loss function; buffers, random numbers, attributes of modules, variables of the
            loss function, and tensors that are written into are put back.
        model: The model.
        loss_fn: The loss function.
        leaves: The parts of the batch that they run on.
        device: Where.

    Raises:
        CaptureError: naming what depends on the host, and where.
    """
    code = StepCode((model, loss_fn))
    modules = code.modules
    names = {id(module): name for name, module in model.named_modules()}
    named = [(names.get(id(module), type(module).__name__), module) for module in modules]
    with host_put_back(code), WritesPutBack():
        isolated_loss(loss_of, device)  # whatever is made at a first call is made by now
        sources = [*_tensors_of(modules), *leaves]
        watch = ReadsRefused((t for t in sources if isinstance(t, Tensor)), device)
        with _python_draws_refused(), seen_as_captured(), watch, ChecksOfTheCPU(watch, device):
            with Operations(_held(modules)) as first:
                isolated_loss(loss_of, device)
            before, held = _plain(named, StepCode((model, loss_fn))), tensors_held(named)
            rebound = [(module, dict(module.__dict__)) for module in modules]
            with Operations(_held(modules), first) as second:
                loss = isolated_loss(loss_of, device)
        _refuse_changed(before, _plain(named, StepCode((model, loss_fn))))
        _refuse_carried(held, tensors_held(named), second.carried)
        refuse_differences(first, second)
        left_behind = frozenset(
            (id(module), key)
            for module, values in rebound
            for key, value in values.items()
            if module.__dict__.get(key) is not value
        )
    own = {address(t) for t in sources if isinstance(t, Tensor)}
    memory = tuple(storage for lies, storage in second.outside.items() if lies not in own)
    return Observed(loss, left_behind, memory)


def _tensors_of(modules: Iterable[nn.Module]) -> Iterator[Tensor | None]:
    for module in modules:
        yield from module._parameters.values()
        yield from module._buffers.values()


def _held(modules: Iterable[nn.Module]) -> list[Tensor]:
    return [tensor for tensor in _tensors_of(modules) if tensor is not None]


def _plain(named: Sequence[tuple[str, nn.Module]], code: StepCode) -> dict[str, Any]:
    variables_now = {name: value for name, value in variables(code, on_gpu=False) if type(value) in PLAIN}
    return {f"attribute {n!r}": v for n, v in plain_values(named).items()} | {
        f"variable {n!r}": v for n, v in variables_now.items()
    }


@contextmanager
def _python_draws_refused() -> Iterator[None]:
    """Refuse random numbers that Python draws: a graph would repeat what followed from them."""
    before = _generators()
    yield
    after = _generators()
    drawn = [name for name in before if before[name] != after[name]]
    if drawn:
        raise CaptureError(
            f"This step cannot be captured as a CUDA graph: the forward pass draws from {drawn[0]}, and a graph would "
            "repeat what follows from it at each step. Draw with torch on the model's device. Nothing has been changed."
        )


def _generators() -> dict[str, Any]:
    states: dict[str, Any] = {"Python's `random`": random.getstate()}
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        kind, keys, *rest = numpy.random.get_state()
        states["NumPy's global generator"] = (kind, keys.tolist(), *rest)
    return states


def _refuse_changed(before: dict[str, Any], after: dict[str, Any]) -> None:
    known = after.keys() & before.keys()
    changed = [n for n in after if n in known and before[n] is not after[n] and before[n] != after[n]]
    if changed:
        raise CaptureError(
            f"This step cannot be captured as a CUDA graph: the forward pass changes the {changed[0]} from "
            f"{before[changed[0]]!r} to {after[changed[0]]!r}, and a graph would keep what follows from it. Hold it in "
            "a buffer on the device, or train this model without CapturedStep. Nothing has been changed."
        )


def _refuse_carried(before: dict[str, Tensor], after: dict[str, Tensor], carried: Set[int | None]) -> None:
    for name, tensor in before.items():
        if name in after and after[name] is not tensor and address(tensor) in carried:
            raise CaptureError(
                f"This step cannot be captured as a CUDA graph: the forward pass puts another tensor into the "
                f"attribute {name!r}, which it reads at the next step, and a graph would read the first one again. "
                "Write into a buffer in place, by `copy_`, or train this model without CapturedStep. Nothing has "
                "been changed."
            )
