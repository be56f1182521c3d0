"""Verdicts, norms and roles of torchvision's models against expectations derived by reading their source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import get_args

import pytest

from sgdph_fx.pipeline import analyze
from sgdph_fx.plan.entries import Policy
from tests.zoo.case import Case, bare_names, single_threaded
from tests.zoo.expectations import EXPECTATIONS

_POLICIES = get_args(Policy)


@pytest.fixture(scope="module", params=EXPECTATIONS, ids=lambda expected: expected.model)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Each model is built once, and gone before the next."""
    with single_threaded():
        yield Case(request.param, request.param.build())


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
    assert bare_names(plan) == case.named(case.expected.rule(policy)), case.expected.why
    assert {row.name for row in plan.convolutions if row.decouple} == bare_names(plan)


def test_eval_mode_gives_the_same_verdicts(case: Case) -> None:
    training = bare_names(case.plan())
    case.model.eval()
    try:
        example = case.expected.example if not case.expected.symbolic else None
        plan = analyze(case.model, example() if example else None)
        assert not case.model.training
    finally:
        case.model.train()
    assert bare_names(plan) == training


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


def test_redundant_biases_are_hinted_at(case: Case) -> None:
    hints = [hint for hint in case.plan().hints if hint.code == "absorbed-bias"]
    hinted = {hint.where.removesuffix(".bias") for hint in hints}
    convolutions = case.named(lambda name: True)
    assert hinted & convolutions == case.named(case.expected.redundant_biases)
