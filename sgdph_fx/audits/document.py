"""An audit in sentences and tables, for every format alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from statistics import median

from sgdph_fx.audits.entries import AuditRow, Empty, Findings
from sgdph_fx.report.summary import percent
from sgdph_fx.report.tables import NONE, Document, Table

__all__ = ["document"]

COLUMNS = ("name", "role", "shape", "measured", "off-diagonal", "ones", "one-draw", "average", "empty", "why")


TERMS = {
    "measured": "how many numbers of the parameter were looked at, one Hessian-vector product for each",
    "off-diagonal": "norm of the block's part off the diagonal, over that of the diagonal; 0 if the block is diagonal",
    "ones": "error of the probe ones, whose estimate is the row sums, over the norm of the diagonal",
    "one-draw": "the same of one Rademacher draw, as a root mean square over the draws",
    "average": "the same of the average of all draws",
}
EMPTY: Mapping[Empty, str] = {
    "flat": "the loss does not change with the parameter",
    "linear": "the loss changes with it, but its Hessian is zero",
    "shift": "the loss does not bend when all its numbers move alike, so the row sums are zero and the diagonal is not",
    "unused": "the loss does not depend on it",
}


def document(audit: Findings) -> Document:
    """Headline, and one row for each parameter. Shares and errors are relative, ``-`` where nothing is there."""
    table = Table("Second-order parameters", COLUMNS, tuple(map(_row, audit.rows)))
    return Document(tuple(_headline(audit)), (table,), tuple(_terms(audit)), whole="audit.to_markdown()")


def _terms(audit: Findings) -> Iterator[str]:
    """What the columns hold, and what each word in them means."""
    for column, meaning in TERMS.items():
        yield f"{column}: {meaning}."
    for kind in dict.fromkeys(row.empty for row in audit.empty if row.empty is not None):
        yield f"empty, {kind}: {EMPTY[kind]}."


def _headline(audit: Findings) -> Iterator[str]:
    mode = "training" if audit.training else "evaluation"
    yield (
        f"{audit.model}: {len(audit.rows)} of {audit.parameters} second-order parameters audited, in {mode} mode, "
        f"in {audit.dtype}, at a {audit.loss} of {audit.value:.4g}."
    )
    measurable = [row for row in audit.rows if row.off_diagonal is not None]
    if not measurable:
        yield "None of them has a Hessian diagonal to compare with."
        return
    of_ones = _spread((row.ones_error, row.name) for row in measurable)
    one_draw = _spread((row.one_draw_error, row.name) for row in measurable)
    average = _spread((row.rademacher_error, row.name) for row in measurable)
    yield (
        "Off-diagonal part over the diagonal: "
        f"{_spread((row.off_diagonal, row.name) for row in measurable)}; the paper's (2) says 0."
    )
    yield f"Error of the probe ones, which returns row sums: {of_ones}."
    yield f"Error of one Rademacher draw: {one_draw}; of the average of {audit.draws}: {average}."
    yield from _emptiness(audit)


def _emptiness(audit: Findings) -> Iterator[str]:
    if not audit.empty:
        yield "There is no parameter on which ones finds nothing."
        return
    kinds = [row.empty for row in audit.empty]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    yield f"Parameters on which ones finds nothing: {len(kinds)} ({counts})."


def _spread(numbers: Iterable[tuple[float | None, str]]) -> str:
    known = [(number, name) for number, name in numbers if number is not None]
    middle = median(number for number, _ in known)
    most, name = max(known)
    return f"median {_percent(middle)}, most {_percent(most)} ({name})"


def _row(row: AuditRow) -> tuple[str, ...]:
    errors = (row.off_diagonal, row.ones_error, row.one_draw_error, row.rademacher_error)
    shape = "x".join(map(str, row.shape)) or "scalar"
    return (
        row.name,
        row.role,
        shape,
        str(len(row.channels)),
        *map(_percent, errors),
        row.empty or NONE,
        row.reason or NONE,
    )


def _percent(share: float | None) -> str:
    """As the report writes shares, and 0% for what is nothing but rounding."""
    if share is None:
        return NONE
    return percent(share) if share >= 1e-5 else "0%"
