"""What a rule names: a name or a glob, ``re:`` and a regular expression, ``type:`` and a class, ``role:`` and a role.

A module stands for all that lies in it, so that each of these matches a parameter or a convolution by its own name or
by that of a module around it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import get_args

from sgdph_fx.errors import ConfigError
from sgdph_fx.plan.entries import Role

__all__ = ["Candidate", "Selector", "selector_of", "with_parents"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a rule may match.

    Args:
        names: The names that it goes by.
        role: The role of a parameter; empty for a convolution.
        kind: The finer kind of a parameter; empty for a convolution.
    """

    names: tuple[str, ...]
    role: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Selector:
    """A pattern that has been read.

    Args:
        pattern: As you wrote it.
        matches: Whether it matches a candidate, given the class names of each module, by path.
    """

    pattern: str
    matches: Callable[[Candidate, Mapping[str, Sequence[str]]], bool]


def selector_of(pattern: str) -> Selector:
    """Read a pattern.

    Raises:
        ConfigError: for a regular expression that cannot be read, or a role that does not exist.

    >>> selector_of("re:layer[34]").matches(Candidate(("layer3.0.weight",)), {})
    True
    """
    if not isinstance(pattern, str) or not pattern:
        raise ConfigError(
            f"The rule {pattern!r} names nothing; write a name, a glob, re:, type:, role: or kind:."
        )
    prefix, colon, rest = pattern.partition(":")
    if colon and prefix in _READERS:
        return Selector(pattern, _READERS[prefix](rest, pattern))
    # A name may hold a bracket, which a glob would read.
    return Selector(pattern, _by_name(lambda name: name == pattern or fnmatchcase(name, pattern)))


Matcher = Callable[[Candidate, Mapping[str, Sequence[str]]], bool]


def _by_name(fits: Callable[[str], bool]) -> Matcher:
    return lambda candidate, types: any(fits(name) for name in _names_and_parents(candidate))


def _regex(text: str, pattern: str) -> Matcher:
    try:
        compiled = re.compile(text)
    except re.error as error:
        raise ConfigError(f"The rule {pattern!r} is no regular expression: {error}.") from error
    return _by_name(lambda name: compiled.fullmatch(name) is not None)


def _type(text: str, pattern: str) -> Matcher:
    def matches(candidate: Candidate, types: Mapping[str, Sequence[str]]) -> bool:
        paths = ("", *_names_and_parents(candidate))
        return any(fnmatchcase(kind, text) for path in paths for kind in types.get(path, ()))

    return matches


def _role(text: str, pattern: str) -> Matcher:
    if text not in get_args(Role):
        raise ConfigError(
            f"The rule {pattern!r} names no role; choose one of {', '.join(map(repr, get_args(Role)))}."
        )
    return lambda candidate, types: candidate.role == text


def _kind(text: str, pattern: str) -> Matcher:
    return lambda candidate, types: bool(candidate.kind) and fnmatchcase(candidate.kind, text)


_READERS: Mapping[str, Callable[[str, str], Matcher]] = {
    "re": _regex,
    "type": _type,
    "role": _role,
    "kind": _kind,
}


def _names_and_parents(candidate: Candidate) -> Iterable[str]:
    return dict.fromkeys(path for name in candidate.names for path in with_parents(name))


def with_parents(name: str) -> tuple[str, ...]:
    """A dotted name after those of all modules around it; the model itself, which has none, is left out.

    >>> with_parents("layer4.0.weight")
    ('layer4', 'layer4.0', 'layer4.0.weight')
    """
    parts = name.split(".")
    return tuple(".".join(parts[:count]) for count in range(1, len(parts) + 1))
