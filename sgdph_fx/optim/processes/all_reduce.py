"""What the processes of one job found, as one: the due Hessian averaged as the gradients are."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim.hessian.estimate import HessianEstimate

__all__ = ["Agreed", "ProcessGroup", "agree", "is_alone", "rank"]

ProcessGroup: TypeAlias = "dist.ProcessGroup | None"
"""A process group; None is that of all processes, if there are several."""

_FACTS = 3


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


def rank(group: ProcessGroup) -> int:
    """The number of this process in its group; 0 where it is alone."""
    return 0 if is_alone(group) else dist.get_rank(group)


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
    found, sizes = here.found, [p.numel() for p in here.found.shapes]
    packed = _packed(here, device)
    dist.all_reduce(packed, group=group)
    flags = packed[sum(sizes) :].tolist()
    used, (bad, missing, present) = flags[:-_FACTS], flags[-_FACTS:]
    hessians: tuple[Tensor | None, ...] = ()
    if not missing:
        parts = torch.split(packed[: sum(sizes)] / dist.get_world_size(group), sizes)
        rows = zip(found.shapes, parts, used, strict=True)
        hessians = tuple(part.view(p.shape).to(p.device, p.dtype) if u else None for p, part, u in rows)
    explained = found.missing or NoCurvatureError(
        "Another process met an operation without a second derivative."
    )
    everywhere = replace(found, hessians=hessians, missing=explained if missing else None)
    return Agreed(everywhere, bool(present), "The loss or a gradient" if bad else "")


def _packed(here: Agreed, device: torch.device) -> Tensor:
    """The Hessians' numbers, zeros where there are none; for each, whether there is one; and the facts."""
    found = here.found
    rows = list(zip(found.shapes, found.entries, strict=True))
    dtype = torch.float32
    for parameter, _ in rows:
        dtype = torch.promote_types(dtype, parameter.dtype)
    device = next((h.device for _, h in rows if h is not None), device)
    numbers = [torch.zeros(p.shape, dtype=dtype, device=device) if h is None else h for p, h in rows]
    facts = [h is not None for _, h in rows] + [bool(here.culprit), bool(found.missing), here.has_gradients]
    flat = [n.flatten().to(device, dtype) for n in numbers]
    return torch.cat([*flat, torch.tensor(facts, dtype=dtype, device=device)])
