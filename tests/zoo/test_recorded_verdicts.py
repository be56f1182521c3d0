"""Recorded runs: with example inputs the answers are those of symbolic tracing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import pytest

from sgdph_fx.plan.entries import Policy
from sgdph_fx.plan.plan import Plan
from tests.zoo.case import Case, bare_names, single_threaded
from tests.zoo.expectations import EXPECTATIONS

_RECORDED = [expected for expected in EXPECTATIONS if expected.example is not None]


@pytest.fixture(scope="module", params=_RECORDED, ids=lambda expected: expected.model)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Each model is built once, and gone before the next."""
    with single_threaded():
        yield Case(request.param, request.param.build())


def _treatment(plan: Plan) -> list[tuple[str, tuple[int, ...], int, str]]:
    return [(row.name, row.shape, row.order, row.role) for row in plan.parameters]


@pytest.mark.parametrize("policy", get_args(Policy))
def test_the_same_convolutions_are_bare(case: Case, policy: Policy) -> None:
    plan = case.plan(policy, "recorded")
    assert plan.way == "recorded"
    assert bare_names(plan) == case.named(case.expected.rule(policy)), case.expected.why


def test_the_same_norms_are_named(case: Case) -> None:
    rows = {row.name: row for row in case.plan(way="recorded").convolutions}
    assert {name: rows[name].norm for name in case.expected.norms} == case.expected.norms


def test_parameters_are_treated_the_same(case: Case) -> None:
    assert _treatment(case.plan(way="recorded")) == _treatment(case.plan())
