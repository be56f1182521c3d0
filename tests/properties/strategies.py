"""Draws programs, step by step, with the help of their books."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

from tests.properties.ledger import Ledger
from tests.properties.operation import Operation
from tests.properties.operations import OPERATIONS
from tests.properties.program import Program, Step

__all__ = ["networks"]

_GROUPED = ("grouped", "transposed grouped", "functional grouped", "functional transposed")
_HALVED = ("chunk", "split", "slice")
_USES_A_WEIGHT = ("shared", "by weight")
# Kinds as often as they are to be drawn: what keeps channels apart makes the long paths.
_KINDS = ("conv", "same", "norm", "shape", "conv", "same", "pool", "conv", "same", "mix", "mean")
MOST_FEATURES = 64


@st.composite
def networks(draw: st.DrawFn, longest: int = 12) -> Program:
    """A program of up to ``longest`` steps, the first of them a convolution."""
    ledger = Ledger(draw(st.sampled_from((2, 1, 3))))
    ledger.add(draw(_step(ledger, "conv", 0)))
    for _ in range(draw(st.integers(2, longest)) - 1):
        at = draw(st.sampled_from([*ledger.program().outputs[::-1], *range(len(ledger.values))]))
        ledger.add(draw(_any_step(ledger, at, _KINDS)))
    for at in ledger.program().outputs:
        if ledger.values[at].origins and draw(st.sampled_from((True, True, False))):
            ledger.add(draw(_any_step(ledger, at, ("norm",))))
    return ledger.program()


@st.composite
def _any_step(draw: st.DrawFn, ledger: Ledger, at: int, kinds: tuple[str, ...]) -> Step:
    possible = list(_possible(ledger, at))
    kind = draw(st.sampled_from([k for k in kinds if any(OPERATIONS[n].kind == k for n in possible)]))
    name = draw(st.sampled_from([n for n in possible if OPERATIONS[n].kind == kind]))
    return draw(_step(ledger, name, at))


@st.composite
def _step(draw: st.DrawFn, ledger: Ledger, name: str, at: int) -> Step:
    what, channels = OPERATIONS[name], ledger.values[at].channels
    if name in _USES_A_WEIGHT:
        of = draw(st.sampled_from(list(_with_weight(ledger, name, channels))))
        return Step(name, (at,), channels, ledger.steps[of].out, of=of)
    if what.kind == "conv":
        again = [n for n, s in enumerate(ledger.steps) if _is_the_same(s, name, channels)]
        if again and draw(st.booleans()):
            of = draw(st.sampled_from(again))
            return Step(name, (at,), channels, ledger.steps[of].out, ledger.steps[of].bias, of)
        out = draw(st.sampled_from((4, 8) if name != "depthwise" else (channels, 2 * channels)))
        return Step(name, (at,), channels, out, draw(st.booleans()))
    if what.operands == 2:
        return Step(name, (at, draw(st.sampled_from(list(_partners(ledger, at))))), channels)
    frozen = what.kind == "norm" and what.make is not None and draw(st.integers(0, 7)) == 7
    return Step(name, (at,), channels, 4 if name == "linear" else 0, frozen=frozen)


def _possible(ledger: Ledger, at: int) -> Iterator[str]:
    """What can be done to a value."""
    value = ledger.values[at]
    for name, what in OPERATIONS.items():
        if value.form not in what.forms or what.only not in (None, ledger.dims):
            continue
        if what.operands == 2 and not any(_partners(ledger, at)):
            continue
        if name in _USES_A_WEIGHT and not any(True for _ in _with_weight(ledger, name, value.channels)):
            continue
        if _divides(name, what, value.channels):
            # Rarely possible, so often drawn where they are.
            rare = what.operands == 2 or name in _USES_A_WEIGHT or what.to in ("map", "seq", "tokens")
            yield from [name] * (4 if rare else 1)


def _divides(name: str, what: Operation, channels: int) -> bool:
    if name in _HALVED:
        return channels % 4 == 0
    if what.kind == "conv" or name == "concatenate":
        return channels <= MOST_FEATURES
    return True


def _partners(ledger: Ledger, at: int) -> Iterator[int]:
    """Values of the same shape as another."""
    value = ledger.values[at]
    for number, other in enumerate(ledger.values):
        if number != at and (other.form, other.channels) == (value.form, value.channels):
            yield number


def _is_the_same(step: Step, name: str, channels: int) -> bool:
    return step.operation == name and step.channels == channels and step.of is None


def _with_weight(ledger: Ledger, name: str, channels: int) -> Iterator[int]:
    kinds = ("conv", "grouped", "transposed", "pointwise") if name == "shared" else ("pointwise",)
    for number, step in enumerate(ledger.steps):
        if step.operation in kinds and step.channels == channels and step.of is None:
            yield number
