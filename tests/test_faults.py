"""Whatever line of the program fails: model, optimizer, files and torch are whole afterwards."""

from __future__ import annotations

import pytest

from tests.faults import SCENARIOS, lines_of, tried

SAMPLE = 40


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("error", [MemoryError("injected"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("name", SCENARIOS)
def test_an_error_at_a_sample_of_all_lines(name: str, error: BaseException) -> None:
    scenario = SCENARIOS[name]
    lines = lines_of(scenario)
    assert lines > SAMPLE
    places = range(lines % 7 + 1, lines, lines // SAMPLE)
    assert {at: damage for at in places if (damage := tried(scenario, at, error))} == {}
