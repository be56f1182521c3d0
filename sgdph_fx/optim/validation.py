"""What a parameter group may hold; every refusal names the group or parameter, and what it needs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from sgdph_fx.curvature.autograd_graph import leaves
from sgdph_fx.curvature.probes import PROBES
from sgdph_fx.errors import OptimizerError, StaleOptimizerError
from sgdph_fx.optim.variants import VARIANTS

__all__ = [
    "check_group",
    "check_hyperparameters",
    "check_is_group",
    "check_loss",
    "check_reached",
    "check_saved_groups",
    "name_of",
    "parameter_name",
    "refuse_sparse_gradients",
]

_NON_NEGATIVE = ("lr", "second_order_lr", "weight_decay")
_SYMBOLS = {"lr": "τ", "second_order_lr": "τ_SO", "momentum": "β", "hessian_momentum": "α", "eps": "ε"} | {
    "weight_decay": "η"
}


def parameter_name(group: Mapping[str, Any], number: int, position: int) -> str:
    """The parameter's own name where the group has ``param_names``, else its place."""
    names: Sequence[str] | None = group.get("param_names")
    return repr(names[position]) if names else f"param_groups[{number}]['params'][{position}]"


def name_of(parameter: Tensor, groups: Iterable[Mapping[str, Any]]) -> str:
    """As :func:`parameter_name`, of a parameter that is in one of the groups."""
    return next(
        parameter_name(group, number, position)
        for number, group in enumerate(groups)
        for position, candidate in enumerate(group["params"])
        if candidate is parameter
    )


def check_hyperparameters(values: Mapping[str, Any], common: Mapping[str, Any], where: str) -> None:
    """Refuse numbers under which the algorithm means nothing.

    Args:
        values: The hyper-parameters of one group.
        common: What all groups must share.
        where: The group's name in messages.

    Raises:
        OptimizerError: naming the hyper-parameter, its value, and the range.
    """
    variant = common["variant"]
    for key, known in (("variant", VARIANTS), ("probe", PROBES)):
        asked = common[key] if key == "variant" else values[key]
        if not isinstance(asked, str) or asked not in known:
            raise OptimizerError(f"{key}={asked!r} is not known; choose one of {_listed(known)}.")
    for key in ("variant", "hessian_interval"):
        if values[key] != common[key]:
            raise OptimizerError(
                f"{where} asks for {key}={values[key]!r}, the optimizer is of {key} {common[key]!r}. It "
                "decides how all groups share one Hessian cycle: pass it to SGDPH, and to no group."
            )
    for key, least in (("hessian_interval", 1), ("seed", 0)):
        whole = type(values[key]) is int and values[key] >= least
        _require(key, values[key], whole, f"a whole number ≥ {least}", where)
    cap = values["max_preconditioner"]
    _require("max_preconditioner", cap, cap is None or _number(cap) > 0, "a number > 0, or None", where)
    for key in _NON_NEGATIVE:
        _require(key, values[key], _number(values[key], tensor=key == "lr") >= 0, "a number ≥ 0", where)
    _require("eps", values["eps"], _number(values["eps"]) > 0, "a number > 0", where)
    for key in ("momentum", "hessian_momentum"):
        excluded = VARIANTS[variant].open_interval_at
        number = _number(values[key])
        expected = f"a number in {'[0, 1)' if excluded == 1 else '(0, 1]'} for variant={variant!r}"
        _require(key, values[key], 0 <= number <= 1 and number != excluded, expected, where)
    for key, allowed in (("maximize", (True, False)), ("foreach", (True, False, None))):
        _require(
            key, values[key], any(values[key] is a for a in allowed), f"one of {_listed(allowed)}", where
        )
    order = values["order"]
    _require(
        "order", order, type(order) is int and order in (1, 2), "1 (momentum steps) or 2 (Newton-type)", where
    )


def check_is_group(group: object, number: int) -> None:
    """Refuse what is no parameter group at all.

    Raises:
        OptimizerError: saying what it is, or that it lacks ``params``.
    """
    if not isinstance(group, dict):
        raise OptimizerError(
            f"param_groups[{number}] is a {type(group).__name__}; pass either parameters or "
            "dicts with 'params', not both."
        )
    if "params" not in group:
        raise OptimizerError(f"param_groups[{number}] has no 'params'; it has {_listed(group)}.")


