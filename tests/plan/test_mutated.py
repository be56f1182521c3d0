"""Plans changed at random are refused or usable, on a sample; ``python -m tests.plan.mutated`` tries five thousand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sgdph_fx import Plan, analyze
from sgdph_fx.errors import PlanFormatError
from tests.plan.mutated import BASES, mutated, outcome


def test_a_mutated_plan_is_refused_or_usable() -> None:
    counts = Counter(outcome(*mutated(seed)) for seed in range(500))
    # The sample says something: each of the three happens.
    assert set(counts) == {"refused", "misfit", "usable"}


@pytest.mark.parametrize("number", range(len(BASES)))
def test_a_plan_as_it_is_is_usable(number: int) -> None:
    build, shape, config = BASES[number]
    model = build()
    del shape
    assert outcome(model, analyze(model, config=config).to_json()) == "usable"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deep"),
        ('{"version": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"version": true}', "no plan of version 1"),
        ('{"version": 1, "plan": {}, "headline": ""}', "a report, not a plan"),
    ],
)
def test_texts_that_are_no_plan(text: str, message: str) -> None:
    with pytest.raises(PlanFormatError, match=message):
        Plan.from_json(text)


def test_what_is_no_text() -> None:
    with pytest.raises(PlanFormatError, match=r"this is PosixPath\. Pass `path\.read_text\(\)`"):
        Plan.from_json(Path("plan.json"))  # type: ignore[arg-type]
