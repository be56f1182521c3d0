"""Verdicts on small networks, by both ways in, against hand-derived expectations."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from sgdph_fx import Config, analyze
from tests.cases import CASES, Case
from tests.forwards import After, Written, conv


@pytest.mark.parametrize("policy", ["direct", "see-through", "absorbing"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_verdict(case: Case, policy: str) -> None:
    config = Config(policy=policy)  # type: ignore[arg-type]
    for inputs in (None, case.input()):
        plan = analyze(case.build(), inputs, config=config)
        assert {row.name for row in plan.bare} == case.bare_under(policy), [
            row.reason for row in plan.convolutions
        ]
        assert all(row.decouple == (row.verdict == "bare") for row in plan.convolutions)


@pytest.mark.parametrize("case", [c for c in CASES if c.norm], ids=lambda case: case.name)
def test_names_the_norm(case: Case) -> None:
    plan = analyze(case.build())
    assert {row.name: row.norm for row in plan.convolutions} == case.norm


def test_reason_reads_like_the_source() -> None:
    model = nn.Sequential(conv(), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(128, 2))
    (row,) = analyze(model).convolutions
    assert (
        row.reason == "bare: output goes through ReLU, MaxPool2d and Flatten to Linear 4; no norm on any path"
    )
    assert row.via == ("ReLU", "MaxPool2d", "Flatten")
    assert row.norm is None


def test_reason_names_the_call_that_decided() -> None:
    case = next(c for c in CASES if c.name == "called twice")
    (row,) = analyze(case.build()).convolutions
    assert "sigmoid" in row.reason
    assert "of its 2 calls others are normalized" in row.reason


def test_reason_names_the_frozen_norm() -> None:
    case = next(c for c in CASES if c.name == "frozen norm")
    (row,) = analyze(case.build()).convolutions
    assert "FrozenBatchNorm2d end" in row.reason
    assert "frozen" in row.reason


@pytest.mark.parametrize("inputs", [None, torch.rand(2, 3, 8, 8)], ids=["symbolic", "recorded"])
def test_batch_norm_kept_in_evaluation_mode_is_frozen(inputs: Tensor | None) -> None:
    model = After(nn.ReLU())
    model.end.eval()
    plan = analyze(model, inputs)
    assert [row.name for row in plan.bare] == ["conv"]
    assert "train-eval-difference" not in {hint.code for hint in plan.hints}  # it is frozen in both
    model.eval()  # an evaluating model, though, is looked at as it will train
    assert analyze(model, inputs).bare == ()


def test_source_line_is_the_persons_own() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return m.conv(x)

    line = forward.__code__.co_firstlineno + 1
    for inputs in (None, torch.rand(1, 3, 4, 4)):
        (row,) = analyze(Written(forward, conv=conv()), inputs).convolutions
        assert row.source == f"analysis/test_verdicts.py:{line}"


def test_difference_between_training_and_evaluation_is_reported() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.conv(x)
        return m.norm(y) if m.training else m.norm(torch.sigmoid(y))

    plan = analyze(Written(forward, conv=conv(bias=False), norm=nn.BatchNorm2d(8)))
    assert [row.verdict for row in plan.convolutions] == ["normalized"]
    assert [(h.code, h.where) for h in plan.hints] == [("train-eval-difference", "conv")]
    # Training counts for a bias, too: there the norm absorbs it, unless it is frozen and takes no steps at all.
    for trains in (True, False):
        model = Written(forward, conv=conv(), norm=nn.BatchNorm2d(8))
        model.conv.bias.requires_grad_(trains)  # type: ignore[union-attr]
        absorbed = [h.where for h in analyze(model).hints if h.code == "absorbed-bias"]
        assert absorbed == (["conv.bias"] if trains else [])


def test_convolution_that_training_never_calls_is_left() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.norm(m.conv(x))
        return y if m.training else m.head(y)

    model = Written(
        forward, conv=conv(bias=False), norm=nn.BatchNorm2d(8), head=nn.Conv2d(8, 2, 1), unused=conv()
    )
    plan = analyze(model)
    rows = {row.name: row for row in plan.convolutions}
    assert (rows["head"].verdict, rows["head"].decouple) == ("bare", False)
    assert (rows["unused"].verdict, rows["unused"].decouple) == ("bare", False)
    assert {(h.code, h.where) for h in plan.hints} == {
        ("not-in-training", "head"),
        ("never-called", "unused"),
    }


class FunctionalConv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.rand(8, 3, 3, 3))
        self.register_buffer("blur", torch.ones(8, 1, 3, 3) / 9)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(F.relu(F.conv2d(x, self.kernel)), self.blur, groups=8)
        return self.norm(y)


@pytest.mark.parametrize("inputs", [None, torch.rand(2, 3, 8, 8)], ids=["symbolic", "recorded"])
def test_functional_convolutions(inputs: Tensor | None) -> None:
    """The parameter is a convolution of the owner's; the fixed kernel is none."""
    (row,) = analyze(FunctionalConv(), inputs).convolutions
    assert (row.name, row.weight, row.kind) == ("kernel", "kernel", "conv2d")
    assert row.verdict == "bare"
    assert "conv2d" in row.reason


