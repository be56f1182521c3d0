"""A saved state in the order of other groups: by the parameters' names, else by their places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim.members.layout import ALONGSIDE
from sgdph_fx.optim.wording import listed

__all__ = ["in_our_order"]

Groups = Sequence[Mapping[str, Any]]
Saved = tuple[list[dict[str, Any]], dict[Any, Any]]


def in_our_order(saved: Groups, state: Mapping[Any, Any], groups: Groups) -> Saved:
    """The saved groups and state, arranged as the groups are.

    Where all parameters of both have names, the names decide; otherwise the places do, as in any optimizer of torch.

    Raises:
        OptimizerError: if the names, the number of groups or of parameters differ.
    """
    if _all_named(saved) and _all_named(groups):
        return _by_names(saved, state, groups)
    _require_equal_sizes(saved, groups)
    return [dict(group) for group in saved], dict(state)


def _all_named(groups: Groups) -> bool:
    names = list(chain.from_iterable(map(_names, groups)))
    return len(names) == len(set(names)) == sum(len(group["params"]) for group in groups)


def _names(group: Mapping[str, Any]) -> Sequence[str]:
    names: Sequence[str] = group.get("param_names") or ()  # a group without parameters may have none
    return names


def _require_equal_sizes(saved: Groups, groups: Groups) -> None:
    theirs, ours = ([len(group["params"]) for group in some] for some in (saved, groups))
    if theirs != ours:
        raise OptimizerError(
            f"This state was saved for groups of {theirs} parameters, and the optimizer has groups of {ours}; build "
            "it with the same groups that it was saved with."
        )


def _by_names(saved: Groups, state: Mapping[Any, Any], groups: Groups) -> Saved:
    places = {
        name: (number, position)
        for number, group in enumerate(saved)
        for position, name in enumerate(_names(group))
    }
    wanted = list(chain.from_iterable(map(_names, groups)))
    _require_same_names(places, wanted)
    arranged = [
        _arranged(group, [places[name] for name in _names(group)], saved, number)
        for number, group in enumerate(groups)
    ]
    return arranged, dict(state)


def _require_same_names(saved: Mapping[str, Any], wanted: Sequence[str]) -> None:
    lacking = [name for name in wanted if name not in saved]
    surplus = sorted(saved.keys() - set(wanted))
    if lacking or surplus:
        raise OptimizerError(
            f"This state was saved for other parameters: it lacks {listed(lacking, 3) or 'none'} and holds "
            f"{listed(surplus, 3) or 'none'} that the optimizer does not. If parameters were thawed "
            "before it was saved, thaw them before it is loaded; if they were thawed after it, load it first."
        )


def _arranged(
    group: Mapping[str, Any], places: Sequence[tuple[int, int]], saved: Groups, number: int
) -> dict[str, Any]:
    """One of our groups, filled from the places of its parameters in the saved ones."""
    sources = sorted({at for at, _ in places})
    if not sources:
        options = saved[number] if number < len(saved) else group
        return {**_without_lists(options), "params": []}
    first = saved[sources[0]]
    for other in sources[1:]:
        differing = [key for key in _options(first) if _options(first)[key] != saved[other].get(key)]
        if differing:
            raise OptimizerError(
                f"param_groups[{number}] holds parameters that were saved in groups with different "
                f"{listed(differing, 3)}; build the optimizer with the same groups that it was saved with."
            )
    arranged = _without_lists(first)
    arranged["params"] = [saved[at]["params"][position] for at, position in places]
    for key in ALONGSIDE:
        lists: dict[int, Any] = {at: saved[at].get(key) for at in sources}
        # A group whose parameters have missed none may not say so.
        if key == "cycles_missed" and any(lists.values()):
            lists = {at: given or [0] * len(saved[at]["params"]) for at, given in lists.items()}
        if all(given is not None for given in lists.values()):
            arranged[key] = [lists[at][position] for at, position in places]
    return arranged


def _without_lists(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key not in ALONGSIDE}


def _options(group: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a group's steps what they are."""
    left_out = ("params", "role", "name", *ALONGSIDE)
    return {key: value for key, value in group.items() if key not in left_out}
