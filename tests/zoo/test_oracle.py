"""The numerical oracle: first against algebra, then the plan's verdicts against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from sgdph_fx.pipeline import analyze
from sgdph_fx.plan.config import Config
from tests.zoo.case import single_threaded
from tests.zoo.oracle import absorbs, convolutions
from tests.zoo.small import FAMILIES, PATTERNS, Pattern

_PATTERNS = pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)


@pytest.fixture(autouse=True)
def _steady() -> Iterator[None]:
    with single_threaded():
        yield


def _verdicts(model: nn.Module) -> dict[str, str]:
    plan = analyze(model, config=Config(policy="absorbing"))
    return {row.name: row.verdict for row in plan.convolutions}


@_PATTERNS
def test_oracle_agrees_with_algebra(pattern: Pattern) -> None:
    # Large inputs, so that ReLU6 saturates.
    assert absorbs(pattern.model, "conv", (10 * torch.randn(4, 3, 6, 6),)) is pattern.absorbed


@_PATTERNS
def test_verdict_of_a_pattern(pattern: Pattern) -> None:
    verdict = _verdicts(pattern.model)["conv"]
    if not pattern.absorbed:
        assert verdict == "bare"
    elif not pattern.cautious:
        assert verdict == "normalized"


@pytest.mark.parametrize(("build", "size"), [f[1:] for f in FAMILIES], ids=[f[0] for f in FAMILIES])
def test_verdicts_of_a_family(build: Callable[[], nn.Module], size: int) -> None:
    model = build()
    images = torch.randn(4, 3, size, size)
    verdicts = _verdicts(model)
    assert set(verdicts) == set(convolutions(model))
    for name, verdict in verdicts.items():
        assert (verdict == "normalized") is absorbs(model, name, (images,)), name


def test_oracle_leaves_the_model_alone() -> None:
    model = FAMILIES[0][1]().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    absorbs(model, "features.0.0", (torch.randn(4, 3, 32, 32),))
    assert not model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
