"""What cannot be captured whatever the model: several processes, several devices, and what surrounds the step."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim import optimizer as torchs

from sgdph_fx.errors import CaptureError
from sgdph_fx.optim.processes.all_reduce import is_alone
from sgdph_fx.optim.sgdph import SGDPH

__all__ = ["refuse_compiled", "refuse_several_devices", "refuse_several_processes", "refuse_surroundings"]


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
