"""Which model is meant, as it is typed: a place, a name in it, and arguments."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import click

__all__ = ["COLLECTIONS", "Target", "parse_argument", "parse_target"]

# What may stand before a colon in place of a file or a module.
COLLECTIONS = ("timm", "torchvision", "hf")
SYNTAX = re.compile(r"(?P<place>.+?)(:(?P<name>[^:/\\()]+)(?P<call>\(.*\))?)?", re.DOTALL)
OF_COLLECTION = re.compile(
    rf"(?P<place>{'|'.join(COLLECTIONS)}):(?P<name>[^()]+)(?P<call>\(.*\))?", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Target:
    """A model by its place.

    Args:
        text: As it was typed, without arguments.
        place: A file, a module, or one of :data:`COLLECTIONS`.
        name: Its name there; None for the only one.
        positional: Arguments of what makes it.
        keywords: Keyword arguments of what makes it.
    """

    text: str
    place: str
    name: str | None = None
    positional: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_arguments(self) -> bool:
        """Whether any argument was given."""
        return bool(self.positional or self.keywords)


def parse_target(text: str, arguments: Mapping[str, Any]) -> Target:
    """Read ``PLACE``, ``PLACE:NAME`` or ``PLACE:NAME(...)``.

    Args:
        text: What was typed. Arguments inside the parentheses are literals; nothing is evaluated.
        arguments: Further keyword arguments, which win.

    >>> parse_target("zoo.nets:build(32, norm='batch')", {})
    Target(text='zoo.nets:build', place='zoo.nets', name='build', positional=(32,), keywords={'norm': 'batch'})
    """
    match = OF_COLLECTION.fullmatch(text) or SYNTAX.fullmatch(text)
    if match is None:
        return Target(text, "", None, (), arguments)
    positional, keywords = _arguments(match["call"], text) if match["call"] else ((), {})
    plain = f"{match['place']}:{match['name']}" if match["name"] else match["place"]
    return Target(plain, match["place"], match["name"], positional, {**keywords, **arguments})


def _arguments(call: str, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    try:
        tree: Any = ast.parse(f"f{call}", mode="eval").body
        is_one_call = isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name)
        if not is_one_call or any(word.arg is None for word in tree.keywords):
            raise ValueError
        positional = tuple(ast.literal_eval(value) for value in tree.args)
        return positional, {str(word.arg): ast.literal_eval(word.value) for word in tree.keywords}
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise click.UsageError(
            f"The arguments in {text!r} cannot be read: write literals, as in build(width=32, norm='batch')."
        ) from error


def parse_argument(text: str) -> tuple[str, Any]:
    """Read ``NAME=VALUE``: a Python literal, or else the text itself.

    >>> parse_argument("sizes=[1, 2]"), parse_argument("norm=batch")
    (('sizes', [1, 2]), ('norm', 'batch'))
    """
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise click.BadParameter(f"{text!r} is no argument; write NAME=VALUE, as in num_classes=10.")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return name, value
