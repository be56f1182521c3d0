"""The books on a program: what becomes of each convolution's channels, and the verdicts that follow.

Each value carries, for each convolution whose output still flows in it, a tensor of its own shape that says which
of the convolution's channels each number belongs to (-1: none). Operations that move numbers are run on these
labels, and a norm keeps statistics of each channel by itself where no statistic is taken over two labels.

Where the library is cautious, so are the books: of a concatenation that is cut into parts, each part counts as a use
of every operand, though it may hold no channel of some. Without shapes nobody can tell which.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import torch
from torch import Tensor

from tests.properties.operations import Form, Statistics
from tests.properties.program import CHANNELS, SPATIAL, Program, Step

__all__ = ["Ledger", "Value"]

# From here on, labels of channels that a part of a concatenation is taken to hold, but does not.
_IMAGINED = 1000


@dataclass(frozen=True)
class Origin:
    """How a convolution's output stands in a value.

    Args:
        labels: ``(1, ...)``, of the value's shape for a batch of one.
        path: The values passed on the way here, this one last.
        shape_only: Whether only shapes were changed on the way.
        hidden: Whether something on the way can be placed only by who knows the shapes.
    """

    labels: Tensor
    path: tuple[int, ...]
    shape_only: bool = True
    hidden: bool = False


@dataclass(frozen=True)
class Value:
    """A tensor of the network: its form, its channels (or features), and whose output it still is."""

    form: Form
    channels: int
    origins: dict[int, Origin]


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
        sizes = [_shape(v, self.dims) for v in operands]
        calls = {call for value in operands for call in value.origins}
        moved: dict[int, tuple[Tensor, ...]] = {}
        for call in calls:
            labels = [
                v.origins[call].labels if call in v.origins else torch.full(s, -1)
                for v, s in zip(operands, sizes, strict=True)
            ]
            if _combines(step, labels[0], self.dims):
                self.endings[call].append(Ending(operands[0].origins[call], norm=False))
            else:
                moved[call] = _moved(step, labels, self.dims)
        shapes = _moved(step, [torch.zeros(s) for s in sizes], self.dims)
        for position, shape in enumerate(shapes):
            number = len(self.values)
            origins = {}
            for call, results in moved.items():
                before = [v.origins[call] for v in operands if call in v.origins]
                origins[call] = Origin(
                    _imagined(results[position]),
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
                len(set(g)) == 1 for g in _groups(origin.labels, statistics, value, self.dims)
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
        calls = {c for c, o in origins if bool(((o.labels >= 0) & (o.labels < _IMAGINED)).any())}
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


def _shape(value: Value, dims: int) -> tuple[int, ...]:
    space = SPATIAL[dims]
    length = torch.Size(space).numel()
    return {
        "map": (1, value.channels, *space),
        "last": (1, *space, value.channels),
        "seq": (1, value.channels, length),
        "tokens": (1, length, value.channels),
        "flat": (1, value.channels),
    }[value.form]


def _combines(step: Step, labels: Tensor, dims: int) -> bool:
    """Whether a pooling or a mean goes over different channels."""
    if step.what.kind == "pool":
        over = list(range(labels.dim() - (step.what.dims or dims), labels.dim()))
    elif step.what.kind == "mean":
        over = [step.what.dims] if step.what.dims else list(range(2, labels.dim()))
    else:
        return False
    return not torch.equal(labels.amax(over), labels.amin(over))


def _moved(step: Step, labels: list[Tensor], dims: int) -> tuple[Tensor, ...]:
    if step.what.kind == "mean":
        over = [step.what.dims] if step.what.dims else list(range(2, labels[0].dim()))
        return (labels[0].amax(over),)
    if step.what.kind == "shape" or step.what.results > 1 or step.what.operands > 1:
        module = torch.nn.ChannelShuffle(2) if step.operation == "shuffle" else torch.nn.Identity()
        result = step.what.run(SimpleNamespace(dims=dims), module, *labels)
        return tuple(result) if step.what.results > 1 else (result,)
    return (labels[0],)


def _imagined(labels: Tensor) -> Tensor:
    """``labels``, or where the channels would be, had the part of a concatenation been one of theirs."""
    if bool((labels >= 0).any()):
        return labels
    channels = torch.arange(labels.shape[1]) + _IMAGINED
    return channels.view(-1, *[1] * (labels.dim() - 2)).expand_as(labels)


def _groups(labels: Tensor, statistics: Statistics, value: Value, dims: int) -> Iterator[list[int]]:
    """The labels that each statistic is taken over."""
    if statistics == "dimension 1":
        groups = labels.transpose(0, 1).flatten(1)
    elif statistics == "halves":
        groups = labels.reshape(2, -1)
    elif statistics == "all last":
        groups = labels.reshape(1, -1)
    else:
        normalized = dims if value.form == "map" else 1
        groups = labels.flatten(0, -normalized - 1).flatten(1)
    yield from groups.tolist()
