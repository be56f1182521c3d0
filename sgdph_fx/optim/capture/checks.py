"""What cannot be captured: several processes or devices, iterators, what surrounds a step; what cannot be copied."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from types import FunctionType

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import optimizer as torchs

from sgdph_fx.errors import CaptureError
from sgdph_fx.optim.capture.code_words import Words
from sgdph_fx.optim.capture.step_code import StepCode
from sgdph_fx.optim.processes.all_reduce import is_alone
from sgdph_fx.optim.sgdph import SGDPH

__all__ = [
    "refuse_compiled",
    "refuse_iterators",
    "refuse_several_devices",
    "refuse_several_processes",
    "refuse_shared_functions",
    "refuse_surroundings",
]


def refuse_compiled(model: nn.Module) -> None:
    """Refuse what ``torch.compile`` has compiled, whole or in part.

    Raises:
        CaptureError: naming the part.
    """
    for name, module in model.named_modules():
        if module._compiled_call_impl is not None or type(module).__name__ == "OptimizedModule":
            raise CaptureError(
                f"CapturedStep got a model that `torch.compile` has compiled, in {name or 'whole'!r}: compiled code "
                "has no second derivative, and graphs of its own. Pass the model as it was before."
            )


def refuse_iterators(code: StepCode) -> None:
    """Refuse a step that takes things from an iterator, which would be used up by trying, and frozen by a graph.

    Raises:
        CaptureError: naming it.
    """
    names = code.names
    if "next" not in names.variables and "__next__" not in names.attributes:
        return
    found = [(f.name, f.held) for part in code.parts if _takes(part.words) for f in part.found]
    own = [(key, value) for m in code.modules for key, value in m.__dict__.items() if key in names.attributes]
    for name, value in (*found, *own):
        if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            raise CaptureError(
                f"This step cannot be captured as a CUDA graph: it takes what comes next of {name!r}, a "
                f"{type(value).__name__}, and a graph would repeat what that was once. Take it outside of the step, "
                "and pass it in the batch. Nothing has been changed."
            )


def _takes(words: Words) -> bool:
    return "next" in words.variables or "__next__" in words.attributes


def refuse_shared_functions(model: nn.Module, optimizer: SGDPH, functions: Iterable[object]) -> None:
    """Refuse to copy functions that hold the model themselves: a copy of a function is the function.

    Raises:
        CaptureError: naming the function.
    """
    own = {*map(id, model.modules()), *(id(p) for group in optimizer.param_groups for p in group["params"])}
    for function in functions:
        inner = getattr(function, "func", function)
        if not isinstance(inner, FunctionType):
            continue
        code = StepCode((), (inner,))
        if not own.isdisjoint(map(id, (*code.modules, *code.leaves))):
            raise CaptureError(
                f"A copy of this CapturedStep would have a model of its own, and {inner.__qualname__!r} would go on "
                "with the old one, which it reads from outside. Give it the model by `functools.partial` or as a "
                "method of an object that holds the model, which are copied along, or make a new CapturedStep of a "
                "copied model."
            )


def refuse_several_processes(model: nn.Module, optimizer: SGDPH) -> None:
    """Refuse what steps together with others.

    Raises:
        CaptureError: if the model is none, wrapped or sharded, or there are several processes.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(
            f"CapturedStep takes the model, a module, but got a {type(model).__name__}. Of what `prepare` returned "
            "pass `.model`, and in place of what `compile_between_refreshes` returned the model that it was made of."
        )
    if not isinstance(optimizer, SGDPH):
        raise CaptureError(
            f"CapturedStep takes an SGDPH, but got a {type(optimizer).__name__}. Where a trainer has wrapped it, pass "
            "the optimizer itself, before the trainer takes it."
        )
    wrapped = isinstance(model, (DataParallel, DistributedDataParallel)) or optimizer._layout().is_sharded
    if wrapped or not is_alone(optimizer._process_group):
        raise CaptureError(
            f"CapturedStep works in one process and on one GPU; this {type(model).__name__} is wrapped, sharded, or "
            "trained by several processes, which agree on each step by what their hosts read. Write the loop out with "
            "`optimizer.backward` and `optimizer.step`."
        )


def refuse_several_devices(model: nn.Module, optimizer: SGDPH) -> None:
    """Refuse parameters on more than one device.

    Raises:
        CaptureError: naming the devices.
    """
    held = (p for group in optimizer.param_groups for p in group["params"])
    devices = sorted({str(p.device) for p in (*model.parameters(), *held)})
    if len(devices) > 1:
        raise CaptureError(
            f"CapturedStep works on one device; the parameters of model and optimizer are on {' and '.join(devices)}. "
            "Move them together, or write the loop out with `optimizer.backward` and `optimizer.step`."
        )


def refuse_surroundings(model: nn.Module, optimizer: SGDPH, device: torch.device, *, autocast: bool) -> None:
    """Refuse what would be left out of the step: processes that came later, hooks before it, autocast from outside.

    Raises:
        CaptureError: saying where it belongs.
    """
    refuse_several_processes(model, optimizer)
    if optimizer._optimizer_step_pre_hooks or torchs._global_optimizer_pre_hooks:
        raise CaptureError(
            "A hook of `register_step_pre_hook` runs between backward pass and step, which are one here. Pass what it "
            "does as `before_step`, and remove the hook; those of `register_step_post_hook` are called."
        )
    if not autocast and torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
        raise CaptureError(
            f"CapturedStep was called under `torch.autocast` in {dtype}, and model and loss run in the precision that "
            f"it was made with. Pass `autocast={dtype}` to CapturedStep, and call it outside."
        )
