"""Plan + scheme → where each parameter goes and why, and the groups that follow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sgdph_fx.errors import ConfigError
from sgdph_fx.plan import known_schemes as known_schemes  # registers them
from sgdph_fx.plan.entries import Option
from sgdph_fx.plan.param_groups import ParamGroup, build_param_groups
from sgdph_fx.plan.plan import Plan
from sgdph_fx.plan.schemes import SCHEMES, Scheme, SchemeContext, scheme_named
from sgdph_fx.plan.typed import is_finite

__all__ = ["Assignment", "assign", "groups_of"]

SGD_PH = "sgd-ph"
_FACTORS = ("lr_scale", "lr_factor")


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where one parameter goes.

    Args:
        name: Its name.
        to: The set of groups, of a scheme for two optimizers; empty for one.
        options: The options of its group.
        reason: Its kind, and why that goes there.
    """

    name: str
    to: str
    options: Mapping[str, Option]
    reason: str


def assign(plan: Plan, scheme: str | Scheme, **hyper: Any) -> tuple[Assignment, ...]:
    """Say for each parameter of a plan where a scheme sends it.

    Args:
        plan: The plan; options that your rules gave a parameter go before the scheme's.
        scheme: The scheme, or its name.
        hyper: Hyper-parameters in place of the scheme's defaults, and ``lr``, the rate that factors multiply.

    Raises:
        ConfigError: for a scheme or a hyper-parameter that does not exist, or a parameter that no row fits.

    Example:
        >>> from sgdph_fx import analyze
        >>> plan = analyze(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))
        >>> [(a.name, a.options["weight_decay"]) for a in assign(plan, "no-decay", weight_decay=0.1)]
        [('0.weight', 0.1), ('0.bias', 0.0), ('2.weight', 0.1), ('2.bias', 0.0)]
    """
    table = scheme_named(scheme)
    unknown = [name for name in hyper if name not in table.hyper and name != "lr"]
    if unknown:
        raise ConfigError(
            f"The scheme {table.name!r} takes no {unknown[0]!r}; it takes "
            f"{', '.join(map(repr, dict.fromkeys([*table.hyper, 'lr'])))}."
        )
    values = {**table.hyper, **hyper}
    layers = max(
        [plan.layers or 1, *(1 + entry.layer for entry in plan.parameters if entry.layer is not None)]
    )
    return tuple(_assigned(table, SchemeContext(entry, values, layers)) for entry in plan.parameters)


def _assigned(table: Scheme, context: SchemeContext) -> Assignment:
    entry = context.entry
    row = next((row for row in table.rows if row.fits(context)), None)
    if row is None:
        raise ConfigError(
            f"No row of the scheme {table.name!r} fits {entry.name}, of the kind {entry.kind!r}; end its table with a "
            "row for all kinds."
        )
    given = {name: value(context) if callable(value) else value for name, value in row.options.items()}
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    options |= entry.options
    what = entry.kind + (f", {entry.place} layer" if entry.place else "")
    return Assignment(
        entry.name, row.to, _with_rate(options, context.hyper), f"{what}: {row.why or 'any other'}"
    )


def _with_rate(options: Mapping[str, Option], hyper: Mapping[str, Any]) -> dict[str, Option]:
    """The options with the rate, times the factors if there are any.

    Raises:
        ConfigError: if the rate or a factor is no number.
    """
    rate = options.get("lr", hyper.get("lr"))
    factors = [(name, options[name]) for name in _FACTORS if name in options]
    if rate is None:
        return {**options}
    if factors:
        rate = math.prod(_number(name, value) for name, value in (("lr", rate), *factors))
    return {**options, "lr": rate}


def _number(name: str, value: Any) -> float:
    if not is_finite(value):
        raise ConfigError(f"{name}={value!r} is no number, and here rates are multiplied. Pass a number.")
    return float(value)


def groups_of(
    plan: Plan, model: nn.Module, scheme: str | Scheme, hyper: Mapping[str, Any]
) -> list[ParamGroup] | dict[str, list[ParamGroup]]:
    """The groups of a model under a scheme.

    Args:
        plan: The plan of the model.
        model: The model that the plan was applied to, or, without rewriting, made for.
        scheme: ``"sgd-ph"``, another scheme's name, or a scheme.
        hyper: The scheme's hyper-parameters.

    Returns:
        A list of groups, or for a scheme with named sets one list by each name.

    Raises:
        ConfigError: as :func:`assign`.
    """
    if scheme == SGD_PH:
        if set(hyper) - {"lr"}:
            raise ConfigError(
                f"The scheme 'sgd-ph' takes no {min(set(hyper) - {'lr'})!r}; SGDPH takes its hyper-parameters itself."
            )
        groups = build_param_groups(plan, model)
        return [{**group, **_with_rate(_factors(group), hyper)} for group in groups] if hyper else groups
    if isinstance(scheme, str) and scheme not in SCHEMES:
        raise ConfigError(
            f"There is no scheme {scheme!r}; choose one of {', '.join(map(repr, [SGD_PH, *SCHEMES]))}."
        )
    table = scheme_named(scheme)
    sets = dict.fromkeys(row.to for row in table.rows)  # also one that gets nothing
    return _grouped(assign(plan, table, **hyper), sets, model)


def _factors(group: ParamGroup) -> dict[str, Option]:
    return {name: group[name] for name in ("lr", *_FACTORS) if name in group}


def _grouped(
    assignments: Sequence[Assignment], sets: Iterable[str], model: nn.Module
) -> list[ParamGroup] | dict[str, list[ParamGroup]]:
    named = dict(model.named_parameters())
    found: dict[str, dict[tuple[tuple[str, Option], ...], ParamGroup]] = {name: {} for name in sets}
    for place, assignment in enumerate(assignments):
        key = tuple(assignment.options.items())
        groups = found[assignment.to]
        group = groups.get(key)
        if group is None:
            group = groups[key] = _empty(assignment, dict(key))
        group["params"].append(named[assignment.name])
        group["param_names"].append(assignment.name)
        group["index"].append(place)
    lists = {name: list(groups.values()) for name, groups in found.items()}
    return lists[""] if list(lists) == [""] else lists


def _empty(assignment: Assignment, options: Mapping[str, Option]) -> ParamGroup:
    name = ", ".join([*filter(None, [assignment.to]), *(f"{key}={value}" for key, value in options.items())])
    return {"params": [], "param_names": [], "name": name or "all", "index": [], **options}
