"""Who is due when, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sgdph_fx.optim.schedule import Schedule

A, B, C, D, E = (torch.zeros(1) for _ in range(5))
NAMES = {id(t): n for t, n in zip((A, B, C, D, E), "ABCDE", strict=True)}


def letters(tensors: tuple[Tensor, ...]) -> str:
    return "".join(NAMES[id(t)] for t in tensors)


def test_places_of_several_groups_are_merged_and_unplaced_ones_come_last() -> None:
    groups = [
        {"order": 2, "params": [E]},
        {"order": 2, "params": [C, A], "index": [7, 0]},
        {"order": 1, "params": [B], "index": [1]},
        {"order": 2, "params": [D], "index": [3]},
    ]
    assert letters(Schedule.of(groups, last_is_first_order=False).cycle) == "ADCE"


@pytest.mark.parametrize(("last_is_first_order", "expected"), [(True, "AB-AB-AB"), (False, "ABCABCAB")])
def test_one_is_due_at_each_step_in_turn(last_is_first_order: bool, expected: str) -> None:
    schedule = Schedule.of([{"order": 2, "params": [A, B, C]}], last_is_first_order=last_is_first_order)
    due = [schedule.due(t) for t in range(1, 9)]
    assert "".join(letters(d) or "-" for d in due) == expected
    assert [schedule.cycles_begun(t) for t in range(1, 9)] == [1, 1, 2, 2, 2, 3, 3, 3]


def test_with_one_spared_or_none_at_all_nothing_is_ever_due() -> None:
    assert Schedule.of([{"order": 2, "params": [A]}], last_is_first_order=True).due(1) == ()
    assert Schedule.of([{"order": 1, "params": [A]}], last_is_first_order=True).due(1) == ()


def test_with_an_interval_the_steps_between_refresh_nothing_and_a_cycle_is_longer() -> None:
    schedule = Schedule.of([{"order": 2, "params": [A, B]}], last_is_first_order=False, interval=3)
    due = [schedule.due(t) for t in range(1, 14)]
    assert "".join(letters(d) or "-" for d in due) == "A--B--A--B--A"
    assert [schedule.cycles_begun(t) for t in (1, 5, 6, 11, 12)] == [1, 1, 2, 2, 3]


@pytest.mark.parametrize(("last_is_first_order", "expected"), [(True, "AB"), (False, "ABC")])
def test_all_are_due_at_each_refresh_and_n_counts_the_refreshes(
    last_is_first_order: bool, expected: str
) -> None:
    groups = [{"order": 2, "params": [A, B, C]}]
    schedule = Schedule.of(groups, last_is_first_order=last_is_first_order, interval=3, refreshes_all=True)
    assert [letters(schedule.due(t)) or "-" for t in range(1, 6)] == [expected, "-", "-", expected, "-"]
    assert schedule.length == 3
    assert [schedule.cycles_begun(t) for t in range(1, 8)] == [1, 1, 1, 2, 2, 2, 3]
    assert [schedule.cycles_begun(t, missed=1) for t in (3, 4, 7)] == [1, 1, 2]
    assert schedule.cycles_begun(torch.tensor(3), missed=1).item() == 1


def test_the_cycle_of_a_step_counts_from_where_the_cycle_grew() -> None:
    """Three cycles of two were over after step 6, when a third parameter joined."""
    schedule = Schedule.of([{"order": 2, "params": [A, B, C]}], last_is_first_order=False)
    assert [schedule.cycle_of(t, 6, 3) for t in range(7, 14)] == [4, 4, 4, 5, 5, 5, 6]
    assert [schedule.cycle_of(t, 0, 0) for t in range(1, 8)] == [1, 1, 1, 2, 2, 2, 3]
