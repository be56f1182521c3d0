"""What must hold between the entries of one plan, whatever the model is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from sgdph_fx.plan.entries import RESERVED_OPTIONS, ConvolutionEntry, ParameterEntry
from sgdph_fx.transform.filters import decoupled_names

if TYPE_CHECKING:
    from sgdph_fx.plan.plan import Plan

__all__ = ["contradictions"]


def contradictions(plan: Plan) -> Iterator[str]:
    """Sentences on what in a plan contradicts itself; none if it can be applied to some model."""
    parameters = [entry.name for entry in plan.parameters]
    yield from (
        f"two convolutions are named {name!r}" for name in _repeated(e.name for e in plan.convolutions)
    )
    yield from (f"{name!r} is named twice" for name in _repeated([*parameters, *plan.frozen]))
    if "" in parameters or "" in plan.frozen:
        yield "a parameter has no name"
    for entry in plan.convolutions:
        yield from _of_one(entry)
    for parameter in plan.parameters:
        yield from (
            f"{parameter.name!r} has an option {name!r}, which a parameter group says about itself"
            for name in parameter.options
            if name in RESERVED_OPTIONS
        )
    yield from _of_shared_weights(plan.convolutions)
    yield from _of_decoupled_weights(plan)


def _repeated(names: Iterable[str]) -> Iterator[str]:
    return (name for name, count in Counter(names).items() if count > 1)


def _of_one(entry: ConvolutionEntry) -> Iterator[str]:
    what = f"the convolution {entry.name!r}"
    if (entry.norm is not None) is not (entry.verdict == "normalized"):
        yield f"{what} is {entry.verdict}, but its norm is {entry.norm!r}"
    if not entry.decouple:
        return
    if not entry.weight:
        yield f"{what} is decoupled, but names no weight"
    if _output_filters(entry) != entry.out_channels:
        shape = "×".join(map(str, entry.shape))
        yield (
            f"{what} has {entry.out_channels} output filters, but its weight of shape {shape} in {entry.groups} "
            f"groups{', transposed,' if entry.transposed else ''} does not"
        )


def _output_filters(entry: ConvolutionEntry) -> int | None:
    """How many output filters a weight of this shape holds; None if it cannot be one."""
    if entry.groups < 1:
        return None
    if not entry.transposed:
        return entry.shape[0] if entry.shape and entry.shape[0] % entry.groups == 0 else None
    if len(entry.shape) < 2 or entry.shape[0] % entry.groups:
        return None
    return entry.shape[1] * entry.groups


def _of_shared_weights(convolutions: Sequence[ConvolutionEntry]) -> Iterator[str]:
    first: dict[str, ConvolutionEntry] = {}
    for entry in convolutions:
        other = first.setdefault(entry.weight, entry) if entry.weight else entry
        if other.decouple is not entry.decouple:
            yield f"{other.name!r} and {entry.name!r} share {entry.weight!r}, but only one of them is decoupled"
        elif entry.decouple and _filters(other) != _filters(entry):
            yield f"{other.name!r} and {entry.name!r} share {entry.weight!r}, but not its output filters"


def _filters(entry: ConvolutionEntry) -> tuple[object, ...]:
    return entry.shape, entry.transposed, entry.transposed and entry.groups


def _of_decoupled_weights(plan: Plan) -> Iterator[str]:
    entries = {entry.name: entry for entry in plan.parameters}
    frozen = set(plan.frozen)
    for convolution in {entry.weight: entry for entry in plan.decoupled}.values():
        weight = convolution.weight
        if weight in entries:
            yield f"{weight!r} is decoupled, but also planned as it is"
        if weight in frozen:
            continue
        direction, gain = decoupled_names(weight)
        yield from _of_part(entries.get(direction), direction, "direction", convolution.shape)
        yield from _of_part(entries.get(gain), gain, "gain", (convolution.out_channels,))


def _of_part(entry: ParameterEntry | None, name: str, role: str, shape: tuple[int, ...]) -> Iterator[str]:
    if entry is None:
        yield f"there is no parameter {name!r}, though its convolution is decoupled"
    elif entry.role != role:
        yield f"{name!r} has the role {entry.role!r}, where {role!r} is needed"
    elif entry.shape != shape:
        yield f"{name!r} has shape {entry.shape}, where {shape} is needed"
