"""Who takes which step: the parameters that have a gradient, sorted into lists that one call moves together."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from torch import Tensor

from sgdph_fx.optim.group_step import Group, State, takes_newton_steps
from sgdph_fx.optim.schedule import Schedule

__all__ = ["Batch", "Present", "batches", "gather", "sharing"]

# The options that decide a step, beside those that all groups share.
_OPTIONS = itemgetter(
    "second_order_lr",
    "momentum",
    "hessian_momentum",
    "weight_decay",
    "eps",
    "probe",
    "negative_curvature",
    "max_preconditioner",
    "maximize",
    "foreach",
)


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
        number: The number of the first group that has some of them.
        group: That group; all others agree with it in everything that a step reads.
        missed: How many Hessian cycles they have missed; None where they take the plain momentum step.
        params: They.
        grads: The gradient of each.
    """

    number: int
    group: Group
    missed: int | None
    params: list[Tensor]
    grads: list[Tensor]


def sharing(groups: Iterable[Group]) -> tuple[int, ...]:
    """For each group the place of the first one that agrees with it in everything that a step reads."""
    first: dict[object, int] = {}
    return tuple(first.setdefault(_options(group), place) for place, group in enumerate(groups))


def _options(group: Group) -> tuple[object, ...]:
    """What a step reads of a group; a rate that is a tensor agrees only with itself, as the host does not read it."""
    lr = group["lr"]
    return (*_OPTIONS(group), id(lr) if isinstance(lr, Tensor) else lr)


def batches(
    present: Present, state: State, schedule: Schedule, paired: Container[int] = frozenset()
) -> list[Batch]:
    """Sort the parameters by the step that they take.

    Args:
        present: Those that have a gradient.
        state: Of all parameters.
        schedule: The Hessian cycle.
        paired: The ``id`` of each parameter that steps with its partner, and so in no batch.
    """
    found: dict[Any, Batch] = {}
    for rows in present.rows:
        options = _options(rows.group)
        for missed, params, grads in _by_step(rows, state, schedule, paired):
            batch = found.get((missed, options))
            if batch is None:
                found[missed, options] = Batch(rows.number, rows.group, missed, params, grads)
            else:
                batch.params.extend(params)
                batch.grads.extend(grads)
    return list(found.values())


def _by_step(
    rows: Rows, state: State, schedule: Schedule, paired: Container[int]
) -> Iterable[tuple[int | None, list[Tensor], list[Tensor]]]:
    if not rows.params:
        return
    if rows.group["order"] != 2:
        yield None, list(rows.params), list(rows.grads)
        return
    sorted_out: dict[int | None, tuple[list[Tensor], list[Tensor]]] = {}
    for place, (parameter, gradient) in enumerate(zip(rows.params, rows.grads, strict=True)):
        if id(parameter) in paired:
            continue
        missed: int | None = None
        if takes_newton_steps(parameter, rows.group, state, schedule):
            missed = rows.missed[place] if rows.missed else 0
        params, grads = sorted_out.setdefault(missed, ([], []))
        params.append(parameter)
        grads.append(gradient)
    for missed, (params, grads) in sorted_out.items():
        yield missed, params, grads
