"""What must not be written because it is not finite: seen without keeping a device waiting, counted, told once."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = ["COUNTERS", "Flag", "Skipped"]

COUNTERS = ("steps_skipped", "refreshes_skipped")
"""Keys of each group, alike in all groups."""

_TOLD = {
    "steps_skipped": (
        "The loss is not finite, so this step has been skipped: no parameter, no average and no count of steps "
        "has changed. More of them are counted in `optimizer.steps_skipped`, and not told again. Lower the "
        "learning rate, or look for the batch that does it."
    ),
    "refreshes_skipped": (
        "The Hessian that was due is not finite, so its average has not been changed; the step itself has been "
        "taken, by the gradients. More of them are counted in `optimizer.refreshes_skipped`, and not told "
        "again. In half precision tangents overflow before gradients do: lower the scale of the loss."
    ),
}

Groups: TypeAlias = Sequence[dict[str, Any]]


class Flag:
    """A truth found on a device, which the host reads when it needs it.

    Args:
        value: One bool on any device. The copy to the host starts at once, so that reading it waits for what
            came before it on the device's stream, and for nothing that was queued after it.
    """

    def __init__(self, value: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        self._host = value
        if value.is_cuda:
            self._host = torch.empty((), dtype=torch.bool, pin_memory=True)
            self._host.copy_(value, non_blocking=True)
            self._event = torch.cuda.current_stream(value.device).record_event()

    @property
    def is_known(self) -> bool:
        """Whether reading it would not wait."""
        return self._event is None or bool(self._event.query())  # type: ignore[no-untyped-call]

    def __bool__(self) -> bool:
        if self._event is not None:
            self._event.synchronize()
        return bool(self._host)


class Skipped:
    """Counts, in the groups, what was skipped, and warns of the first of each kind."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._refreshed: list[Flag] = []

    def step(self, groups: Groups) -> None:
        """A step has been skipped."""
        self._count("steps_skipped", groups)

    def watch(self, refreshed: Flag | None) -> None:
        """A Hessian has been taken in, if it was finite."""
        if refreshed is not None:
            self._refreshed.append(refreshed)

    def settle(self, groups: Groups, *, wait: bool) -> None:
        """Count those refreshes whose fate is known; ``wait`` for the others too."""
        while self._refreshed and (wait or self._refreshed[0].is_known):
            if not self._refreshed.pop(0):
                self._count("refreshes_skipped", groups)

    def _count(self, key: str, groups: Groups) -> None:
        for group in groups:
            group[key] += 1
        if key not in self._told:
            self._told.add(key)
            warnings.warn(_TOLD[key], RuntimeWarning, stacklevel=2)
