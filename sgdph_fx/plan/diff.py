"""Two plans → what changed treatment between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from sgdph_fx.plan.entries import ConvolutionEntry, ParameterEntry
from sgdph_fx.plan.plan import Plan

__all__ = ["Change", "plan_changes"]

Entry = TypeVar("Entry", ConvolutionEntry, ParameterEntry)


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
        *_entries("convolution", before.convolutions, after.convolutions, _convolution),
        *_entries("parameter", before.parameters, after.parameters, _parameter),
        *_frozen(before, after),
    )


def _whole(before: Plan, after: Plan) -> Iterator[Change]:
    if before.model != after.model:
        yield Change("model", "", before.model, after.model)
    if before.policy != after.policy:
        yield Change("policy", "", before.policy, after.policy)


def _entries(
    what: Literal["convolution", "parameter"],
    before: Sequence[Entry],
    after: Sequence[Entry],
    treatment: Callable[[Entry], str],
) -> Iterator[Change]:
    old: Mapping[str, Entry] = {entry.name: entry for entry in before}
    new: Mapping[str, Entry] = {entry.name: entry for entry in after}
    for name in dict.fromkeys([*old, *new]):
        then, now = (treatment(entries[name]) if name in entries else "absent" for entries in (old, new))
        if then != now:
            yield Change(what, name, then, now, (new if name in new else old)[name].reason)


def _convolution(entry: ConvolutionEntry) -> str:
    norm = f" by {entry.norm}" if entry.norm else ""
    return f"{entry.verdict}{norm}, {'decoupled' if entry.decouple else 'kept'}"


def _parameter(entry: ParameterEntry) -> str:
    order = "second-order" if entry.order == 2 else "first-order"
    options = "".join(f", {name}={value}" for name, value in sorted(entry.options.items()))
    return f"{order} {entry.role} of shape {'x'.join(map(str, entry.shape)) or 'scalar'}{options}"


def _frozen(before: Plan, after: Plan) -> Iterator[Change]:
    for name in sorted({*before.frozen} ^ {*after.frozen}):
        is_new = name in after.frozen
        then, now = ("not frozen", "frozen") if is_new else ("frozen", "not frozen")
        yield Change("parameter", name, then, now)
