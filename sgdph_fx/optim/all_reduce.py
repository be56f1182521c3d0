"""What the processes of one job found, as one: the due Hessian averaged as the gradients are."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from sgdph_fx.optim.hessian_estimate import HessianEstimate
from sgdph_fx.optim.nonfinite import Flag

__all__ = ["ProcessGroup", "all_reduce_hessian"]

ProcessGroup: TypeAlias = "dist.ProcessGroup | None"
"""A process group; None is that of all processes, if there are several."""


def all_reduce_hessian(found: HessianEstimate, device: torch.device, group: ProcessGroup) -> HessianEstimate:
    """The mean over all ranks, by one all-reduce; a loss that is not finite on one of them is so on all.

    Args:
        found: What this rank's losses brought. All ranks are at the same step, and so the same is due.
        device: Where to reduce what has no device yet.
        group: The ranks.

    Returns:
        The same on all ranks; where a rank's loss does not use the parameter, that rank counts as a zero, as
        in ``DistributedDataParallel``. Without other ranks what was found.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1:
        return found
    reduced = _packed(found, device)
    dist.all_reduce(reduced, group=group)
    used, bad = reduced[-2:].tolist()
    hessian = None
    if found.parameter is not None and used:
        mean = reduced[:-2].view(found.parameter.shape) / dist.get_world_size(group)
        hessian = mean.to(found.parameter.dtype)
    return replace(found, hessian=hessian, finite=(Flag(torch.tensor(not bad)),))


def _packed(found: HessianEstimate, device: torch.device) -> Tensor:
    """The Hessian's numbers, whether it is there, and whether a loss is not finite."""
    parameter, hessian = found.parameter, found.hessian
    count = 0 if parameter is None else parameter.numel()
    dtype = torch.float32 if parameter is None else torch.promote_types(parameter.dtype, torch.float32)
    packed = torch.zeros(count + 2, dtype=dtype, device=device if hessian is None else hessian.device)
    if hessian is not None:
        packed[:count] = hessian.flatten()
        packed[-2] = 1
    if not found.is_finite:
        packed[-1] = 1
    return packed
