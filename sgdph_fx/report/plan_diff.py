"""What changed between two plans, in words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from sgdph_fx.plan.diff import Change
from sgdph_fx.plan.wording import counted
from sgdph_fx.report import markdown, plain
from sgdph_fx.report.tables import NONE, Document, Table

__all__ = ["as_json", "as_markdown", "as_text"]

VERSION = 1
COLUMNS = ("what", "name", "before", "after", "reason")


def as_text(found: Sequence[Change]) -> str:
    """A line for each change, fit for a terminal and for ``grep``."""
    return plain.plain(_document(found))


def as_markdown(found: Sequence[Change]) -> str:
    """A table for a pull request."""
    return markdown.markdown(_document(found))


def as_json(found: Sequence[Change]) -> str:
    """``version`` and ``changes``, each with the fields of :class:`sgdph_fx.plan.diff.Change`."""
    return json.dumps({"version": VERSION, "changes": [asdict(change) for change in found]}, indent=2) + "\n"


def _document(found: Sequence[Change]) -> Document:
    """The name of the class is told apart: it decides nothing."""
    treated = [change for change in found if change.what != "model"]
    named = tuple(f"Its class was {c.before} and is {c.after}." for c in found if c.what == "model")
    if not treated:
        return Document(("Nothing is treated otherwise.", *named), ())
    rows = tuple(tuple(getattr(change, column) or NONE for column in COLUMNS) for change in treated)
    number = counted(len(treated), "difference")
    return Document((f"{number} in treatment.", *named), (Table("Differences", COLUMNS, rows),))
