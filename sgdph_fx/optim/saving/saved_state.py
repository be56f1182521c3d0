"""A saved state, checked and brought into the order of an optimizer's groups before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim.affine_blocks.averages import COUPLING
from sgdph_fx.optim.group_step import LACKS_CURVATURE
from sgdph_fx.optim.hessian.estimators import is_never_negative
from sgdph_fx.optim.hyperparameters import ABSENT_MEANS, check_hyperparameters
from sgdph_fx.optim.members.layout import parameter_name
from sgdph_fx.optim.nonfinite import COUNTERS
from sgdph_fx.optim.saving.reordered_state import in_our_order

__all__ = ["ALIKE", "OF_THIS_PROCESS", "loadable", "sound_parts"]

ALIKE = ("step", *COUNTERS, "cycle_start", "cycles_before")
"""Counts that each group holds, alike in all."""

OF_THIS_PROCESS = ("capturable", "foreach")
"""Options that say how this process works, and do not come from a file."""

_BUFFERS = ("momentum_buffer", "hessian_average", COUPLING)

Groups = Sequence[Mapping[str, Any]]


def loadable(state_dict: object, groups: Groups) -> tuple[dict[Tensor, dict[str, Any]], list[dict[str, Any]]]:
    """State and groups to put into an optimizer, copied from ``state_dict`` once all of it is found sound.

    Args:
        state_dict: What was saved, by this version or an earlier one.
        groups: Those of the optimizer that is to load it; they stay as they are.

    Returns:
        The state of each parameter, on its device, and the groups, in the order of ``groups`` and with every key
        that this version needs.

    Raises:
        OptimizerError: if it is no state of SGDPH, belongs to other parameters, was saved with other orders or
            another variant, or holds what no training can have left. The message names it.
    """
    saved, state = sound_parts(state_dict)
    for number, theirs in enumerate(saved):
        _check_lists(theirs, number)
    saved, state = in_our_order(saved, state, groups)
    filled = [_filled(theirs, ours) for theirs, ours in zip(saved, groups, strict=True)]
    for number, (theirs, ours) in enumerate(zip(filled, groups, strict=True)):
        _check_group(theirs, ours, filled[0], number)
    _check_state(state, filled, groups)
    loaded = {
        parameter: {
            name: _copied(value, parameter) for name, value in state[key].items() if value is not None
        }
        for theirs, ours in zip(filled, groups, strict=True)
        for key, parameter in zip(theirs["params"], ours["params"], strict=True)
        if key in state
    }
    return loaded, [
        {
            **{key: deepcopy(value) for key, value in theirs.items() if key != "params"},
            "params": ours["params"],
        }
        for theirs, ours in zip(filled, groups, strict=True)
    ]


def _copied(value: Any, parameter: Tensor) -> Any:
    return value.detach().to(parameter.device, copy=True) if isinstance(value, Tensor) else deepcopy(value)


def sound_parts(state_dict: object) -> tuple[list[dict[str, Any]], dict[Any, Any]]:
    """Groups and state of what an optimizer saved.

    Raises:
        OptimizerError: if it is nothing of the kind, or was saved by another optimizer.
    """
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= state_dict.keys():
        has = (
            ", ".join(map(repr, state_dict)) if isinstance(state_dict, Mapping) else type(state_dict).__name__
        )
        raise OptimizerError(
            f"This is no optimizer state: it needs 'state' and 'param_groups', and is {has or 'empty'}. Pass what "
            "`optimizer.state_dict()` gave."
        )
    saved, state = state_dict["param_groups"], state_dict["state"]
    sound = isinstance(saved, (list, tuple)) and all(map(_is_group, saved))
    if not sound or not isinstance(state, Mapping) or not all(isinstance(s, Mapping) for s in state.values()):
        raise OptimizerError(
            "This optimizer state is damaged: 'param_groups' must be a list of dicts with 'params', and 'state' a "
            "dict of dicts. Pass what `optimizer.state_dict()` gave."
        )
    _require_ours(saved)
    return list(saved), dict(state)


def _is_group(group: object) -> bool:
    if not isinstance(group, dict) or not isinstance(group.get("params"), list):
        return False
    return all(isinstance(key, (int, str)) for key in group["params"])


def _require_ours(saved: Sequence[Mapping[str, Any]]) -> None:
    for theirs in saved:
        if "order" not in theirs or "step" not in theirs or "lr" not in theirs:
            raise OptimizerError(
                "This state was saved by another optimizer: it holds no 'order', no 'step' or no 'lr'."
            )


def _check_lists(theirs: Mapping[str, Any], number: int) -> None:
    for key, kind in (("index", int), ("cycles_missed", int), ("param_names", str)):
        values = theirs.get(key)
        if values is None:
            continue
        is_list = isinstance(values, (list, tuple)) and len(values) == len(theirs["params"])
        distinct = key != "index" or not is_list or len(set(map(repr, values))) == len(values)
        if not is_list or not distinct or any(type(value) is not kind for value in values):
            one = f"{kind.__name__} of its own" if key == "index" else kind.__name__
            raise OptimizerError(
                f"saved param_groups[{number}]: {key} must list one {one} for each of its "
                f"{len(theirs['params'])} parameters. The file is damaged or was edited; load another checkpoint."
            )


def _filled(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    counts = dict.fromkeys(ALIKE, 0)
    here = {key: ours[key] for key in OF_THIS_PROCESS}
    named = {key: ours[key] for key in ("param_names", "index") if key in ours}
    return {**ABSENT_MEANS, **counts, **named, **theirs, **here}


def _check_group(
    theirs: Mapping[str, Any], ours: Mapping[str, Any], first: Mapping[str, Any], number: int
) -> None:
    for key in ("order", "variant", "curvature", "probe", "negative_curvature", "refresh", "blocks"):
        if theirs[key] != ours[key]:
            raise OptimizerError(
                f"param_groups[{number}] was saved with {key}={theirs[key]!r} and has {ours[key]!r} "
                "here; build the optimizer with the same groups and options that it was saved with."
            )
    check_hyperparameters(
        theirs, {**first, "capturable": theirs["capturable"]}, f"saved param_groups[{number}]"
    )
    for key in ALIKE:
        if type(theirs[key]) is not int or theirs[key] < 0 or theirs[key] != first[key]:
            raise OptimizerError(
                f"saved param_groups[{number}]: {key}={theirs[key]!r} must be a whole number ≥ 0, the same in all "
                "groups. The file is damaged or was edited; load another checkpoint."
            )
    latest = max(theirs.get("cycles_missed") or [0])
    if theirs["cycle_start"] > theirs["step"] or not 0 <= latest <= theirs["cycles_before"]:
        raise OptimizerError(
            f"saved param_groups[{number}]: cycle_start, cycles_before and cycles_missed do not fit its step "
            f"{theirs['step']}. The file is damaged or was edited; load another checkpoint."
        )


def _check_state(state: Mapping[Any, Mapping[str, Any]], filled: Groups, groups: Groups) -> None:
    ids = list(chain.from_iterable(group["params"] for group in filled))
    distinct = set(ids)
    unknown = [key for key in state if key not in distinct]
    if unknown or len(distinct) != len(ids):
        raise OptimizerError(
            f"This optimizer state is damaged: its groups list {len(distinct)} parameters in {len(ids)} places, "
            f"and it holds states of {len(unknown)} that are in no group."
        )
    for number, (theirs, ours) in enumerate(zip(filled, groups, strict=True)):
        positive = is_never_negative(theirs)
        for position, (key, parameter) in enumerate(zip(theirs["params"], ours["params"], strict=True)):
            name = parameter_name(ours, number, position)
            for buffer in _BUFFERS:
                _check_buffer(state.get(key, {}).get(buffer), parameter, f"{buffer} of parameter {name}")
            _check_mark(state.get(key, {}).get(LACKS_CURVATURE), name)
            average = state.get(key, {}).get("hessian_average")
            if average is not None and positive and bool((_numbers(average) < 0).any()):
                raise OptimizerError(
                    f"The saved hessian_average of parameter {name} has negative numbers, which no average of "
                    "absolute values or squares has. The file is damaged or was edited; load another checkpoint."
                )


def _check_mark(mark: object, name: str) -> None:
    if mark is not None and type(mark) is not bool:
        raise OptimizerError(
            f"The saved {LACKS_CURVATURE} of parameter {name} is {mark!r}; it is True or False. The file is damaged or "
            "was edited; load another checkpoint."
        )


def _check_buffer(buffer: object, parameter: Tensor, what: str) -> None:
    if buffer is None:
        return
    if not isinstance(buffer, Tensor) or _kind(buffer, parameter) != _kind(parameter, parameter):
        is_ = (
            ", ".join(map(str, _kind(buffer, parameter)))
            if isinstance(buffer, Tensor)
            else type(buffer).__name__
        )
        raise OptimizerError(
            f"The saved {what} is {is_}; the parameter is {tuple(parameter.shape)}, {parameter.dtype}. Load a state "
            "that was saved for this model, in its precision."
        )
    if not buffer.is_meta and not bool(torch.isfinite(_numbers(buffer)).all()):
        raise OptimizerError(
            f"The saved {what} is not finite. Training never writes such numbers; load another checkpoint."
        )


def _kind(tensor: Tensor, parameter: Tensor) -> tuple[Any, ...]:
    """Shape and dtype, and what is unusual: a layout, or that there are no numbers where a parameter has some."""
    layout = () if tensor.layout is torch.strided else (tensor.layout,)
    return (
        tuple(tensor.shape),
        tensor.dtype,
        *layout,
        *(("on the meta device",) if tensor.is_meta and not parameter.is_meta else ()),
    )


def _numbers(tensor: Tensor) -> Tensor:
    own: Any = tensor
    local: Tensor = own.to_local() if hasattr(tensor, "to_local") else tensor
    return local.detach()
