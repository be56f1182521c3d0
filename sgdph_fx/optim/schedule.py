"""Whose averages a step refreshes: of one second-order parameter, in turn and in registration order, or of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Schedule"]


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The Hessian cycle of one set of groups.

    Args:
        cycle: The M second-order parameters in registration order: sorted by their group's ``index``, then
            those of groups without one, in the order of the groups.
        interval: k: a Hessian is refreshed at every k-th step, so a cycle takes k M steps.
        first_order: The one that keeps its place in the cycle but takes plain momentum steps, if any.
        refreshes_all: Whether every refresh is of all of them, so that a cycle takes k steps.
    """

    cycle: tuple[Tensor, ...]
    first_order: Tensor | None
    interval: int = 1
    refreshes_all: bool = False

    @classmethod
    def of(
        cls,
        groups: Iterable[Mapping[str, Any]],
        *,
        last_is_first_order: bool,
        interval: int = 1,
        refreshes_all: bool = False,
    ) -> Schedule:
        """The cycle through the parameters of all groups with ``order`` 2."""
        indexed: list[tuple[int, Tensor]] = []
        unindexed: list[Tensor] = []
        for group in groups:
            if group["order"] != 2:
                continue
            if "index" in group:
                indexed.extend(zip(group["index"], group["params"], strict=True))
            else:
                unindexed.extend(group["params"])
        indexed.sort(key=lambda pair: pair[0])
        cycle = (*(parameter for _, parameter in indexed), *unindexed)
        return cls(cycle, cycle[-1] if last_is_first_order and cycle else None, interval, refreshes_all)

    @property
    def length(self) -> int:
        """How many steps a cycle takes."""
        return self.interval * (min(len(self.cycle), 1) if self.refreshes_all else len(self.cycle))

    def due(self, t: int) -> tuple[Tensor, ...]:
        """The parameters whose averages step t refreshes, t counted from 1."""
        turn, wait = divmod(t - 1, self.interval)
        if wait or not self.cycle:
            return ()
        due = self.cycle if self.refreshes_all else (self.cycle[turn % len(self.cycle)],)
        return tuple(p for p in due if p is not self.first_order)

    def cycles_begun(self, t: Any, start: int = 0, before: int = 0, missed: int = 0) -> Any:
        """n = ⌊t / (k M)⌋ + 1, the exponent in the authors' correction of a zero start.

        The authors have k = 1. With k > 1 a cycle still refreshes each average once, and n counts the cycles. Where all
        are refreshed together, which the authors do not do, n is how often that was, ⌊(t - 1) / k⌋ + 1, so that
        1 - αⁿ answers for the zero start exactly.

        Args:
            t: The step, counted from 1; a number, or a tensor of one number.
            start: The step after which the cycle last changed its length M, because parameters joined.
            before: How many cycles had been completed by then.
            missed: How many the parameter had missed when it joined.
        """
        if not self.refreshes_all:
            return (t - start if start else t) // self.length + (before + 1 - missed)
        refreshed = (t - 1) // self.interval + (1 - missed)
        return refreshed.clamp_min(1) if isinstance(refreshed, Tensor) else max(refreshed, 1)

    def cycle_of(self, t: int, start: int, before: int) -> int:
        """The number of the cycle that step t belongs to, counted from 1; the arguments are :meth:`cycles_begun`'s."""
        return (
            self.cycles_begun(t, 0, 0) if self.refreshes_all else before + (t - 1 - start) // self.length + 1
        )
