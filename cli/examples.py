"""Help whose examples stay as they are written: click fills paragraphs, unless a mark stands before them."""

from __future__ import annotations

import inspect
from typing import Any

import click

__all__ = ["WithExamples", "unfilled_examples"]

# What click takes for "leave this paragraph as it is".
MARK = "\b\n"


class WithExamples(click.Command):
    """A command whose docstring ends in examples, each a line."""

    def __init__(self, name: str | None = None, *, help: str | None = None, **extra: Any) -> None:
        super().__init__(name, help=unfilled_examples(help), **extra)


def unfilled_examples(text: str | None) -> str | None:
    """``text`` with the mark before the examples in it."""
    return text and inspect.cleandoc(text).replace("\n\nExample", f"\n\n{MARK}Example")
