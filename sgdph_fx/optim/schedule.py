"""Whose averages a step refreshes: in turn and in registration order those of one parameter or one pair, or of all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

__all__ = ["Pair", "Schedule"]


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Scale and shift of the same channels, whose 2×2 blocks are averaged.

    Args:
        scale: γ.
        shift: β, of the same shape, dtype and device.
        groups: The numbers of their groups.
    """

    scale: Tensor
    shift: Tensor
    groups: tuple[int, int]

    @property
    def both(self) -> tuple[Tensor, Tensor]:
        """γ and β."""
        return self.scale, self.shift


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The Hessian cycle of one set of groups.

    Args:
        cycle: The second-order parameters in registration order: sorted by their group's ``index``, then
            those of groups without one, in the order of the groups.
        first_order: The one that keeps its place in the cycle but takes plain momentum steps, if any.
        interval: k: a Hessian is refreshed at every k-th step, so a cycle takes k M steps.
        refreshes_all: Whether every refresh is of all of them, so that a cycle takes k steps.
        turns: The M turns of a cycle: a parameter each, or a pair.
        pairs: The pairs that share a turn.
    """

    cycle: tuple[Tensor, ...]
    first_order: Tensor | None
    interval: int = 1
    refreshes_all: bool = False
    turns: tuple[tuple[Tensor, ...], ...] = ()
    pairs: tuple[Pair, ...] = ()

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
        first_order = cycle[-1] if last_is_first_order and cycle else None
        return cls(cycle, first_order, interval, refreshes_all, tuple((p,) for p in cycle))

    def with_pairs(self, pairs: Sequence[Pair]) -> Schedule:
        """This cycle, in which each pair has one turn, at the place of the first of the two."""
        turn_of = {id(p): turn for turn in self.turns for p in turn}
        for both in (pair.both for pair in pairs):
            turn_of |= dict.fromkeys(map(id, both), both)
        turns = tuple({id(turn_of[id(p)]): turn_of[id(p)] for p in self.cycle}.values())
        return replace(self, turns=turns, pairs=tuple(pairs))

    @property
    def length(self) -> int:
        """How many steps a cycle takes."""
        return self.interval * (min(len(self.turns), 1) if self.refreshes_all else len(self.turns))

    def due(self, t: int) -> tuple[Tensor, ...]:
        """The parameters whose averages step t refreshes, t counted from 1."""
        turn, wait = divmod(t - 1, self.interval)
        if wait or not self.cycle:
            return ()
        due = self.cycle if self.refreshes_all else self.turns[turn % len(self.turns)]
        return tuple(p for p in due if p is not self.first_order)

    def pairs_among(self, parameters: Sequence[Tensor]) -> tuple[Pair, ...]:
        """The pairs that the parameters hold both of."""
        ids = set(map(id, parameters)) if self.pairs else set()
        return tuple(pair for pair in self.pairs if ids.issuperset(map(id, pair.both)))

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
