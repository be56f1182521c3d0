"""Reshapes between a convolution and its norm: verdicts and hints against numbers, on a sample of random networks.

``python -m tests.properties.reshaped`` asks about a thousand.
"""

from __future__ import annotations

import pytest

from tests.properties.reshaped import draw, outcome

SEEDS = range(100)


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "symbolic"])
def test_what_is_called_absorbed_is_and_what_is_called_idle_is(recorded: bool) -> None:
    found = [outcome(network, x, x if recorded else None) for network, x in map(draw, SEEDS)]
    wrong = [seed for seed, one in zip(SEEDS, found, strict=True) if one.word in ("unsound", "false hint")]
    assert wrong == []
    # The sample says something: both answers occur, and so do hints.
    assert {one.said for one in found} == {True, False}
    assert any(one.hinted for one in found)
