"""The tables of a report as plain strings, the same for every format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sgdph_fx.errors import printable
from sgdph_fx.plan.entries import ConvolutionEntry, Hint, ParameterEntry
from sgdph_fx.plan.hint_codes import HINTS
from sgdph_fx.plan.plan import Plan

__all__ = ["NONE", "Document", "Table", "reason_of", "shape_of", "tables"]

NONE = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """One table; the last column holds sentences, all others single words without spaces.

    A cell is one line, without anything that a terminal would obey: names come from people's models.

    Args:
        title: What the rows are.
        columns: The names of the columns.
        rows: A cell for each column.
        stands_for: How many rows of a plan these are; as many as there are, unless some are folded into one.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    stands_for: int | None = None

    @property
    def heading(self) -> str:
        """The title with the number of rows."""
        number = len(self.rows) if self.stands_for is None else self.stands_for
        return f"{self.title} ({number:,})"

    def __post_init__(self) -> None:
        """Make every cell one printable line."""
        rows = tuple(tuple(_line(cell) or NONE for cell in row) for row in self.rows)
        object.__setattr__(self, "rows", rows)


@dataclass(frozen=True, slots=True)
class Document:
    """What a report shows in whatever format: sentences, tables, and sentences again.

    Args:
        headline: The sentences.
        tables: The tables.
        notes: What the words in the tables mean, and where to read on.
        whole: The call that shows all rows, for where long tables are cut.
    """

    headline: tuple[str, ...]
    tables: tuple[Table, ...]
    notes: tuple[str, ...] = ()
    whole: str = "report.to_html()"

    def __post_init__(self) -> None:
        """Make every sentence one printable line."""
        object.__setattr__(self, "headline", tuple(map(_line, self.headline)))
        object.__setattr__(self, "notes", tuple(map(_line, self.notes)))


def _line(text: str) -> str:
    return printable(" ".join(text.split()))


def tables(plan: Plan) -> tuple[Table, ...]:
    """The tables that have a row: convolutions, parameters of either order, hints, frozen parameters."""
    first_order = (p for p in plan.parameters if p.order == 1)
    candidates = (
        _convolutions(plan.convolutions),
        _parameters("Parameters with Hessian treatment", plan.second_order),
        _parameters("Parameters with SGD and momentum", first_order),
        Table("Hints", ("code", "where", "message"), tuple((h.code, h.where, h.message) for h in plan.hints)),
        _meanings(plan.hints),
        Table("Frozen parameters, in no group", ("name",), tuple((name,) for name in plan.frozen)),
    )
    return tuple(table for table in candidates if table.rows)


def _convolutions(convolutions: Iterable[ConvolutionEntry]) -> Table:
    columns = ("name", "kind", "verdict", "treatment", "norm", "reason")
    return Table("Convolutions", columns, tuple(_convolution(c) for c in convolutions))


def _convolution(row: ConvolutionEntry) -> tuple[str, ...]:
    treatment = "decoupled" if row.decouple else "kept"
    source = f" ({row.source})" if row.source else ""
    return (row.name, row.kind, row.verdict, treatment, row.norm or NONE, f"{reason_of(row)}{source}")


def _parameters(title: str, parameters: Iterable[ParameterEntry]) -> Table:
    columns = ("name", "shape", "order", "role", "module", "reason")
    rows = tuple(
        (p.name, shape_of(p.shape), str(p.order), p.role, p.module, reason_of(p)) for p in parameters
    )
    return Table(title, columns, rows)


def reason_of(row: ConvolutionEntry | ParameterEntry) -> str:
    """The reason without the word that begins it, which has a column of its own."""
    if isinstance(row, ConvolutionEntry):
        return row.reason.removeprefix(f"{row.verdict}: ")
    return row.reason.removeprefix("first-order: ").removeprefix("second-order: ")


def _meanings(hints: Sequence[Hint]) -> Table:
    codes = dict.fromkeys(hint.code for hint in hints if hint.code in HINTS)
    return Table("What to do about hints", ("code", "meaning"), tuple((code, HINTS[code]) for code in codes))


def shape_of(shape: tuple[int, ...]) -> str:
    """A shape as one word."""
    return "x".join(map(str, shape)) or "scalar"
