"""Check verdicts under the policy ``absorbing`` numerically: scale the filters, and see whether the output changes."""

from __future__ import annotations

import random
from collections.abc import Callable

from torch import nn
from torch.nn.utils import parametrize

from benchmarks.coverage.row import Oracle
from benchmarks.coverage.sample import Sample
from sgdph_fx import Config, analyze
from sgdph_fx.plan.entries import ConvolutionEntry
from tests.zoo.oracle import absorbs, convolutions

__all__ = ["check_verdicts"]


def check_verdicts(sample: Sample, number: int, seed: str) -> Oracle:
    """Check random convolutions. Those that training does not call are left out: scaling them has no effect.

    Args:
        sample: The model with its inputs.
        number: How many convolutions to check.
        seed: Decides which.
    """
    plan = analyze(sample.model, sample, config=Config(policy="absorbing"))
    silent = {hint.where for hint in plan.hints if hint.code in ("never-called", "not-in-training")}
    modules = set(convolutions(sample.model))
    known = [row for row in plan.convolutions if row.name in modules and row.name not in silent]
    rows = random.Random(seed).sample(known, min(number, len(known)))
    found: dict[str, list[str]] = {"unsound": [], "cautious": [], "untellable": []}
    for row in rows:
        kind, reason = _compare(sample, row, absorbs)
        if kind:
            found[kind].append(f"{row.name}: {reason}")
    return Oracle(len(rows), *(tuple(found[kind]) for kind in ("unsound", "cautious", "untellable")))


def _compare(
    sample: Sample, row: ConvolutionEntry, oracle: Callable[[nn.Module, str, Sample], bool]
) -> tuple[str, str]:
    """Give the kind of disagreement and the plan's reason; empty strings where both agree."""
    if parametrize.is_parametrized(sample.model.get_submodule(row.name)):
        return "untellable", "its weight is computed, so it cannot be scaled"
    try:
        absorbed = oracle(sample.model, row.name, sample)
    except Exception as error:
        return "untellable", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if absorbed and row.verdict == "bare":
        return "cautious", row.reason
    return ("unsound", row.reason) if row.verdict == "normalized" and not absorbed else ("", "")
