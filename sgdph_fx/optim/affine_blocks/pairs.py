"""Which second-order parameters are scale and shift of the same channels, by the names and roles in the groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim.schedule import Pair

__all__ = ["affine_pairs"]

_SHIFT_OF = {"weight": "bias", "gain": "bias", "gamma": "beta", "scale": "shift"}
_KNOWN_NAMES = {*_SHIFT_OF, *_SHIFT_OF.values()}
# What a parameter with any other name is, by the role of its group.
_SCALES = ("norm.weight", "gain", "layer_scale")
_SHIFTS = ("norm.bias", "bias")
# What decides a pair's matrices, and so has one value for both.
_ALIKE = ("hessian_momentum", "eps", "maximize", "probe", "negative_curvature", "without_curvature", "seed")


class _Member(NamedTuple):
    """A second-order parameter: the module that it is in, its name there, and its group."""

    parameter: Tensor
    module: str
    name: str
    number: int
    role: object

    @property
    def is_scale(self) -> bool:
        return self.name in _SHIFT_OF or (self.name not in _KNOWN_NAMES and self.role in _SCALES)

    @property
    def is_shift(self) -> bool:
        return self.name in _SHIFT_OF.values() or (self.name not in _KNOWN_NAMES and self.role in _SHIFTS)

    def is_like(self, other: _Member) -> bool:
        """Whether both are in one module, and of one shape and dtype, on one device."""
        return self.module == other.module and _kind(self.parameter) == _kind(other.parameter)


def affine_pairs(groups: Sequence[Mapping[str, Any]], first_order: Tensor | None) -> tuple[Pair, ...]:
    """Find the pairs: two parameters of order 2 in one module, a scale and a shift of one shape.

    Names decide: ``weight`` and ``bias``, ``gain`` and ``bias``, ``gamma`` and ``beta``, ``scale`` and ``shift``. For
    any other name the group's ``role`` does, if the module has one scale and one shift.

    Args:
        groups: All groups.
        first_order: A parameter of order 2 to leave out.

    Raises:
        OptimizerError: if parameters of order 2 have no names, or if the groups of a pair differ in an option that
            decides its matrices.
    """
    if any(group["order"] == 2 and group["params"] and not group.get("param_names") for group in groups):
        raise OptimizerError(
            'blocks="affine" knows scale and shift of the same channels by the parameters\' names, and the groups of '
            "order 2 have none. Build the groups by `sgdph_fx.param_groups(model)`, or pass named parameters: "
            "`(name, parameter)` in place of each parameter."
        )
    members = [m for m in _second_order(groups) if m.parameter is not first_order]
    modules: dict[str, list[_Member]] = {}
    for member in members:
        modules.setdefault(member.module, []).append(member)
    found = []
    for scale in members:
        shift = _shift_of(scale, modules[scale.module]) if scale.is_scale else None
        if shift is not None:
            _require_alike(groups[scale.number], groups[shift.number], scale)
            found.append(Pair(scale.parameter, shift.parameter, (scale.number, shift.number)))
    return tuple(found)


def _second_order(groups: Sequence[Mapping[str, Any]]) -> Iterator[_Member]:
    for number, group in enumerate(groups):
        if group["order"] == 2:
            for name, parameter in zip(group.get("param_names") or (), group["params"], strict=False):
                module, _, own = name.rpartition(".")
                yield _Member(parameter, module, own, number, group.get("role"))


def _shift_of(scale: _Member, siblings: Sequence[_Member]) -> _Member | None:
    """The shift by its name, or the only one if there is no other scale either."""
    alike = [m for m in siblings if m.is_like(scale)]
    shifts, scales = [m for m in alike if m.is_shift], [m for m in alike if m.is_scale]
    named = [m for m in shifts if m.name == _SHIFT_OF.get(scale.name)]
    if named:
        return named[0]
    return shifts[0] if len(shifts) == len(scales) == 1 else None


def _kind(parameter: Tensor) -> tuple[object, ...]:
    return parameter.shape, parameter.dtype, parameter.device


def _require_alike(scale: Mapping[str, Any], shift: Mapping[str, Any], member: _Member) -> None:
    for key in _ALIKE:
        if scale[key] != shift[key]:
            name = f"{member.module}.{member.name}".lstrip(".")
            raise OptimizerError(
                f'blocks="affine" keeps the 2×2 blocks of {name!r} and its shift, whose groups differ in {key} '
                f"({scale[key]!r} and {shift[key]!r}). Give both groups the same {key}."
            )
