"""One model of the zoo with its expectation, and the plans that the tests ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from sgdph_fx.pipeline import analyze
from sgdph_fx.plan.config import Config
from sgdph_fx.plan.entries import Policy
from sgdph_fx.plan.plan import Plan
from tests.zoo.expectation import Expectation, Rule

__all__ = ["Case", "bare_names", "single_threaded"]


@dataclass
class Case:
    """One model with its expectation; plans are made once for each way of asking."""

    expected: Expectation
    model: nn.Module
    plans: dict[tuple[str, str], Plan] = field(default_factory=dict)

    def plan(self, policy: Policy = "see-through", way: str | None = None) -> Plan:
        """The plan under ``policy``, made by symbolic tracing where the model allows it."""
        way = way or ("symbolic" if self.expected.symbolic else "recorded")
        if (policy, way) not in self.plans:
            example = self.expected.example if way == "recorded" else None
            inputs = example() if example else None
            self.plans[policy, way] = analyze(self.model, inputs, config=Config(policy=policy))
        return self.plans[policy, way]

    def named(self, rule: Rule) -> set[str]:
        """The convolutions, by ``named_modules()``, that a rule picks."""
        return {
            name for name, module in self.model.named_modules() if isinstance(module, _ConvNd) and rule(name)
        }


def bare_names(plan: Plan) -> set[str]:
    """Names of the convolutions that the plan calls bare."""
    return {row.name for row in plan.convolutions if row.verdict == "bare"}


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread and a fixed seed, as long as it lasts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
