"""prepare() as a person calls it: bad input is answered clearly, and nothing of the person's is changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx import SGDPH, check_optimizer, param_groups, prepare
from sgdph_fx.errors import (
    ModelError,
    NonFiniteWeightError,
    NotAModuleError,
    NothingToTrainError,
    OptimizerError,
    ScriptedModelError,
    SgdphError,
    StaleOptimizerError,
    UncopyableModelError,
    UninitializedModelError,
)


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Dropout(), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


def frozen() -> nn.Module:
    return net().requires_grad_(False)


def with_nan() -> nn.Module:
    model = net()
    model[4].weight.data[0] = torch.nan
    return model


def in_a_circle() -> nn.Module:
    model: Any = nn.Sequential(net(), net())
    model[1][1].parent = model[1]
    return model


BAD: list[tuple[str, Callable[[], Any], type[SgdphError], str]] = [
    ("no parameters", nn.ReLU, NothingToTrainError, "ReLU has no parameters"),
    ("all frozen", frozen, NothingToTrainError, "All 6 parameters of Sequential are frozen"),
    ("nan", with_nan, NonFiniteWeightError, r"4\.weight \(4 of 8\)"),
    (
        "lazy",
        lambda: nn.Sequential(nn.LazyConv2d(4, 3)),
        UninitializedModelError,
        r"0 \(LazyConv2d\) is lazy",
    ),
    ("a circle", in_a_circle, ModelError, r"'1\.1\.parent' of Sequential is a module that also holds it"),
    ("no module", lambda: 3, NotAModuleError, "this is a int"),
    ("a class", lambda: nn.Linear, NotAModuleError, "Linear is a class"),
    ("scripted", lambda: torch.jit.script(net()), ScriptedModelError, "TorchScript"),
]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("build", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_models(build: Callable[[], Any], error: type[SgdphError], message: str) -> None:
    model = build()
    with pytest.raises(error, match=message):
        prepare(model, inplace=True)


def test_optimizer_built_before_prepare() -> None:
    model = net()
    early = torch.optim.SGD(model.parameters(), lr=0.1)
    prepared, groups, _ = prepare(model)
    with pytest.raises(
        StaleOptimizerError, match=r"lacks 0\.weight, 0\.bias, 3\.weight and 4 more .* holds 6 that are not"
    ):
        check_optimizer(prepared, early)
    prepare(model, inplace=True)
    with pytest.raises(StaleOptimizerError, match=r"lacks 4\.gain of its trainable parameters, and holds 0"):
        check_optimizer(model, early)
    check_optimizer(prepared, torch.optim.SGD(groups, lr=0.1))
    for wrong in ((early, prepared), (prepared, groups), (None, early)):
        with pytest.raises(OptimizerError, match="takes the model and then its optimizer; these are a "):
            check_optimizer(*wrong)  # type: ignore[arg-type]
    optimizer = SGDPH(list(net().parameters()), lr=0.1)
    with pytest.raises(StaleOptimizerError):
        optimizer.backward(prepared(torch.rand(2, 3, 6, 6)).sum())


def test_no_convolution_is_fine() -> None:
    _, groups, report = prepare(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)))
    assert report.plan.convolutions == ()
    assert {g["role"] for g in groups} == {"weight", "bias", "norm.weight", "norm.bias"}


def test_model_that_cannot_be_copied() -> None:
    model = net()
    model.handle = (i for i in range(3))  # a generator
    with pytest.raises(UncopyableModelError, match="inplace=True"):
        prepare(model)
    assert prepare(model, inplace=True).model is model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_outputs_and_input_gradients_are_equal_in_both_modes(dtype: torch.dtype) -> None:
    rtol = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.manual_seed(0)
    model = nn.Sequential(net(), nn.Flatten(), nn.Linear(72, 3)).to(dtype)
    x = torch.rand(3, 3, 8, 8, dtype=dtype)
    prepared, _, report = prepare(model, x)
    assert report.check is not None
    assert report.check.max_relative_difference <= rtol
    for training in (True, False):
        outputs = []
        for candidate in (model, prepared):
            torch.manual_seed(1)
            leaf = x.clone().requires_grad_()
            y = candidate.train(training)(leaf)
            y.square().sum().backward()
            outputs.append((y.detach(), leaf.grad))
        for ours, theirs in zip(*outputs, strict=True):
            assert torch.allclose(ours, theirs, rtol=rtol, atol=rtol * float(theirs.abs().max()))


def test_groups_of_a_model_that_is_not_rewritten_have_weights_and_no_directions() -> None:
    groups = param_groups(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2)))
    assert [(group["role"], group["order"], group["param_names"]) for group in groups] == [
        ("weight", 1, ["0.weight", "3.weight"]),
        ("bias", 2, ["0.bias", "3.bias"]),
    ]