def check_group(group: Mapping[str, Any], number: int, earlier: Sequence[Mapping[str, Any]]) -> None:
    """Refuse parameters that cannot be stepped, and an ``index`` that gives no order.

    Raises:
        OptimizerError: naming the parameter or the group.
    """
    for position, parameter in enumerate(group["params"]):
        name = parameter_name(group, number, position)
        if parameter.is_complex():
            raise OptimizerError(
                f"Parameter {name} is complex ({parameter.dtype}); the absolute value of its Hessian is not "
                "defined here. Store it as two real tensors (`torch.view_as_real`)."
            )
        if parameter.layout is not torch.strided:
            raise OptimizerError(
                f"Parameter {name} is sparse ({parameter.layout}); SGDPH steps dense tensors. "
                "Convert it with `.to_dense()`."
            )
    if "index" in group:
        _check_index(group, number, earlier)


def _check_index(group: Mapping[str, Any], number: int, earlier: Sequence[Mapping[str, Any]]) -> None:
    index = group["index"]
    count = len(group["params"])
    where = f"param_groups[{number}]"
    if not isinstance(index, (list, tuple)) or any(type(i) is not int for i in index) or len(index) != count:
        raise OptimizerError(
            f"{where}['index'] is {index!r}; it must list one int for each of the group's {count} "
            "parameters: their places in registration order over the whole model."
        )
    taken = {i for other in earlier if other["order"] == group["order"] for i in other.get("index", ())}
    twice = sorted(i for i in index if i in taken or list(index).count(i) > 1)
    if twice:
        raise OptimizerError(
            f"{where}['index'] gives place {twice[0]} that another parameter of order {group['order']} has; "
            "registration order needs a place of its own for each."
        )


def check_loss(loss: object) -> Tensor:
    """Refuse what has no gradient.

    Raises:
        OptimizerError: saying what was passed instead of one real number with a graph.
    """
    if not isinstance(loss, Tensor):
        raise OptimizerError(
            f"backward() takes the loss as a tensor, but got {type(loss).__name__}; pass it before `.item()`."
        )
    if loss.numel() != 1:
        raise OptimizerError(
            f"backward() takes a loss of one number, but got shape {tuple(loss.shape)}; "
            "reduce it first, with `.mean()` or `.sum()`."
        )
    if loss.is_complex():
        raise OptimizerError(f"backward() takes a real loss, but got {loss.dtype}; take `.real` or `.abs()`.")
    if not loss.requires_grad:
        raise OptimizerError(
            "The loss requires no gradient: it was computed under `torch.no_grad()`, detached on the way, "
            "or from frozen parameters alone."
        )
    return loss


def check_reached(loss: Tensor, groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a loss that no step could change.

    Raises:
        StaleOptimizerError: if the graph of ``loss`` ends in none of the groups' parameters.
    """
    ours = {parameter for group in groups for parameter in group["params"]}
    if not any(leaf in ours for leaf in leaves(loss)):
        raise StaleOptimizerError(
            f"The loss depends on none of the {len(ours)} parameters of this optimizer, so no step could "
            "change it. Most likely it was built before the model was prepared or copied: build it from the "
            "`param_groups` of the model that computes the loss."
        )


def check_saved_groups(saved: Any, groups: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a state that was saved for other groups or another variant, before anything is loaded.

    Raises:
        OptimizerError: naming the first difference.
    """
    for number, (theirs, ours) in enumerate(zip(saved, groups, strict=False)):
        if "order" not in theirs or "step" not in theirs:
            raise OptimizerError(
                "This state was saved by another optimizer: it holds no 'order' and no 'step'."
            )
        for key in ("order", "variant", "probe"):
            if theirs[key] != ours[key]:
                raise OptimizerError(
                    f"param_groups[{number}] was saved with {key}={theirs[key]!r} and has {ours[key]!r} "
                    "here; build the optimizer with the same groups and variant that it was saved with."
                )


def refuse_sparse_gradients(groups: Iterable[Mapping[str, Any]]) -> None:
    """Refuse gradients that momentum cannot be taken of, before any parameter is moved.

    Raises:
        OptimizerError: naming the parameter.
    """
    for number, group in enumerate(groups):
        for position, parameter in enumerate(group["params"]):
            if parameter.grad is not None and parameter.grad.layout is not torch.strided:
                raise OptimizerError(
                    f"The gradient of {parameter_name(group, number, position)} is sparse; SGDPH takes "
                    "dense ones. Build the embedding with `sparse=False`."
                )


def _number(value: object, *, tensor: bool = False) -> float:
    """The value as a float; NaN, which is in no range, for anything that is no finite number."""
    if tensor and isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    if type(value) is bool or not isinstance(value, Real) or not math.isfinite(value):
        return math.nan
    return float(value)


def _require(key: str, value: object, holds: bool, expected: str, where: str) -> None:
    if not holds:
        symbol = f" ({_SYMBOLS[key]})" if key in _SYMBOLS else ""
        raise OptimizerError(f"{where}: {key}={value!r}{symbol} must be {expected}.")


def _listed(values: Iterable[object]) -> str:
    return ", ".join(map(repr, values))
