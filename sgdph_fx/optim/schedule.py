"""Which second-order parameter's Hessian is due: one at each step, in turn, in registration order."""

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
    """

    cycle: tuple[Tensor, ...]
    first_order: Tensor | None
    interval: int = 1

    @classmethod
    def of(
        cls, groups: Iterable[Mapping[str, Any]], *, last_is_first_order: bool, interval: int = 1
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
        return cls(cycle, cycle[-1] if last_is_first_order and cycle else None, interval)

    def due(self, t: int) -> Tensor | None:
        """The parameter whose Hessian step t refreshes, t counted from 1; None where no parameter is due."""
        turn, wait = divmod(t - 1, self.interval)
        if wait or not self.cycle:
            return None
        parameter = self.cycle[turn % len(self.cycle)]
        return None if parameter is self.first_order else parameter

    def cycles_begun(self, t: int, start: int = 0, before: int = 0) -> int:
        """n = ⌊t / (k M)⌋ + 1, the exponent in the authors' correction of a zero start.

        The authors have k = 1. With k > 1 a cycle still refreshes each average once, and n counts the cycles.

        Args:
            t: The step, counted from 1.
            start: The step after which the cycle last changed its length M, because parameters joined.
            before: How many cycles had been completed by then.
        """
        return before + (t - start) // (self.interval * len(self.cycle)) + 1