class OwnNorm(nn.Conv2d):
    """A convolution that carries its norm, as detectron2's does."""

    def __init__(self) -> None:
        super().__init__(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(F.conv2d(x, self.weight, self.bias))


@pytest.mark.parametrize("inputs", [None, torch.rand(2, 3, 8, 8)], ids=["symbolic", "recorded"])
def test_convolution_that_carries_its_norm(inputs: Tensor | None) -> None:
    plan = analyze(nn.Sequential(OwnNorm()), inputs)
    assert [(row.name, row.verdict, row.norm) for row in plan.convolutions] == [("0", "normalized", "0.norm")]
    assert {p.name: p.order for p in plan.parameters} == {
        "0.weight": 1,
        "0.bias": 2,
        "0.norm.weight": 2,
        "0.norm.bias": 2,
    }


def test_shared_weight_has_one_verdict() -> None:
    first, second = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
    second.weight = first.weight
    plan = analyze(nn.Sequential(first, nn.BatchNorm2d(8), second, nn.Sigmoid()))
    assert [(row.verdict, row.decouple, row.weight) for row in plan.convolutions] == [
        ("bare", True, "0.weight")
    ] * 2
    assert "shares its weight with 2" in plan.convolutions[0].reason


@pytest.mark.parametrize(
    ("between", "end", "absorbed"),
    [
        (nn.Identity(), nn.BatchNorm2d(8), True),
        (nn.Identity(), nn.InstanceNorm2d(8), True),
        (nn.Identity(), nn.GroupNorm(8, 8), True),
        (nn.ReLU(), nn.BatchNorm2d(8), False),  # a shift moves the kink
        (nn.ZeroPad2d(1), nn.BatchNorm2d(8), False),  # the padding stays zero
        (nn.Identity(), nn.GroupNorm(2, 8), False),  # the mean is not the channel's own
        (nn.Identity(), nn.LayerNorm((8, 8, 8)), False),
    ],
)
def test_bias_that_a_norm_absorbs(between: nn.Module, end: nn.Module, absorbed: bool) -> None:
    model = After(between, end).double().train()
    hints = [h.where for h in analyze(model).hints if h.code == "absorbed-bias"]
    assert hints == (["conv.bias"] if absorbed else [])
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    before = model(x)
    with torch.no_grad():
        model.conv.bias += torch.rand(8, dtype=torch.float64)
    assert torch.allclose(model(x), before, atol=1e-10) == absorbed


def test_a_bias_that_one_of_two_norms_keeps_is_not_absorbed() -> None:
    model = Written(
        lambda m, x: (m.batch(y := m.conv(x)), m.group(y)),
        conv=conv(), batch=nn.BatchNorm2d(8), group=nn.GroupNorm(2, 8),
    ).double()  # fmt: skip
    plan = analyze(model)
    assert [row.verdict for row in plan.convolutions] == ["normalized"]
    assert [hint.where for hint in plan.hints if hint.code == "absorbed-bias"] == []
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    before = model(x)
    with torch.no_grad():
        model.conv.bias += torch.rand(8, dtype=torch.float64)  # type: ignore[operator]
    assert [torch.allclose(*pair, atol=1e-10) for pair in zip(model(x), before, strict=True)] == [True, False]


def test_the_reason_names_a_norm_that_does_not_count_before_what_is_nearer() -> None:
    model = Written(
        lambda m, x: (torch.sigmoid(y := m.conv(x)), m.norm(torch.relu(y))),
        conv=conv(), norm=FrozenBatchNorm2d(8),
    )  # fmt: skip
    (row,) = analyze(model).convolutions
    assert row.reason.startswith("bare: output goes through relu to FrozenBatchNorm2d norm, which is frozen")


def test_what_is_written_in_place_is_seen() -> None:
    """torch.fx lets later readers refer to the value before the write; the flow does not."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = m.conv(x)
        y.add_(1)
        return m.norm(y)

    for inputs in (None, torch.rand(2, 3, 8, 8)):
        (row,) = analyze(Written(forward, conv=conv(), norm=nn.BatchNorm2d(8)), inputs).convolutions
        assert row.verdict == "bare"
        assert "to add" in row.reason


def test_reasons_are_the_same_from_run_to_run() -> None:
    plans = [analyze(nn.Sequential(conv(), nn.GELU())).to_json() for _ in range(2)]
    assert plans[0] == plans[1]
    assert " at 0x" not in plans[0]


# For all tests to come: where an operator has gone, older versions of torch compile and export nothing any more.
LIBRARY = torch.library.Library("sgdph_fx_test", "FRAGMENT")
LIBRARY.define("relu(Tensor x) -> Tensor")
LIBRARY.impl("relu", torch.sigmoid, "CompositeImplicitAutograd")


def test_an_operator_of_another_library_is_not_known_by_its_name() -> None:
    class Squashed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(torch.ops.sgdph_fx_test.relu(self.conv(x)))  # type: ignore[no-any-return]

    for inputs in (None, torch.rand(2, 3, 5, 5)):
        assert analyze(Squashed(), inputs).convolutions[0].verdict == "bare"
