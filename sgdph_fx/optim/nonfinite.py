"""What must not be written because it is not finite: found without keeping a device waiting, counted, told once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sgdph_fx.optim.wording import warn

__all__ = ["COUNTERS", "Flag", "Skipped", "are_finite", "finite_on_device", "is_finite"]

COUNTERS = ("steps_skipped", "refreshes_skipped", "curvature_missed", "products_given_up")
"""Keys of each group, alike in all groups."""

_TOLD = {
    "steps_skipped": (
        "{} is not finite, so this step has been skipped: no parameter and no average has "
        "changed. More of them are counted in `optimizer.steps_skipped`, and not told again. Lower the "
        "learning rate, or look for the batch that does it."
    ),
    "refreshes_skipped": (
        "The Hessian that was due is not finite, so its average has not been changed; the step itself has been "
        "taken, by the gradients. More of them are counted in `optimizer.refreshes_skipped`, and not told "
        "again. In half precision tangents overflow before gradients do: lower the scale of the loss."
    ),
}

Groups: TypeAlias = Sequence[dict[str, Any]]


def are_finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all numbers are finite; for tensors on the CPU, whose numbers the host can read at once.

    A sum is finite only if its terms are, and is several times faster than a look at each; where it is not, it may
    have overflowed, so each number is looked at.
    """
    return all(
        math.isfinite(abs(t.sum().item())) or bool(torch.isfinite(t).all()) for t in tensors if t.numel()
    )


def finite_on_device(tensors: Sequence[Tensor]) -> Tensor:
    """Whether all numbers are finite, as one bool on the tensors' device; the host does not wait."""
    return torch.nn.utils.get_total_norm(tensors, math.inf) < math.inf


def is_finite(tensor: Tensor) -> Tensor:
    """Whether all numbers are finite, as one bool on the tensor's device, by two kernels."""
    if not tensor.numel():
        return torch.ones((), dtype=torch.bool, device=tensor.device)
    finite: Tensor = torch.linalg.vector_norm(tensor, math.inf) < math.inf
    return finite


class Flag:
    """A truth found on a device, which the host reads when it needs it.

    Args:
        value: One bool on any device.
        to_host: Whether the host is going to read it. The copy starts at once then, so reading it waits for what
            came before it on the device's stream, and for nothing that was queued after it.
    """

    def __init__(self, value: Tensor, *, to_host: bool = True) -> None:
        self._event: torch.cuda.Event | None = None
        self._held = value
        if value.is_cuda and to_host:  # what is on the host is all that is kept: no memory of the device
            self._held = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._held.copy_(value, non_blocking=True)
            self._event = torch.cuda.current_stream(value.device).record_event()

    @property
    def on_device(self) -> Tensor | None:
        """The bool where it was found; None once it is on its way to the host."""
        return self._held if self._event is None else None

    @property
    def is_known(self) -> bool:
        """Whether reading it would not wait."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def __bool__(self) -> bool:
        if self._event is not None:
            self._event.synchronize()
        return bool(self._held)


class Skipped:
    """Counts, in the groups, what was skipped, and warns of the first of each kind."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._watched: list[tuple[str, Flag]] = []

    def step(self, groups: Groups, culprit: str) -> None:
        """A step has been skipped because ``culprit`` is not finite."""
        self.count("steps_skipped", groups, _TOLD["steps_skipped"].format(culprit))

    def watch(self, key: str, good: Tensor | None) -> None:
        """Count under ``key`` if ``good``, one bool on a device, turns out to be false."""
        if good is not None:
            self._watched.append((key, Flag(good)))

    def settle(self, groups: Groups, *, wait: bool) -> None:
        """Count what is known by now; ``wait`` for the rest too."""
        while self._watched and (wait or self._watched[0][1].is_known):
            key, good = self._watched.pop(0)
            if not good:
                self.count(key, groups)

    def count(self, key: str, groups: Groups, told: str = "") -> None:
        """Add one to the counter ``key``, and warn of the first."""
        for group in groups:
            group[key] += 1
        self.tell(key, told)

    def tell(self, key: str, told: str = "") -> None:
        """Warn of the first of a kind; what was counted elsewhere has been counted."""
        if key not in self._told:
            self._told.add(key)
            warn(told or _TOLD[key].format("A gradient"))
