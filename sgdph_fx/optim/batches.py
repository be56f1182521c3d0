"""Who takes which step: the parameters that have a gradient, sorted into lists that one call moves together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from sgdph_fx.optim.group_step import Group, State, lacks_curvature
from sgdph_fx.optim.joint_groups import PLAIN, sharing
from sgdph_fx.optim.schedule import Schedule

__all__ = ["Batch", "Present", "batches", "gather"]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The parameters of one group that have a gradient.

    Args:
        number: The group's number.
        group: The group.
        params: They.
        grads: The gradient of each.
        missed: How many Hessian cycles each had missed when it joined; None where none has missed any.
    """

    number: int
    group: Group
    params: list[Tensor]
    grads: list[Tensor]
    missed: Sequence[int] | None


@dataclass(frozen=True, slots=True, eq=False)
class Present:
    """All parameters that have a gradient, by group."""

    rows: tuple[Rows, ...]

    def __bool__(self) -> bool:
        return any(rows.params for rows in self.rows)

    @property
    def params(self) -> list[Tensor]:
        """The parameters, in the order of the groups."""
        return [p for rows in self.rows for p in rows.params]

    @property
    def grads(self) -> list[Tensor]:
        """The gradient of each."""
        return [g for rows in self.rows for g in rows.grads]


def gather(groups: Iterable[Group]) -> Present:
    """Read every gradient, once."""
    return Present(tuple(_rows(number, group) for number, group in enumerate(groups)))


def _rows(number: int, group: Group) -> Rows:
    params: list[Tensor] = group["params"]
    missed: Sequence[int] | None = group.get("cycles_missed")
    found = [p.grad for p in params]
    grads = [g for g in found if g is not None]
    if len(grads) == len(params):
        return Rows(number, group, params, grads, missed)
    used = [place for place, g in enumerate(found) if g is not None]
    return Rows(number, group, [params[i] for i in used], grads, missed and [missed[i] for i in used])


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Parameters that take the same step.

    Args:
        number: The number of the first group with the same numbers.
        group: That group.
        missed: How many Hessian cycles they have missed; None where they take the plain momentum step.
        params: They.
        grads: The gradient of each.
    """

    number: int
    group: Group
    missed: int | None
    params: list[Tensor]
    grads: list[Tensor]


def batches(present: Present, state: State, schedule: Schedule) -> list[Batch]:
    """Sort the parameters by the step that they take; groups that share all its numbers take it together.

    Args:
        present: Those that have a gradient.
        state: Of all parameters.
        schedule: The Hessian cycle.
    """
    groups = [rows.group for rows in present.rows]
    alike, alike_plainly = sharing(groups), sharing(groups, PLAIN)
    found: dict[tuple[int | None, int], Batch] = {}
    for rows in present.rows:
        for missed, params, grads in _by_step(rows, state, schedule):
            number = (alike_plainly if missed is None else alike)[rows.number]
            batch = found.setdefault((missed, number), Batch(number, groups[number], missed, [], []))
            batch.params.extend(params)
            batch.grads.extend(grads)
    return list(found.values())


def _by_step(
    rows: Rows, state: State, schedule: Schedule
) -> Iterable[tuple[int | None, list[Tensor], list[Tensor]]]:
    if not rows.params:
        return
    if rows.group["order"] != 2:
        yield None, rows.params, rows.grads
        return
    first_order_if_lacking = rows.group["without_curvature"] == "first-order"
    sorted_out: dict[int | None, tuple[list[Tensor], list[Tensor]]] = {}
    for place, (parameter, gradient) in enumerate(zip(rows.params, rows.grads, strict=True)):
        missed: int | None = rows.missed[place] if rows.missed else 0
        if parameter is schedule.first_order or (
            first_order_if_lacking and lacks_curvature(parameter, state)
        ):
            missed = None
        params, grads = sorted_out.setdefault(missed, ([], []))
        params.append(parameter)
        grads.append(gradient)
    for missed, (params, grads) in sorted_out.items():
        yield missed, params, grads
