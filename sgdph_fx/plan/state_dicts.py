"""A checkpoint of a prepared model as one of the plain model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sgdph_fx.errors import PlanMismatchError
from sgdph_fx.plan.wording import first_few
from sgdph_fx.transform.filters import Filters, compose, decoupled_names, dotted

if TYPE_CHECKING:
    from sgdph_fx.plan.plan import Plan

__all__ = ["plain_state_dict"]


def plain_state_dict(plan: Plan, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of ``state_dict`` in the same order, with each direction and gain made one weight again.

    Raises:
        PlanMismatchError: if a direction or a gain that the plan names is missing, or has another shape.
    """
    _require_names(state_dict)
    filters = dict(_named_filters(plan))
    _require_dense(_parts_of(filters), state_dict)
    filters |= _under_other_names(filters, state_dict)
    parts = _parts_of(filters)
    _require_parts(plan, filters, state_dict)
    plain: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if key not in parts:
            plain[key] = value
            continue
        weight = parts[key]
        direction, gain = decoupled_names(weight)
        if key == direction:
            plain[weight] = compose(value, state_dict[gain], filters[weight])
    return plain


def _parts_of(weights: Iterable[str]) -> dict[str, str]:
    """The weight that each direction and gain is a part of, by the part's name."""
    return {name: weight for weight in weights for name in decoupled_names(weight)}


def _named_filters(plan: Plan) -> Iterator[tuple[str, Filters]]:
    """The filters of each weight that is direction and gain in the prepared model, by every name in the plan.

    A weight that convolutions share has a key for each of them.
    """
    for entry in plan.decoupled:
        filters = Filters(entry.transposed, entry.groups)
        yield entry.weight, filters
        yield dotted(entry.name, "weight"), filters


def _under_other_names(
    filters: Mapping[str, Filters], state_dict: Mapping[str, Tensor]
) -> dict[str, Filters]:
    """The same weights in a checkpoint that holds a module under a second name, which a plan does not name."""
    known = _parts_of(filters)
    directions = [(state_dict.get(decoupled_names(weight)[0]), kept) for weight, kept in filters.items()]
    found: dict[str, Filters] = {}
    for key, value in state_dict.items():
        weight = _weight_of(key)
        gain = state_dict.get(decoupled_names(weight)[1]) if weight is not None else None
        if weight is None or key in known or not (_is_dense_and_real(value) and _is_dense_and_real(gain)):
            continue
        same = next((kept for direction, kept in directions if _are_one(direction, value)), None)
        if same is not None:
            found[weight] = same
    return found


def _weight_of(key: str) -> str | None:
    """The weight that a key would be the direction of."""
    owner, dot, leaf = key.rpartition(".")
    if leaf == "direction":
        return f"{owner}{dot}weight"
    return f"{owner}{dot}{leaf.removesuffix('_direction')}" if leaf.endswith("_direction") else None


def _are_one(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and (one is other or (one.shape == other.shape and torch.equal(one, other)))


def _require_names(state_dict: Mapping[str, Tensor]) -> None:
    if not isinstance(state_dict, Mapping):
        raise PlanMismatchError(f"A `state_dict()` is needed; this is a {type(state_dict).__name__}.")
    strange = [key for key in state_dict if not isinstance(key, str)]
    if strange:
        raise PlanMismatchError(
            f"This is no checkpoint of a model: it has the key {strange[0]!r}, which is no name."
        )


def _require_dense(parts: Iterable[str], state_dict: Mapping[str, Tensor]) -> None:
    for key in parts:
        value = state_dict.get(key)
        if key in state_dict and not _is_dense_and_real(value):
            what = (
                f"{value.dtype}, {value.layout}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            )
            raise PlanMismatchError(
                f"This is no checkpoint of a prepared model: {key} is {what}, where a dense tensor of floating "
                "point is needed."
            )


def _is_dense_and_real(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.layout is torch.strided


def _require_parts(plan: Plan, weights: Iterable[str], state_dict: Mapping[str, Tensor]) -> None:
    """Check that the checkpoint is one of the prepared model that the plan describes.

    Raises:
        PlanMismatchError: if it is not.
    """
    shapes = {entry.name: entry.shape for entry in plan.parameters}
    needed = [name for weight in plan.filters for name in decoupled_names(weight)]
    half = [
        name
        for weight in weights
        for name, other in zip(decoupled_names(weight), decoupled_names(weight)[::-1], strict=True)
        if name not in state_dict and other in state_dict
    ]
    missing = [name for name in needed if name not in state_dict] or half
    if missing:
        raise PlanMismatchError(
            f"This is no checkpoint of the prepared model: it lacks {first_few(missing)}. Pass its whole "
            "`state_dict()`; one of the plain model needs no restoring."
        )
    for name, shape in shapes.items():
        if name in state_dict and tuple(state_dict[name].shape) != shape:
            raise PlanMismatchError(
                f"This checkpoint is of another model than the plan: {name} has shape "
                f"{tuple(state_dict[name].shape)}, planned {shape}."
            )
