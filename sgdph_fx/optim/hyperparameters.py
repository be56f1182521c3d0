"""The numbers and choices of a parameter group: which values mean something, and what old states leave out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

from torch import Tensor

from sgdph_fx.errors import OptimizerError
from sgdph_fx.optim.hessian.estimators import (
    AFFINE,
    BLOCKS,
    CURVATURES,
    ESTIMATORS,
    GAUSS_NEWTON,
    GRADIENT,
    NEGATIVE,
    REFRESHES,
)
from sgdph_fx.optim.variants import VARIANTS
from sgdph_fx.optim.wording import listed

__all__ = ["ABSENT_MEANS", "COMMON", "check_hyperparameters"]

_NON_NEGATIVE = ("lr", "second_order_lr", "weight_decay")
_SYMBOLS = {"lr": "τ", "second_order_lr": "τ_SO", "momentum": "β", "hessian_momentum": "α", "eps": "ε"} | {
    "weight_decay": "η"
}
_FALLBACKS = ("first-order", "gradient", "raise")
_CHOICES: Mapping[str, tuple[object, ...]] = {
    "maximize": (True, False),
    "foreach": (True, False, None),
    "capturable": (True, False),
}

COMMON: Mapping[str, str] = {
    "variant": "It decides how all groups share one Hessian cycle",
    "hessian_interval": "It decides how all groups share one Hessian cycle",
    "capturable": "It decides how the whole step is counted",
    "refresh": "It decides how all groups share one Hessian cycle",
    "curvature": "It decides which matrix all averages are of",
    "blocks": "Scale and shift of the same channels may be in two groups",
}
"""Options that all groups share, and why."""

ABSENT_MEANS: Mapping[str, Any] = {
    "variant": "authors",
    "curvature": "hessian",
    "probe": "ones",
    "negative_curvature": "absolute",
    "refresh": "cycle",
    "blocks": "diagonal",
    "hessian_interval": 1,
    "max_preconditioner": None,
    "seed": 0,
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "without_curvature": "gradient",
    "second_order_lr": 1e-3,
    "momentum": 0.9,
    "hessian_momentum": 0.9,
    "weight_decay": 0.0,
    "eps": 1e-4,
}
"""What it means if a saved group has no such key: the defaults of :class:`sgdph_fx.SGDPH`."""


def check_hyperparameters(values: Mapping[str, Any], common: Mapping[str, Any], where: str) -> None:
    """Refuse numbers under which the algorithm means nothing.

    Args:
        values: The hyper-parameters of one group.
        common: What all groups must share.
        where: The group's name in messages.

    Raises:
        OptimizerError: naming the hyper-parameter, its value, and the range.
    """
    _check_names(values, common)
    _check_combination(values, where)
    for key, why in COMMON.items():
        if values[key] != common[key]:
            raise OptimizerError(
                f"{where} asks for {key}={values[key]!r}, the optimizer is of {key} {common[key]!r}. {why}: "
                "pass it to SGDPH, and to no group."
            )
    _check_numbers(values, where)
    for key, allowed in _CHOICES.items():
        expected = f"one of {listed(allowed)}"
        _require(key, values[key], any(values[key] is a for a in allowed), expected, where)
    order = values["order"]
    expected = "1 (momentum steps) or 2 (Newton-type)"
    _require("order", order, type(order) is int and order in (1, 2), expected, where)


def _check_names(values: Mapping[str, Any], common: Mapping[str, Any]) -> None:
    known: tuple[tuple[str, Any, Iterable[str]], ...] = (
        ("variant", common["variant"], VARIANTS),
        ("curvature", common["curvature"], CURVATURES),
        ("refresh", common["refresh"], REFRESHES),
        ("blocks", common["blocks"], BLOCKS),
        ("negative_curvature", values["negative_curvature"], NEGATIVE),
        ("probe", values["probe"], ESTIMATORS),
        ("without_curvature", values["without_curvature"], _FALLBACKS),
    )
    for key, asked, names in known:
        if not isinstance(asked, str) or asked not in names:
            raise OptimizerError(f"{key}={asked!r} is not known; choose one of {listed(names)}.")


def _check_combination(values: Mapping[str, Any], where: str) -> None:
    curvature, probe, negative = (values[key] for key in ("curvature", "probe", "negative_curvature"))
    if curvature == GAUSS_NEWTON and probe not in CURVATURES[GAUSS_NEWTON]:
        raise OptimizerError(
            f"{where}: probe={probe!r} reads no Gauss-Newton matrix. With curvature={GAUSS_NEWTON!r} choose one of "
            f"{listed(CURVATURES[GAUSS_NEWTON])}, or leave probe out."
        )
    if values["refresh"] == "all" and curvature != GAUSS_NEWTON and probe != GRADIENT:
        raise OptimizerError(
            f"{where}: refresh='all' would take a product of its own for each parameter with curvature={curvature!r} "
            f"and probe={probe!r}. Use it with curvature={GAUSS_NEWTON!r}, where one backward pass serves all, or "
            f"with probe={GRADIENT!r}."
        )
    if values["blocks"] == AFFINE and probe == GRADIENT:
        raise OptimizerError(
            f"{where}: blocks={AFFINE!r} couples scale and shift by a matrix, and probe={GRADIENT!r} takes none. "
            "Choose another probe, or leave blocks out."
        )
    if negative != "absolute" and (curvature == GAUSS_NEWTON or probe == GRADIENT):
        what = f"curvature={curvature!r}" if curvature == GAUSS_NEWTON else f"probe={probe!r}"
        raise OptimizerError(
            f"{where}: negative_curvature={negative!r} has nothing to decide, because {what} is never negative. "
            "Leave it out."
        )


def _check_numbers(values: Mapping[str, Any], where: str) -> None:
    for key, least in (("hessian_interval", 1), ("seed", 0)):
        whole = type(values[key]) is int and values[key] >= least
        _require(key, values[key], whole, f"a whole number ≥ {least}", where)
    cap = values["max_preconditioner"]
    _require("max_preconditioner", cap, cap is None or _number(cap) > 0, "a number > 0, or None", where)
    for key in _NON_NEGATIVE:
        _require(key, values[key], _number(values[key], tensor=key == "lr") >= 0, "a number ≥ 0", where)
    _require("eps", values["eps"], _number(values["eps"]) > 0, "a number > 0", where)
    variant = values["variant"]
    for key in ("momentum", "hessian_momentum"):
        excluded = VARIANTS[variant].open_interval_at
        number = _number(values[key])
        expected = f"a number in {'[0, 1)' if excluded == 1 else '(0, 1]'} for variant={variant!r}"
        _require(key, values[key], 0 <= number <= 1 and number != excluded, expected, where)


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
