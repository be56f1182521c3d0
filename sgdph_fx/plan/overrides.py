"""A person's rules for single names, applied to the rows of a plan."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TypeVar

from sgdph_fx.errors import ConfigError
from sgdph_fx.plan.entries import Action, ConvolutionEntry, ParameterEntry

__all__ = ["override_convolutions", "override_parameters"]

_Row = TypeVar("_Row")


def override_convolutions(
    rows: Sequence[ConvolutionEntry], rules: Mapping[str, Action], obstacles: Mapping[str, str]
) -> tuple[ConvolutionEntry, ...]:
    """Apply the rules ``keep`` and ``decouple``.

    Convolutions that share a weight are overridden together: a rule for one of them holds for all.

    Raises:
        ConfigError: if a rule matches no convolution; the message names the nearest.
    """
    chosen = {pattern: action for pattern, action in rules.items() if action in ("keep", "decouple")}
    matched = _last_match(rows, chosen, lambda row: (row.name, row.weight), "convolution")
    by_weight = {row.weight: matched[place] for place, row in enumerate(rows) if place in matched}
    return tuple(
        _convolution(row, *by_weight[row.weight]) if row.weight in by_weight else row for row in rows
    )


def override_parameters(
    rows: Sequence[ParameterEntry], rules: Mapping[str, Action]
) -> tuple[ParameterEntry, ...]:
    """Apply the rules ``first-order`` and ``second-order``; a module's name stands for all its parameters.

    Raises:
        ConfigError: if a rule matches no trainable parameter; the message names the nearest.
    """
    chosen = {
        pattern: action for pattern, action in rules.items() if action in ("first-order", "second-order")
    }
    matched = _last_match(rows, chosen, lambda row: _with_parents(row.name), "trainable parameter")
    return tuple(
        _parameter(row, *matched[place]) if place in matched else row for place, row in enumerate(rows)
    )


def _convolution(row: ConvolutionEntry, pattern: str, action: Action) -> ConvolutionEntry:
    done = "left as it is" if action == "keep" else "decoupled"
    return replace(row, decouple=action == "decouple", reason=f"{row.reason}; {done} by the rule {pattern!r}")


def _parameter(row: ParameterEntry, pattern: str, action: Action) -> ParameterEntry:
    return replace(
        row, order=1 if action == "first-order" else 2, reason=f"{action}: by the rule {pattern!r}"
    )


def _with_parents(name: str) -> tuple[str, ...]:
    parts = name.split(".")
    return tuple(".".join(parts[:n]) for n in range(1, len(parts) + 1))


def _last_match(
    rows: Sequence[_Row],
    rules: Mapping[str, Action],
    names: Callable[[_Row], Sequence[str]],
    what: str,
) -> dict[int, tuple[str, Action]]:
    matched: dict[int, tuple[str, Action]] = {}
    for pattern, action in rules.items():
        hits = [n for n, row in enumerate(rows) if any(fnmatchcase(name, pattern) for name in names(row))]
        if not hits:
            raise ConfigError(
                _no_match(pattern, action, sorted({n for row in rows for n in names(row)}), what)
            )
        matched.update(dict.fromkeys(hits, (pattern, action)))
    return matched


def _no_match(pattern: str, action: Action, names: Sequence[str], what: str) -> str:
    nearest = difflib.get_close_matches(pattern, names, n=1, cutoff=0)
    instead = f"the nearest name is {nearest[0]!r}" if nearest else f"the model has no {what} at all"
    return f"The rule {pattern!r}: {action!r} matches no {what} of the model; {instead}."
