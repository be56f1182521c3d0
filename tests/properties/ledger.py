"""The books on a program: what becomes of each convolution's channels, and the verdicts that follow.

Each value carries, for each convolution whose output still flows in it, a tensor of its own shape that says which
of the convolution's channels each number belongs to (-1: none). Operations that move numbers are run on these
labels, and a norm keeps statistics of each channel by itself where no statistic is taken over two labels.

Where the library is cautious, so are the books: of a concatenation that is cut into parts, each part counts as a use
of every operand, though it may hold no channel of some. Without shapes nobody can tell which.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tests.properties.labels import (
    IMAGINED,
    Origin,
    Value,
    combines,
    groups_of,
    imagined,
    moved_labels,
    shape_of,
)
from tests.properties.operation import Form, Statistics
from tests.properties.program import CHANNELS, SPATIAL, Program, Step

__all__ = ["Ledger"]


@dataclass(frozen=True)
class Ending:
    """What a convolution's output meets at last: a norm, and whether it absorbs, or something else."""

    origin: Origin
    norm: bool
    absorbs: bool = False


@dataclass
class Ledger:
    """Keeps the books step by step."""

    dims: int
    steps: list[Step] = field(default_factory=list)
    values: list[Value] = field(default_factory=lambda: [Value("map", CHANNELS, {})])
    endings: defaultdict[int, list[Ending]] = field(default_factory=lambda: defaultdict(list))

    def add(self, step: Step) -> None:
        number, what = len(self.steps), step.what
        self.steps.append(step)
        operands = [self.values[i] for i in step.inputs]
        form = what.to or operands[0].form
        if what.kind == "conv":
            self._end(operands)
            labels = (
                torch.arange(step.out).reshape(1, -1, *[1] * self.dims).expand(1, -1, *SPATIAL[self.dims])
            )
            origin = Origin(labels, (len(self.values),))
            self.values.append(Value("map", step.out, {number: origin}))
        elif what.kind == "norm":
            assert what.statistics is not None
            self._norm(operands[0], what.statistics, hidden=what.hidden and operands[0].channels == 2)
            self.values.append(Value(form, operands[0].channels, {}))
        elif what.kind == "mix":
            self._end(operands)
            channels = step.out or operands[0].channels
            self.values.append(Value(form, channels, {}))
        else:
            self._pass_on(step, operands, form)

    def _pass_on(self, step: Step, operands: list[Value], form: Form) -> None:
        """Operations that leave each number its own, unless they combine different channels."""
        what = step.what
        sizes = [shape_of(v, self.dims) for v in operands]
        calls = {call for value in operands for call in value.origins}
        moved: dict[int, tuple[Tensor, ...]] = {}
        for call in calls:
            labels = [
                v.origins[call].labels if call in v.origins else torch.full(s, -1)
                for v, s in zip(operands, sizes, strict=True)
            ]
            if combines(step, labels[0], self.dims):
                self.endings[call].append(Ending(operands[0].origins[call], norm=False))
            else:
                moved[call] = moved_labels(step, labels, self.dims)
        shapes = moved_labels(step, [torch.zeros(s) for s in sizes], self.dims)
        for position, shape in enumerate(shapes):
            number = len(self.values)
            origins = {}
            for call, results in moved.items():
                before = [v.origins[call] for v in operands if call in v.origins]
                origins[call] = Origin(
                    imagined(results[position]),
                    (*(i for o in before for i in o.path), number),
                    what.kind == "shape" and all(o.shape_only for o in before),
                    what.hidden or any(o.hidden for o in before),
                )
            last = form in ("last", "tokens", "flat")
            self.values.append(Value(form, shape.shape[-1 if last else 1], origins))

    def _norm(self, value: Value, statistics: Statistics, hidden: bool) -> None:
        for call, before in value.origins.items():
            origin = replace(before, hidden=before.hidden or hidden)
            real = statistics != "frozen"
            absorbs = real and all(
                len(set(g)) == 1 for g in groups_of(origin.labels, statistics, value, self.dims)
            )
            self.endings[call].append(Ending(origin, real, absorbs))

    def _end(self, values: list[Value]) -> None:
        for value in values:
            for call, origin in value.origins.items():
                self.endings[call].append(Ending(origin, norm=False))

    @classmethod
    def of(cls, program: Program) -> Ledger:
        """The books on a whole program."""
        ledger = cls(program.dims)
        for step in program.steps:
            ledger.add(step)
        ledger._end([ledger.values[i] for i in program.outputs])
        return ledger

    def program(self) -> Program:
        """The program so far, which returns all that no step has taken."""
        taken = {i for step in self.steps for i in step.inputs}
        outputs = tuple(i for i in range(1, len(self.values)) if i not in taken)
        return Program(self.dims, tuple(self.steps), outputs)

    def calls(self) -> dict[str, list[int]]:
        """The steps that call each convolution, by the name that a plan gives it."""
        names: dict[str, list[int]] = {}
        for number, step in enumerate(self.steps):
            if step.what.kind == "conv":
                own = step.of is None or step.operation == "shared"
                names.setdefault(f"s{number if own else step.of}", []).append(number)
        return names

    def bare(self, policy: str) -> set[str]:
        """Which convolutions are bare; those that share a weight are so together."""
        bare = {n for n, calls in self.calls().items() if not all(self._normalized(c, policy) for c in calls)}
        return {name for name in self.calls() if self.sharing(name) & bare}

    def sharing(self, name: str) -> set[str]:
        """The convolutions with the same weight as ``name``, itself among them."""
        root = {n: self._root(int(n[1:])) for n in self.calls()}
        return {other for other in root if root[other] == root[name]}

    def hidden(self) -> bool:
        """Whether an ending that must be known is one that only shapes can tell."""
        return any(e.norm and e.origin.hidden for endings in self.endings.values() for e in endings)

    def returned(self) -> set[str]:
        """Convolutions whose output, as it is or after what commutes with a gain, the network returns."""
        origins = [o for i in self.program().outputs for o in self.values[i].origins.items()]
        calls = {c for c, o in origins if bool(((o.labels >= 0) & (o.labels < IMAGINED)).any())}
        return {name for name, numbers in self.calls().items() if calls & set(numbers)}

    def _root(self, number: int) -> int:
        of = self.steps[number].of
        return number if of is None else self._root(of)

    def _normalized(self, call: int, policy: str) -> bool:
        endings = self.endings[call]
        if policy == "direct":
            return bool(endings) and all(e.norm and self._is_direct(e.origin) for e in endings)
        return bool(endings) and all(e.absorbs if policy == "absorbing" else e.norm for e in endings)

    def _is_direct(self, origin: Origin) -> bool:
        takers = [i for step in self.steps for i in step.inputs]
        return origin.shape_only and all(takers.count(i) == 1 for i in origin.path)
