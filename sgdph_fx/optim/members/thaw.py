"""Parameters that have become trainable join an optimizer, with their order, role and turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim.members.layout import Layout
from sgdph_fx.optim.saving.saved_state import ALIKE

__all__ = ["fold", "groups_to_add", "places_in", "remembered"]

Group = Mapping[str, Any]

# What a group has for its own parameters alone.
_OWN = ("params", "param_names", "index", "cycles_missed", "name", "role", "order", *ALIKE)


def groups_to_add(
    given: Iterable[Group], held: Sequence[Group], layout: Layout, options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Groups of the given parameters that the optimizer does not hold yet.

    Args:
        given: The model's groups as they are now, from ``sgdph_fx.param_groups``.
        held: The optimizer's groups.
        layout: Their index.
        options: Hyper-parameters for the new groups; others are those of the group of the same order and role.

    Raises:
        OptimizerError: if a given group lacks what ``sgdph_fx.param_groups`` writes.
    """
    added = []
    # Places after all others for now; places_in() gives the right ones once all have joined.
    place = max((p for group in held for p in group.get("index", ())), default=-1) + 1
    for number, group in enumerate(given):
        new = _new_parameters(group, layout, number)
        count = len(new["params"])
        if count:
            added.append({**_like(group, held), **options, **new, "index": list(range(place, place + count))})
            place += count
    return added


def _new_parameters(group: Group, layout: Layout, number: int) -> dict[str, Any]:
    missing = [key for key in ("params", "param_names", "index", "order") if key not in group]
    if missing:
        raise OptimizerError(
            f"thaw() takes groups as `sgdph_fx.param_groups(model, example_inputs)` returns them; group {number} has "
            f"no {missing[0]!r}."
        )
    rows = zip(group["params"], group["param_names"], strict=True)
    new = [(parameter, name) for parameter, name in rows if not layout.holds(parameter)]
    carried = {key: group[key] for key in ("role", "name") if key in group}
    return {
        **carried,
        "params": [parameter for parameter, _ in new],
        "param_names": [name for _, name in new],
        "order": group["order"],
    }


def _like(group: Group, held: Sequence[Group]) -> dict[str, Any]:
    """The options of the group that it is most like, a scheduler's included."""
    other = _most_like(group, held) or (held[0] if held else {})
    return {key: value for key, value in other.items() if key not in _OWN}


def _most_like(group: Group, held: Sequence[Group]) -> Any:
    """The first group of the same order and role, or of the same order; None if there is none."""
    same_order = [other for other in held if other["order"] == group["order"]]
    same_role = [other for other in same_order if other.get("role") == group.get("role")]
    return next(iter((*same_role, *same_order)), None)


def fold(groups: list[dict[str, Any]]) -> None:
    """Put the last group into the one that it is most like; a scheduler cannot count on more groups than it had."""
    *earlier, last = groups
    group = _most_like(last, earlier)
    if group is None:
        return
    group["cycles_missed"] = _missed(group) + _missed(last)
    for key in ("params", "param_names", "index"):
        if key in group:
            group[key] = [*group[key], *last.get(key, ())]
    del groups[-1]


def _missed(group: Group) -> list[int]:
    return list(group.get("cycles_missed") or [0] * len(group["params"]))


def remembered(groups: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups as they are, to go back to: whoever joins is put into new lists."""
    return [dict(group) for group in groups]


def places_in(given: Iterable[Group], held: Sequence[Group]) -> list[list[int]]:
    """Places in registration order for all parameters of the held groups.

    Those in ``given`` take the order that they have there; others, frozen since, keep theirs and come after.
    """
    known = {
        id(parameter): place
        for group in given
        for parameter, place in zip(group["params"], group["index"], strict=True)
    }
    keys = [
        [
            (0, known[id(parameter)]) if id(parameter) in known else (1, place)
            for parameter, place in zip(group["params"], _index(group, held), strict=True)
        ]
        for group in held
    ]
    rank = {key: place for place, key in enumerate(sorted({key for row in keys for key in row}))}
    return [[rank[key] for key in row] for row in keys]


def _index(group: Group, held: Sequence[Group]) -> Sequence[int]:
    """The group's places; those of groups without any come last, in the order of the groups."""
    if "index" in group:
        index: Sequence[int] = group["index"]
        return index
    last = max((place for other in held for place in other.get("index", ())), default=-1)
    before = 0
    for other in held:
        if other is group:
            break
        before += 0 if "index" in other else len(other["params"])
    return range(last + 1 + before, last + 1 + before + len(group["params"]))
