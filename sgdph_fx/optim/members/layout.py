"""Where each parameter of an optimizer is: its group, its name, and its turn in the Hessian cycle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any

from torch import Tensor

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim.affine_blocks.pairs import affine_pairs
from sgdph_fx.optim.hessian.estimators import AFFINE
from sgdph_fx.optim.processes.shards import is_sharded
from sgdph_fx.optim.schedule import Schedule
from sgdph_fx.optim.variants import VARIANTS

__all__ = ["ALONGSIDE", "Layout", "parameter_name", "plain_name"]

ALONGSIDE = ("index", "param_names", "cycles_missed")
"""Lists that a group may have, with an entry for each of its parameters."""

Groups = Sequence[Mapping[str, Any]]


def plain_name(group: Mapping[str, Any], number: int, position: int) -> str:
    """The parameter's own name where the group has ``param_names``, else its place."""
    names: Sequence[str] | None = group.get("param_names")
    return names[position] if names else f"param_groups[{number}]['params'][{position}]"


def parameter_name(group: Mapping[str, Any], number: int, position: int) -> str:
    """As :func:`plain_name`, but an own name is quoted, as messages have it."""
    name = plain_name(group, number, position)
    return repr(name) if group.get("param_names") else name


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """An index over the groups, built once and kept for as long as it fits them.

    Args:
        schedule: The Hessian cycle.
        places: ``id`` of a parameter ↦ its group's number, and its position in the group.
        is_sharded: Whether ``fully_shard`` has cut any parameter into pieces.
        seen: What the groups held when this was built.
    """

    schedule: Schedule
    places: Mapping[int, tuple[int, int]]
    is_sharded: bool
    seen: tuple[tuple[tuple[Tensor, ...], int, tuple[int, ...] | None, int], ...]

    @classmethod
    def of(cls, groups: Groups) -> Layout:
        """Index the groups.

        Raises:
            OptimizerError: if somebody has taken parameters out of a group, and left their entries in its lists.
        """
        for number, group in enumerate(groups):
            _require_an_entry_each(group, number)
        schedule = Schedule(cycle=(), first_order=None)
        if groups:
            last_is_first_order = VARIANTS[groups[0]["variant"]].last_is_first_order
            schedule = Schedule.of(
                groups,
                last_is_first_order=last_is_first_order,
                interval=groups[0]["hessian_interval"],
                refreshes_all=groups[0]["refresh"] == "all",
            )
            if groups[0]["blocks"] == AFFINE:
                schedule = schedule.with_pairs(affine_pairs(groups, schedule.first_order))
        places = {
            id(parameter): (number, position)
            for number, group in enumerate(groups)
            for position, parameter in enumerate(group["params"])
        }
        sharded = any(is_sharded(parameter) for group in groups for parameter in group["params"])
        return cls(schedule, places, sharded, tuple(_content(group) for group in groups))

    def fits(self, groups: Groups) -> bool:
        """Whether the groups still hold the same: wrappers put other tensors into them."""
        return len(groups) == len(self.seen) and all(map(_is_unchanged, groups, self.seen))

    def holds(self, tensor: Tensor) -> bool:
        """Whether the tensor is in one of the groups."""
        return id(tensor) in self.places

    def name(self, parameter: Tensor, groups: Groups) -> str:
        """The parameter's name, as :func:`plain_name` gives it."""
        number, position = self.places[id(parameter)]
        return plain_name(groups[number], number, position)


def _require_an_entry_each(group: Mapping[str, Any], number: int) -> None:
    for key in ALONGSIDE:
        if group.get(key) is not None and len(group[key]) != len(group["params"]):
            raise OptimizerError(
                f"param_groups[{number}] has {len(group['params'])} parameters, and {len(group[key])} entries in "
                f"{key!r}. Whoever takes a parameter out of a group takes its entry out of 'index', 'param_names' and "
                "'cycles_missed' as well, where the group has them; to put parameters in, call `thaw` or "
                "`add_param_group`."
            )


def _content(group: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], int, tuple[int, ...] | None, int]:
    index = group.get("index")
    kept = None if index is None else tuple(index)
    return tuple(group["params"]), group["order"], kept, group["hessian_interval"]


def _is_unchanged(
    group: Mapping[str, Any], seen: tuple[tuple[Tensor, ...], int, tuple[int, ...] | None, int]
) -> bool:
    params, order, index, interval = seen
    if (
        group["order"] != order
        or group["hessian_interval"] != interval
        or len(group["params"]) != len(params)
    ):
        return False
    now = group.get("index")
    if (now is None) != (index is None) or (now is not None and tuple(now) != index):
        return False
    return all(map(is_, group["params"], params))
