"""What must not be written because it is not finite: found without keeping a device waiting, counted, told once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from sgdph_fx.optim.wording import warn

__all__ = ["COUNTERS", "Skipped", "are_finite", "is_finite", "nonfinite_on_device"]

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

_SMALL = 1 << 16
_LOOK_EVERY = 16
_ON_DEVICE = ("steps_skipped", "refreshes_skipped")

Groups: TypeAlias = Sequence[dict[str, Any]]


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers are finite; the host waits once for each device other than the CPU.

    On a CPU a sum is finite only if its terms are, and is several times faster than a look at each; where it is not, it
    may have overflowed, so each number is looked at. Small tensors are looked at together.
    """
    together: dict[tuple[torch.device, torch.dtype], list[Tensor]] = {}
    for t in tensors:
        if t.device.type != "cpu" or t.numel() < _SMALL:
            together.setdefault((t.device, t.dtype), []).append(t)
        elif not _is_finite_on_cpu(t):
            return False
    return all(
        _is_finite_on_cpu(torch.cat([t.reshape(-1) for t in some]))
        if device.type == "cpu"
        else not bool(nonfinite_on_device(some))
        for (device, _), some in together.items()
    )


def _is_finite_on_cpu(tensor: Tensor) -> bool:
    return math.isfinite(abs(tensor.sum().item())) or bool(torch.isfinite(tensor).all())


def nonfinite_on_device(tensors: Sequence[Tensor]) -> Tensor:
    """1 where a number is not finite, else 0, as one float32 on the tensors' device; the host does not wait."""
    filled = [t for t in tensors if t.numel()] or [torch.zeros((), device=t.device) for t in tensors[:1]]
    largest = torch.nn.utils.get_total_norm(filled, math.inf)
    return torch.logical_not(largest < math.inf).to(torch.float32)


def is_finite(tensor: Tensor) -> Tensor:
    """Whether all numbers are finite, as one bool on the tensor's device, by two kernels."""
    if not tensor.numel():
        return torch.ones((), dtype=torch.bool, device=tensor.device)
    finite: Tensor = torch.linalg.vector_norm(tensor, math.inf) < math.inf
    return finite


class Flag:
    """A truth found on a device, which the host reads when it needs it.

    Its copy starts at once, so reading it waits for what came before it on the device's stream, and for nothing that
    was queued after it.

    Args:
        value: One bool on any device.
    """

    def __init__(self, value: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._held = value
        if value.is_cuda:  # what is on the host is all that is kept: no memory of the device
            self._held = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._held.copy_(value, non_blocking=True)
            self._event = torch.cuda.current_stream(value.device).record_event()

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
        self._tallies: dict[torch.device, Tensor] = {}
        self._unread = 0
        self._looks: list[Flag] = []

    def step(self, groups: Groups, culprit: str) -> None:
        """A step has been skipped because ``culprit`` is not finite."""
        self.count("steps_skipped", groups, _TOLD["steps_skipped"].format(culprit))

    def watch(self, key: str, good: Tensor | None) -> None:
        """Count under ``key`` if ``good``, one bool on a device, turns out to be false."""
        if good is not None:
            self._watched.append((key, Flag(good)))

    def add_on_device(self, bad: Tensor, spoiled: Tensor | None) -> None:
        """Count a step where it was decided, until the host asks.

        Args:
            bad: 1 if it was skipped, else 0: one float32 on the device.
            spoiled: Likewise, whether its Hessian was left out; None where none was due.
        """
        tally = self._tallies.get(bad.device)
        if tally is None:
            tally = self._tallies[bad.device] = torch.zeros(2, dtype=torch.float32, device=bad.device)
        tally[0].add_(bad)
        if spoiled is not None:
            tally[1].add_(spoiled)
        self._unread += 1

    def settle(self, groups: Groups, *, wait: bool) -> None:
        """Count what is known by now; ``wait`` for the rest too."""
        while self._watched and (wait or self._watched[0][1].is_known):
            key, good = self._watched.pop(0)
            if not good:
                self.count(key, groups)
        if self._unread and (wait or self._has_noticed()):
            self._read_tallies(groups)

    def _has_noticed(self) -> bool:
        """Whether something is known to have been skipped; every few steps a look is begun, and none waits."""
        if not self._looks:
            if self._unread % _LOOK_EVERY == 0:
                self._looks = [Flag(tally.any()) for tally in self._tallies.values()]
            return False
        if not all(look.is_known for look in self._looks):
            return False
        seen, self._looks = any(self._looks), []
        return seen

    def _read_tallies(self, groups: Groups) -> None:
        self._unread, self._looks = 0, []
        for tally in self._tallies.values():
            counts = tally.tolist()
            tally.zero_()
            for key, count in zip(_ON_DEVICE, counts, strict=True):
                if count:
                    self.count(key, groups, times=int(count))

    def count(self, key: str, groups: Groups, told: str = "", times: int = 1) -> None:
        """Add to the counter ``key``, and warn of the first."""
        for group in groups:
            group[key] += times
        self.tell(key, told)

    def tell(self, key: str, told: str = "") -> None:
        """Warn of the first of a kind; what was counted elsewhere has been counted."""
        if key not in self._told:
            self._told.add(key)
            warn(told or _TOLD[key].format("The loss or a gradient"))
