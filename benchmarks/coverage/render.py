"""Write the rows as the page docs/coverage.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from statistics import median

from benchmarks.coverage.row import Reading, Row

__all__ = ["page"]

_PREFACE = """\
# Coverage

Which models does it work on? Every model below was built with random weights, then read, prepared and restored. [A row
for each](#every-model) comes last; search it for your model's name. Where [verdict and oracle
differ](#where-the-verdict-and-the-oracle-differ-or-the-oracle-cannot-tell) stands before it. These commands write the
page:

    python -m benchmarks.coverage --zoo all --oracle 4 --out coverage.jsonl
    python -m benchmarks.coverage --render coverage.jsonl > docs/coverage.md

Each model ran in its own process, on small inputs of batch 2, on one CPU thread. The rows and columns mean:

- *Read*: traced symbolically without inputs, or by recording a run with inputs.
- *Equal*: after `prepare`, and after `restore`, the outputs in evaluation mode are the same as before, to a relative
  1e-5, and so is the `state_dict`.
- *Groups*: every trainable parameter is in exactly one parameter group.
- *Seen*: the convolution calls that the trace of a training run shows, out of those that the same run dispatches.
  Fixed kernels are left out. A scripted submodule would hide some calls.
- *Oracle*: for random convolutions, the verdict under the policy `absorbing` is compared with what scaling the filters
  really does, in float64. *Cautious* counts convolutions called bare although a gain is absorbed: decoupling them
  neither helps nor harms. *Unsound* would be the opposite mistake.

The times in the last columns are rough: the machine did other work meanwhile. `python -m benchmarks.analyze`
measures them as ratios in one run.
"""

_SUMMARY: tuple[tuple[str, Callable[[Sequence[Row]], str]], ...] = (
    ("models", lambda rows: str(len(rows))),
    ("read with inputs", lambda rows: _count(rows, lambda r: r.recorded is not None)),
    ("read without", lambda rows: _count(rows, lambda r: r.symbolic is not None)),
    ("plain fx traces", lambda rows: _count(rows, lambda r: r.fx_seconds is not None)),
    ("both ways agree", lambda rows: _both(rows)),
    ("prepared", lambda rows: _count(rows, lambda r: r.prepared is not None)),
    ("restored", lambda rows: _count(rows, lambda r: r.restored is not None)),
    ("equal", lambda rows: _count(rows, lambda r: r.equal and not r.state)),
    ("groups", lambda rows: _count(rows, lambda r: r.groups == ())),
    ("all seen", lambda rows: _count(rows, _all_seen)),
    ("without a problem", lambda rows: _count(rows, lambda r: not r.problems)),
    ("analyze ÷ fx, median", lambda rows: _median(rows, _against_fx)),
    ("analyze ÷ forward, median", lambda rows: _median(rows, _against_forward)),
    ("oracle asked", lambda rows: str(sum(r.oracle.asked for r in rows if r.oracle))),
    ("unsound", lambda rows: str(sum(len(r.oracle.unsound) for r in rows if r.oracle))),
    ("cautious", lambda rows: str(sum(len(r.oracle.cautious) for r in rows if r.oracle))),
    ("untellable", lambda rows: str(sum(len(r.oracle.untellable) for r in rows if r.oracle))),
)

_COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("model", lambda r: f"{r.zoo}: {r.model}"),
    ("inputs", lambda r: r.inputs or "–"),
    ("traced", lambda r: _traced(r)),
    ("bare", lambda r: _of(r, lambda reading: reading.bare)),
    ("normalized", lambda r: _of(r, lambda reading: reading.normalized)),
    ("second-order", lambda r: _of(r, lambda reading: reading.second_order)),
    ("seen", lambda r: "–" if r.convolutions_run is None else f"{r.convolutions_seen}/{r.convolutions_run}"),
    ("equal", lambda r: _equal(r)),
    ("groups", lambda r: "–" if r.groups is None else "no" if r.groups else "yes"),
    ("oracle", lambda r: _oracle(r)),
    ("fx, ms", lambda r: _ms(r.fx_seconds)),
    ("without inputs, ms", lambda r: _ms(r.symbolic.seconds if r.symbolic else None)),
    ("forward, ms", lambda r: _ms(r.forward_seconds)),
    ("with inputs, ms", lambda r: _ms(r.recorded.seconds if r.recorded else None)),
)


def page(rows: Sequence[Row]) -> str:
    """Write the page: a summary by zoo, problems, where the oracle disagrees, and the whole table.

    Args:
        rows: One row for each model.
    """
    rows = sorted(rows, key=lambda row: (not row.problems, row.zoo, row.model))
    return "\n".join(
        [_PREFACE, *_summary(rows), "", *_problems(rows), *_differences(rows), *_table(rows), ""]
    )


def _summary(rows: Sequence[Row]) -> Iterator[str]:
    zoos = {zoo: [row for row in rows if row.zoo == zoo] for zoo in sorted({row.zoo for row in rows})}
    groups = {**zoos, "all": list(rows)}
    yield _line(["", *groups])
    yield _line(["---", *["---:"] * len(groups)])
    for title, summarize in _SUMMARY:
        yield _line([title, *map(summarize, groups.values())])


def _problems(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Problems\n"
    bad = [row for row in rows if row.problems]
    yield from (f"- **{row.zoo}: {row.model}**: {_plain('; '.join(row.problems))}" for row in bad)
    yield "" if bad else "None.\n"


def _differences(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Where the verdict and the oracle differ, or the oracle cannot tell\n"
    found = [
        f"- {row.zoo}: {row.model}, {kind}, {_plain(text)}"
        for row in rows
        if row.oracle
        for kind in ("unsound", "cautious", "untellable")
        for text in getattr(row.oracle, kind)
    ]
    yield from found
    yield "" if found else "Nowhere.\n"


def _table(rows: Sequence[Row]) -> Iterator[str]:
    yield "## Every model\n"
    yield _line([title for title, _ in _COLUMNS])
    yield _line(["---"] * 3 + ["---:"] * (len(_COLUMNS) - 3))
    for row in rows:
        yield _line([cell(row) for _, cell in _COLUMNS])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _count(rows: Sequence[Row], holds: Callable[[Row], bool]) -> str:
    return str(sum(map(holds, rows)))


def _both(rows: Sequence[Row]) -> str:
    compared = [row for row in rows if row.differences is not None]
    return f"{sum(not row.differences for row in compared)} of {len(compared)}"


def _median(rows: Sequence[Row], ratio: Callable[[Row], float | None]) -> str:
    known = [r for row in rows if (r := ratio(row)) is not None]
    return f"{median(known):.2f}" if known else "–"


def _against_fx(row: Row) -> float | None:
    return row.symbolic.seconds / row.fx_seconds if row.symbolic and row.fx_seconds else None


def _against_forward(row: Row) -> float | None:
    return row.recorded.seconds / row.forward_seconds if row.recorded and row.forward_seconds else None


def _all_seen(row: Row) -> bool:
    return row.convolutions_run is not None and row.convolutions_run == row.convolutions_seen


def _traced(row: Row) -> str:
    ways = {"symbolic": row.symbolic, "recorded": row.recorded}
    return " + ".join(way for way, reading in ways.items() if reading) or "none"


def _equal(row: Row) -> str:
    if row.restored is None:
        return "–"
    return ("yes" if row.equal and not row.state else "no") + (" (silent)" if row.silent else "")


def _of(row: Row, count: Callable[[Reading], int]) -> str:
    reading = row.recorded or row.symbolic
    return str(count(reading)) if reading else "–"


def _oracle(row: Row) -> str:
    if row.oracle is None:
        return "–"
    differing = len(row.oracle.unsound) + len(row.oracle.cautious) + len(row.oracle.untellable)
    return f"{row.oracle.asked - differing}/{row.oracle.asked}"


def _ms(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds * 1000:.0f}"
