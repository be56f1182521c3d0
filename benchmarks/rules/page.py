"""The log as a page: each operation, by whom it is differentiated, and at what price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill

from benchmarks.rules.record import Found, Record
from sgdph_fx.curvature.forward_over_reverse.registry import RULES

__all__ = ["page"]

_HEAD = """# Operations

A Hessian-vector product passes every operation between the due parameter and the loss. Most of them have a rule of
their own. The others *fall back*: torch's double backward differentiates that one operation, which is right and slower.
Where torch has no second derivative either, an operation is *refused*, and the error names it. This page is written by

    python -m benchmarks.rules --out rules.jsonl
    python -m benchmarks.rules --render rules.jsonl > docs/operations.md

Each model has random weights and small inputs, was prepared and ran forward in training mode, and the loss is the sum
of the mean squares of its outputs. The table counts the operations above a second-order parameter, by the name of their
node in autograd's graph; a number in parentheses is torch's number for one of several overloads. *Price* is the time of
a rule, forward and backward, divided by the time of the operation's own backward pass, on one thread of a CPU that also
did other work, on tensors of these models (the median over models). Most of these tensors are small, so Python's
overhead counts: a backward that only moves numbers takes microseconds.
"""


@dataclass(slots=True)
class _Kind:
    """One kind of operation in all models."""

    models: int = 0
    count: int = 0
    own_rule: int = 0
    prices: list[float] | None = None
    refused: str = ""

    def add(self, found: Found) -> None:
        self.models += 1
        self.count += found.count
        self.own_rule += found.own_rule
        self.refused = self.refused or found.refused
        if found.plain:
            self.prices = [*(self.prices or ()), found.seconds / found.plain]

    @property
    def by(self) -> str:
        if self.refused:
            return "refused"
        return "own rule" if self.own_rule == self.count else "falls back" if not self.own_rule else "both"

    @property
    def price(self) -> str:
        return f"{sorted(self.prices)[len(self.prices) // 2]:.1f}" if self.prices else "–"


def page(records: Sequence[Record]) -> str:
    """Write the records as Markdown."""
    kinds: dict[str, _Kind] = {}
    for record in records:
        for name, found in record.operations.items():
            kinds.setdefault(name, _Kind()).add(found)
    used = {_base(name) for name in kinds}
    others = sorted({_base(name) for name in RULES} - used)
    parts = [
        _HEAD,
        _summary(records, kinds),
        _table(kinds),
        "## Rules that none of these models needs\n",
        fill(", ".join(others) + ".", 118) + "\n",
        *_failures(records),
    ]
    return "\n".join(parts)


def _summary(records: Sequence[Record], kinds: dict[str, _Kind]) -> str:
    own = [kind for kind in kinds.values() if kind.by == "own rule"]
    total = sum(kind.count for kind in kinds.values())
    ruled = sum(kind.own_rule for kind in kinds.values())
    read = [record for record in records if not record.failed]
    with_fallback = [r for r in read if any(f.own_rule < f.count for f in r.operations.values())]
    share = f"{100 * len(own) / max(len(kinds), 1):.1f}%"
    return (
        fill(
            f"In {len(read)} models, {len(own)} of {len(kinds)} kinds of operations have a rule of their own "
            f"({share}), and so do {ruled:,} of {total:,} operations ({100 * ruled / max(total, 1):.2f}%). "
            f"{len(read) - len(with_fallback)} models need no fallback.",
            118,
        )
        + "\n"
    )


def _table(kinds: dict[str, _Kind]) -> str:
    ordered = sorted(kinds.items(), key=lambda item: (item[1].by == "own rule", -item[1].models, item[0]))
    rows = [
        f"| {_short(name)} | {kind.by} | {kind.models} | {kind.count:,} | {kind.price} |"
        for name, kind in ordered
    ]
    return "\n".join(
        ["| operation | by | models | operations | price |", "|---|---|---:|---:|---:|", *rows, ""]
    )


def _failures(records: Sequence[Record]) -> list[str]:
    failed = [f"- {record.zoo} {record.model}: {record.failed}" for record in records if record.failed]
    return ["## Models that were not read\n", *failed, ""] if failed else []


def _short(name: str) -> str:
    """Shorten a node's name: torch appends ``Backward`` and an overload's number to the operation's."""
    plain, _, number = name.removeprefix(_GENERATED).partition("Backward")
    return plain if number in ("", "0") else f"{plain} ({number})"


def _base(name: str) -> str:
    return _short(name).partition(" (")[0]


_GENERATED = "torch._library.autograd.GeneratedBackwardFor_"
"""The start of the names of functions that differentiate an operation of another library."""
