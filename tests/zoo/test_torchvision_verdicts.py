"""Verdicts, norms and roles of torchvision's models against expectations derived by reading their source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import get_args

import pytest
import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from sgdph_fx.config import Config, Policy
from sgdph_fx.pipeline import analyze
from sgdph_fx.plan import Plan
from tests.zoo.expectation import Expectation, Rule
from tests.zoo.expectations import EXPECTATIONS

_POLICIES = get_args(Policy)


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


@pytest.fixture(scope="module", params=EXPECTATIONS, ids=lambda expected: expected.model)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Each model is built once, and gone before the next."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield Case(request.param, request.param.build())
    torch.set_num_threads(threads)


def _only(wanted: Callable[[Expectation], bool]) -> pytest.MarkDecorator:
    """Run a test for some of the models."""
    chosen = [expected for expected in EXPECTATIONS if wanted(expected)]
    return pytest.mark.parametrize("case", chosen, indirect=True, ids=lambda expected: expected.model)


def _bare(plan: Plan) -> set[str]:
    return {row.name for row in plan.convolutions if row.verdict == "bare"}


def _plain(text: str) -> str:
    return text.lower().replace("_", "")


def test_expectation_fits_the_model(case: Case) -> None:
    """The expectation against the model alone: its rules pick as many as were counted by hand."""
    assert len(case.named(lambda name: True)) == case.expected.convolutions
    assert len(case.named(case.expected.bare)) == case.expected.bare_count
    parameters = dict(case.model.named_parameters())
    assert sum(map(case.expected.other, parameters)) == case.expected.other_count
    assert case.expected.second_order.gain == case.expected.bare_count


@pytest.mark.parametrize("policy", _POLICIES)
def test_bare_convolutions(case: Case, policy: Policy) -> None:
    plan = case.plan(policy)
    assert len(plan.convolutions) == case.expected.convolutions
    assert _bare(plan) == case.named(case.expected.rule(policy)), case.expected.why
    assert {row.name for row in plan.convolutions if row.decouple} == _bare(plan)


@_only(lambda expected: expected.example is not None)
def test_a_recorded_run_gives_the_same_verdicts(case: Case) -> None:
    for policy in _POLICIES:
        assert _bare(case.plan(policy, "recorded")) == case.named(case.expected.rule(policy))
    assert case.plan(way="recorded").parameters == case.plan().parameters


def test_eval_mode_gives_the_same_verdicts(case: Case) -> None:
    training = _bare(case.plan())
    case.model.eval()
    try:
        example = case.expected.example if not case.expected.symbolic else None
        plan = analyze(case.model, example() if example else None)
        assert not case.model.training
    finally:
        case.model.train()
    assert _bare(plan) == training


def test_norms_are_named(case: Case) -> None:
    rows = {row.name: row for row in case.plan().convolutions}
    assert {name: rows[name].norm for name in case.expected.norms} == case.expected.norms
    assert all((row.norm is None) == (row.verdict == "bare") for row in rows.values())


def test_operations_passed_are_told(case: Case) -> None:
    rows = {row.name: row for row in case.plan().convolutions}
    for name, words in case.expected.via.items():
        passed = [_plain(operation) for operation in rows[name].via]
        assert len(passed) == len(words), (name, passed)
        assert all(word in operation for word, operation in zip(words, passed, strict=True)), (name, passed)


def test_reasons_can_be_checked_in_the_source(case: Case) -> None:
    rows = {row.name: row for row in case.plan().convolutions}
    assert all(row.reason for row in rows.values())
    for name, words in case.expected.reasons.items():
        reason = _plain(rows[name].reason)
        assert all(word in reason for word in words), (name, reason)


def test_second_order_parameters(case: Case) -> None:
    plan = case.plan()
    assert Counter(row.role for row in plan.second_order) == case.expected.second_order.by_role()


def test_first_order_parameters(case: Case) -> None:
    first = [row for row in case.plan().parameters if row.order == 1]
    named = dict(case.model.named_parameters())
    assert {row.role for row in first} <= {"weight", "direction", "other"}
    assert {row.name for row in first if row.role == "other"} == set(filter(case.expected.other, named))
    assert sum(row.role == "direction" for row in first) == case.expected.bare_count


def test_every_parameter_is_there_once(case: Case) -> None:
    names = [row.name for row in case.plan().parameters]
    assert len(names) == len(set(names))
    # A decoupled weight is two parameters, so there is one more for each.
    assert len(names) == len(list(case.model.parameters())) + case.expected.bare_count


@_only(lambda expected: expected.redundant_biases is not None)
def test_redundant_biases_are_hinted_at(case: Case) -> None:
    assert case.expected.redundant_biases is not None
    hinted = {hint.where.removesuffix(".bias") for hint in case.plan().hints if "bias" in hint.message}
    convolutions = case.named(lambda name: True)
    assert hinted & convolutions == case.named(case.expected.redundant_biases)
