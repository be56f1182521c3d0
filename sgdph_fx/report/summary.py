"""The counts behind a report, and the same counts in words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from sgdph_fx.plan.entries import ParameterEntry
from sgdph_fx.plan.plan import Plan
from sgdph_fx.plan.wording import counted

__all__ = ["Check", "Summary", "facts", "headline", "percent", "summarize"]

WAYS = {
    "symbolic": "traced symbolically, without running it",
    "recorded": "recorded from a real run",
}


@dataclass(frozen=True, slots=True)
class Check:
    """How far the prepared model is from the original, as measured.

    Args:
        what: What was compared with what: ``"outputs before and after"``.
        max_relative_difference: The largest difference found, relative to the size of the original.

    Example:
        >>> Check("outputs in evaluation mode", 3.2e-7).max_relative_difference
        3.2e-07
    """

    what: str
    max_relative_difference: float


@dataclass(frozen=True, slots=True)
class Summary:
    """The counts behind the headline.

    Args:
        convolutions: Number of convolutions.
        bare: How many of them no norm follows.
        decoupled: How many of them are rewritten into direction and gain.
        parameters: Number of trainable parameters (tensors).
        second_order_parameters: How many of them get Hessian treatment; also M, the number of
            steps of one Hessian cycle, as one parameter's Hessian is refreshed at each step.
        numbers: Number of trainable numbers, in all those tensors.
        second_order_numbers: How many of them get Hessian treatment.
        frozen: Number of parameters that require no gradient.

    Example:
        >>> from torch import nn
        >>> from sgdph_fx import analyze
        >>> counts = summarize(analyze(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))))
        >>> counts.numbers, counts.second_order_numbers  # 8·3·3·3 weights, and three times 8
        (240, 24)
    """

    convolutions: int
    bare: int
    decoupled: int
    parameters: int
    second_order_parameters: int
    numbers: int
    second_order_numbers: int
    frozen: int

    @property
    def second_order_share(self) -> float:
        """Which part of all trainable numbers gets Hessian treatment, from 0 to 1."""
        return self.second_order_numbers / self.numbers if self.numbers else 0.0


def summarize(plan: Plan) -> Summary:
    """Count what the plan holds."""
    return Summary(
        convolutions=len(plan.convolutions),
        bare=len(plan.bare),
        decoupled=len(plan.decoupled),
        parameters=len(plan.parameters),
        second_order_parameters=len(plan.second_order),
        numbers=_numbers(plan.parameters),
        second_order_numbers=_numbers(plan.second_order),
        frozen=len(plan.frozen),
    )


def facts(summary: Summary) -> tuple[tuple[str, str], ...]:
    """The counts that stand at the head of the page, each a value and what it counts."""
    return (
        (f"{summary.decoupled:,} of {summary.convolutions:,}", "convolutions decoupled"),
        (f"{summary.second_order_parameters:,} of {summary.parameters:,}", "parameters second-order"),
        (percent(summary.second_order_share), "of all trainable numbers"),
        (f"{summary.second_order_parameters:,}", "steps in a Hessian cycle"),
    )


def _numbers(parameters: Iterable[ParameterEntry]) -> int:
    return sum(prod(parameter.shape) for parameter in parameters)


def headline(plan: Plan, summary: Summary, check: Check | None) -> tuple[str, ...]:
    """The report in a few sentences."""
    return (
        _convolutions(plan, summary),
        *_treatment(summary),
        f"The model was {WAYS[plan.way]}; policy: {plan.policy}.",
        *_checked(summary, check),
    )


def _convolutions(plan: Plan, summary: Summary) -> str:
    if not summary.convolutions:
        return f"{plan.model}: there is no convolution, so nothing was decoupled."
    of = counted(summary.convolutions, "convolution")
    verb = "was" if 1 in (summary.decoupled, summary.convolutions) else "were"
    return f"{plan.model}: {summary.decoupled} of {of} {verb} decoupled{_which(plan)}."


def _which(plan: Plan) -> str:
    bare = len(plan.bare)
    if plan.bare != plan.decoupled:
        return f"; {bare} {'is' if bare == 1 else 'are'} bare, and the table says what decided otherwise"
    if not bare:
        return "; a norm follows each" if len(plan.convolutions) > 1 else "; a norm follows it"
    return f": the bare {'one' if bare == 1 else 'ones'}, which no norm follows"


def _treatment(summary: Summary) -> tuple[str, ...]:
    steps = summary.second_order_parameters
    if not steps:
        return ("No parameter gets Hessian treatment: training will be SGD with momentum.",)
    verb = "gets" if steps == 1 else "get"
    share = percent(summary.second_order_share)
    return (
        f"{steps:,} of {counted(summary.parameters, 'trainable parameter')} {verb} Hessian treatment, "
        f"which is {summary.second_order_numbers:,} of {summary.numbers:,} numbers ({share}).",
        f"One Hessian cycle takes {counted(steps, 'step')}, one parameter at each.",
    )


def _checked(summary: Summary, check: Check | None) -> tuple[str, ...]:
    if not summary.decoupled:
        return ()
    if check is None:
        return ("Not checked against the original.",)
    difference = f"{check.max_relative_difference:.1e}" if check.max_relative_difference else "0"
    return (f"Checked: {check.what}; the largest relative difference is {difference}.",)


def percent(share: float) -> str:
    """Two significant digits below ten percent, so that a small share does not read as nothing.

    >>> percent(0.000156), percent(0.25), percent(1.0)
    ('0.016%', '25%', '100%')
    """
    return f"{100 * share:.2g}%" if share < 0.1 else f"{100 * share:.0f}%"
