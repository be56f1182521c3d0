"""Schemes: which parameters go to which groups, of which optimizer, as small tables over a plan's entries.

A scheme is a sequence of rows; each parameter goes by the first row that fits it. The optimizers stay torch's own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from sgdph_fx.errors import ConfigError
from sgdph_fx.plan.entries import Option, ParameterEntry

__all__ = ["SCHEMES", "Scheme", "SchemeContext", "SchemeRow", "register_scheme", "scheme_named"]


@dataclass(frozen=True, slots=True)
class SchemeContext:
    """What a row's values may depend on.

    Args:
        entry: The parameter's entry.
        hyper: The hyper-parameters, those that you passed over the scheme's defaults.
        layers: How many layers the model has.
    """

    entry: ParameterEntry
    hyper: Mapping[str, Any]
    layers: int


Value = Option | Callable[[SchemeContext], Option]


@dataclass(frozen=True, slots=True)
class SchemeRow:
    """One row of a scheme.

    Args:
        kinds: Globs; the row fits a parameter whose kind fits one of them.
        options: Options of the group, each a value or a function of the :class:`SchemeContext`.
        to: Name of the set that the group belongs to, where the scheme is for two optimizers.
        when: A further condition.
        why: Why, as a clause: it stands behind the parameter's kind in the table of what went where.
    """

    kinds: tuple[str, ...] = ("*",)
    options: Mapping[str, Value] = field(default_factory=dict)
    to: str = ""
    when: Callable[[SchemeContext], bool] | None = None
    why: str = ""

    def fits(self, context: SchemeContext) -> bool:
        """Whether the row is for this parameter."""
        kind = context.entry.kind or "other"
        return any(fnmatchcase(kind, glob) for glob in self.kinds) and (
            self.when is None or self.when(context)
        )


@dataclass(frozen=True, slots=True)
class Scheme:
    """A table that says where each parameter goes.

    Args:
        name: What ``param_groups(..., scheme=name)`` is called with.
        rows: The table. A parameter that no row fits is an error.
        hyper: The hyper-parameters that it takes, with their defaults; None for one that must be given.

    Example:
        >>> biases_faster = Scheme(
        ...     "biases-faster",
        ...     rows=(SchemeRow(("bias",), {"lr": lambda c: 2 * c.hyper["lr"]}), SchemeRow(("*",))),
        ...     hyper={"lr": 0.1},
        ... )
        >>> [row.kinds for row in biases_faster.rows]
        [('bias',), ('*',)]
    """

    name: str
    rows: tuple[SchemeRow, ...]
    hyper: Mapping[str, Any] = field(default_factory=dict)


# By name. What is added here is known to `param_groups`.
SCHEMES: dict[str, Scheme] = {}


def register_scheme(scheme: Scheme) -> None:
    """Make a scheme known by its name.

    Args:
        scheme: The scheme; one of the same name is replaced.

    Raises:
        ConfigError: if it is none, or has no rows.
    """
    if not isinstance(scheme, Scheme) or not scheme.rows:
        raise ConfigError(f"A Scheme with rows is registered; {scheme!r} is none.")
    SCHEMES[scheme.name] = scheme


def scheme_named(scheme: str | Scheme) -> Scheme:
    """The scheme of that name.

    Raises:
        ConfigError: if there is none.
    """
    if isinstance(scheme, Scheme):
        return scheme
    if scheme not in SCHEMES:
        raise ConfigError(f"There is no scheme {scheme!r}; choose one of {', '.join(map(repr, SCHEMES))}.")
    return SCHEMES[scheme]
