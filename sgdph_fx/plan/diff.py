"""Two plans → what changed treatment between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from sgdph_fx.plan.entries import ConvolutionEntry, ParameterEntry
from sgdph_fx.plan.plan import Plan

__all__ = ["Change", "plan_changes"]

Row = TypeVar("Row", ConvolutionEntry, ParameterEntry)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two plans.

    Args:
        what: What differs.
        name: Name of the convolution or parameter; empty for the whole plan.
        before: What the first plan says; ``"absent"`` if it does not have it.
        after: What the second plan says.
        reason: Why the second decided so, or the first, where the second does not have it.
    """

    what: Literal["model", "policy", "convolution", "parameter"]
    name: str
    before: str
    after: str
    reason: str = ""


def plan_changes(before: Plan, after: Plan) -> tuple[Change, ...]:
    """What is treated otherwise by ``after`` than by ``before``.

    Reasons, hints and source lines may differ freely: a comment above a layer moves it, and changes nothing.
    """
    return (
        *_whole(before, after),
        *_rows("convolution", before.convolutions, after.convolutions, _convolution),
        *_rows("parameter", before.parameters, after.parameters, _parameter),
        *_frozen(before, after),
    )


def _whole(before: Plan, after: Plan) -> Iterator[Change]:
    if before.model != after.model:
        yield Change("model", "", before.model, after.model)
    if before.policy != after.policy:
        yield Change("policy", "", before.policy, after.policy)


def _rows(
    what: Literal["convolution", "parameter"],
    before: Sequence[Row],
    after: Sequence[Row],
    treatment: Callable[[Row], str],
) -> Iterator[Change]:
    old: Mapping[str, Row] = {row.name: row for row in before}
    new: Mapping[str, Row] = {row.name: row for row in after}
    for name in dict.fromkeys([*old, *new]):
        then, now = (treatment(rows[name]) if name in rows else "absent" for rows in (old, new))
        if then != now:
            yield Change(what, name, then, now, (new if name in new else old)[name].reason)


def _convolution(row: ConvolutionEntry) -> str:
    norm = f" by {row.norm}" if row.norm else ""
    return f"{row.verdict}{norm}, {'decoupled' if row.decouple else 'kept'}"


def _parameter(row: ParameterEntry) -> str:
    order = "second-order" if row.order == 2 else "first-order"
    return f"{order} {row.role} of shape {'x'.join(map(str, row.shape)) or 'scalar'}"


def _frozen(before: Plan, after: Plan) -> Iterator[Change]:
    for name in sorted({*before.frozen} ^ {*after.frozen}):
        is_new = name in after.frozen
        then, now = ("not frozen", "frozen") if is_new else ("frozen", "not frozen")
        yield Change("parameter", name, then, now)
