"""The tables of a report as plain strings, for every format alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sgdph_fx.plan.entries import ConvolutionEntry, ParameterEntry
from sgdph_fx.plan.plan import Plan

__all__ = ["NONE", "Document", "Table", "tables"]

NONE = "-"


@dataclass(frozen=True, slots=True)
class Table:
    """One table; the last column holds sentences, all others single words without spaces."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Document:
    """What a report shows in whatever format: sentences, then tables.

    Args:
        headline: The sentences.
        tables: The tables.
        whole: The call that shows all rows, for where long tables are cut.
    """

    headline: tuple[str, ...]
    tables: tuple[Table, ...]
    whole: str = "report.to_html()"


def tables(plan: Plan) -> tuple[Table, ...]:
    """The tables that have a row: convolutions, parameters of either order, hints, frozen parameters."""
    first_order = (p for p in plan.parameters if p.order == 1)
    candidates = (
        _convolutions(plan.convolutions),
        _parameters("Parameters with Hessian treatment", plan.second_order),
        _parameters("Parameters with SGD and momentum", first_order),
        Table("Hints", ("code", "where", "message"), tuple((h.code, h.where, h.message) for h in plan.hints)),
        Table("Frozen parameters, in no group", ("name",), tuple((name,) for name in plan.frozen)),
    )
    return tuple(_one_line_cells(table) for table in candidates if table.rows)


def _convolutions(convolutions: Iterable[ConvolutionEntry]) -> Table:
    columns = ("name", "kind", "verdict", "treatment", "norm", "reason")
    return Table("Convolutions", columns, tuple(_convolution(c) for c in convolutions))


def _convolution(row: ConvolutionEntry) -> tuple[str, ...]:
    treatment = "decoupled" if row.decouple else "kept"
    reason = f"{row.reason} ({row.source})" if row.source else row.reason
    return (row.name, row.kind, row.verdict, treatment, row.norm or NONE, reason)


def _parameters(title: str, parameters: Iterable[ParameterEntry]) -> Table:
    columns = ("name", "shape", "order", "role", "module", "reason")
    rows = tuple((p.name, _shape(p.shape), str(p.order), p.role, p.module, p.reason) for p in parameters)
    return Table(title, columns, rows)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _one_line_cells(table: Table) -> Table:
    rows = tuple(tuple(" ".join(cell.split()) or NONE for cell in row) for row in table.rows)
    return Table(table.title, table.columns, rows)
