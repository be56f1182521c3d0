"""What the processes of one job found, as one: the due Hessian averaged as the gradients are."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.hessian_estimate import HessianEstimate

__all__ = ["Agreed", "ProcessGroup", "agree", "is_alone"]

ProcessGroup: TypeAlias = "dist.ProcessGroup | None"
"""A process group; None is that of all processes, if there are several."""

_FACTS = 4


class Agreed(NamedTuple):
    """What one process knows of a step, or all of them once they have met.

    Args:
        found: The Hessian.
        has_gradients: Whether there is a gradient to step by.
        culprit: What is not finite, as the subject of a sentence; empty if all is.
    """

    found: HessianEstimate
    has_gradients: bool
    culprit: str = ""


def is_alone(group: ProcessGroup) -> bool:
    """Whether no other process takes part."""
    return not (dist.is_available() and dist.is_initialized()) or dist.get_world_size(group) == 1


def agree(here: Agreed, device: torch.device, group: ProcessGroup) -> Agreed:
    """The mean over all ranks, by one all-reduce; what is not finite on one of them counts so on all.

    Args:
        here: What this rank found. All ranks are at the same step, so the same parameter is due.
        device: Where to reduce what has no device yet.
        group: The ranks.

    Returns:
        The same on all ranks. A rank whose loss does not use the parameter counts as a zero, as in
        ``DistributedDataParallel``. Where one rank has no second derivative, no rank uses a Hessian.
    """
    found = here.found
    packed = _packed(found, device)
    facts = (found.hessian is not None, here.culprit, found.missing, here.has_gradients)
    for place, fact in enumerate(facts):
        packed[place - _FACTS] = float(bool(fact))
    dist.all_reduce(packed, group=group)
    used, bad, missing, present = packed[-_FACTS:].tolist()
    hessian = None
    if found.parameter is not None and used and not missing:
        mean = packed[:-_FACTS].view(found.parameter.shape) / dist.get_world_size(group)
        hessian = mean.to(found.parameter.dtype)
    explained = found.missing or NoCurvatureError(
        "Another process met an operation without a second derivative."
    )
    everywhere = replace(found, hessian=hessian, missing=explained if missing else None)
    return Agreed(everywhere, bool(present), "The loss or a gradient" if bad else "")


def _packed(found: HessianEstimate, device: torch.device) -> Tensor:
    """The Hessian's numbers, zeros where there are none, and room for the facts."""
    parameter, hessian = found.parameter, found.hessian
    count = 0 if parameter is None else parameter.numel()
    dtype = torch.float32 if parameter is None else torch.promote_types(parameter.dtype, torch.float32)
    packed = torch.zeros(count + _FACTS, dtype=dtype, device=device if hessian is None else hessian.device)
    if hessian is not None:
        packed[:count] = hessian.flatten()
    return packed
