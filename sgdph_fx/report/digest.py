"""The report on one screen: counts, equal rows as one, and what is unusual first."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

from sgdph_fx.plan.entries import ConvolutionEntry, Hint, ParameterEntry
from sgdph_fx.plan.plan import Plan
from sgdph_fx.plan.wording import counted, first_few
from sgdph_fx.report.folding import ALONE, ANYWHERE, fold, skeleton, together
from sgdph_fx.report.tables import Document, Table, reason_of
from sgdph_fx.report.terminal import Screen

__all__ = ["digest"]

Entry = TypeVar("Entry")

# Of the lines for tables, hints and parameters get at most so many; convolutions get what is left.
MOST_HINTS = 4
MOST_PARAMETERS = 10
FEWEST = 3
# The title and the names of the columns, and an empty line before them.
AROUND = 3
# An empty line before them, and the shell's prompt after them.
AROUND_NOTES = 2
BY_RULE = "by the rule"


@dataclass(frozen=True, slots=True)
class _Line:
    """One line: how usual it is (0 is least), how many rows it stands for, its cells."""

    rank: int
    number: int
    cells: tuple[str, ...]


def digest(plan: Plan, headline: Sequence[str], screen: Screen) -> Document:
    """The headline and tables of folded rows, on one screen as far as that is possible.

    Args:
        plan: The plan.
        headline: Its counts in words.
        screen: How much is seen at once. Each table has at least a few lines, even if that is more.
    """
    notes = _next(plan)
    # Below it all stands the shell's prompt.
    lines = screen.height - sum(_height(text, screen) for text in (*headline, *notes)) - AROUND_NOTES
    hints, parameters = _hints(plan.hints), [*_parameters(plan.parameters), *_frozen(plan.frozen)]
    hinted = _table("Hints", ("code", "number", "where"), hints, MOST_HINTS)
    treated = _table("Parameters", ("role", "number", "order", "numbers", "of"), parameters, MOST_PARAMETERS)
    taken = sum(len(table.rows) + AROUND for table in (hinted, treated) if table.rows)
    columns = ("name", "number", "verdict", "reason")
    room = max(FEWEST, lines - taken - AROUND)
    folded = _convolutions(plan.convolutions, ALONE)
    if len(folded) > room:
        folded = _convolutions(plan.convolutions, ANYWHERE)
    convolutions = _table("Convolutions", columns, folded, room)
    shown = tuple(table for table in (convolutions, treated, hinted) if table.rows)
    return Document(tuple(headline), shown, notes)


def _height(text: str, screen: Screen) -> int:
    return len(textwrap.wrap(text, screen.width)) if screen.width else 1


def _next(plan: Plan) -> tuple[str, ...]:
    hints = "; docs/messages.md says what to do about hints" if plan.hints else ""
    return (
        "Next: --full or report.show(full=True) for every row; --output DIR or report.to_html() for the model as a "
        f"graph{hints}.",
    )


def _table(title: str, columns: tuple[str, ...], lines: Sequence[_Line], most: int) -> Table:
    """The lines, the least usual first, as far as there is room."""
    ranked = sorted(lines, key=lambda line: line.rank)
    shown = ranked if len(ranked) <= most else ranked[: most - 1]
    cells = [line.cells for line in shown]
    if hidden := ranked[len(shown) :]:
        number = sum(line.number for line in hidden)
        cells.append(("…", f"×{number}", *[""] * (len(columns) - 3), f"{counted(len(hidden), 'line')} more"))
    return Table(title, columns, tuple(cells), sum(line.number for line in lines))


def _grouped(rows: Iterable[Entry], key: Callable[[Entry], Hashable]) -> list[list[Entry]]:
    groups: dict[Hashable, list[Entry]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return [*groups.values()]


def _convolutions(rows: Sequence[ConvolutionEntry], number: re.Pattern[str]) -> list[_Line]:
    def alike(row: ConvolutionEntry) -> Hashable:
        return skeleton(row.name, number), row.verdict, row.decouple, skeleton(reason_of(row), number)

    found = []
    for group in _grouped(rows, alike):
        for pattern in fold([row.name for row in group], number):
            members = [group[place] for place in pattern.places]
            reason = together([reason_of(row) for row in members], number)
            cells = (pattern.text, f"×{len(members)}", _state(members[0]), reason)
            found.append(_Line(_rank(members[0]), len(members), cells))
    return found


def _state(row: ConvolutionEntry) -> str:
    """The verdict, with the treatment where it is not the one that follows from it."""
    if row.decouple == (row.verdict == "bare"):
        return row.verdict
    return f"{row.verdict},{'decoupled' if row.decouple else 'kept'}"


def _rank(row: ConvolutionEntry) -> int:
    return 0 if "," in _state(row) else 1 if row.verdict == "bare" else 2


def _parameters(rows: Sequence[ParameterEntry]) -> list[_Line]:
    return [
        _treated(group) for group in _grouped(rows, lambda row: (row.order, row.role, BY_RULE in row.reason))
    ]


def _treated(rows: Sequence[ParameterEntry]) -> _Line:
    """Parameters of one role and order: whose they are, or why they are treated so, where that is not usual."""
    first = rows[0]
    is_ruled, is_odd = BY_RULE in first.reason, first.role == "other"
    kinds = Counter(reason_of(row) if is_ruled or is_odd else row.module for row in rows)
    named = [f"{kind} ×{number}" if len(kinds) > 1 else kind for kind, number in kinds.most_common()]
    rank = 0 if is_ruled else 1 if is_odd else 4 - first.order
    order = "second-order" if first.order == 2 else "first-order"
    numbers = f"{sum(prod(row.shape) for row in rows):,}"
    return _Line(rank, len(rows), (first.role, f"×{len(rows)}", order, numbers, first_few(named)))


def _frozen(names: Sequence[str]) -> list[_Line]:
    return [_Line(1, len(names), ("frozen", f"×{len(names)}", "", "", first_few(names)))] if names else []


def _hints(hints: Sequence[Hint]) -> list[_Line]:
    found = []
    for group in _grouped(hints, lambda hint: hint.code):
        places = first_few([hint.where for hint in group if hint.where])
        words = f"{places}: {group[0].message}" if places else group[0].message
        found.append(_Line(0, len(group), (group[0].code, f"×{len(group)}", words)))
    return found
