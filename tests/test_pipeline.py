"""prepare() as a person calls it: bad input is answered clearly, and nothing of the person's is changed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import SGDPH, analyze, check_optimizer, prepare
from sgdph_fx.errors import (
    NonFiniteWeightError,
    NotAModuleError,
    NothingToTrainError,
    RewriteError,
    ScriptedModelError,
    SgdphError,
    StaleOptimizerError,
    TraceError,
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
    optimizer = SGDPH(list(net().parameters()), lr=0.1)
    with pytest.raises(StaleOptimizerError):
        optimizer.backward(prepared(torch.rand(2, 3, 6, 6)).sum())


def test_no_convolution_is_fine() -> None:
    _, groups, report = prepare(nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4)))
    assert report.plan.convolutions == ()
    assert {g["role"] for g in groups} == {"weight", "bias", "norm.weight", "norm.bias"}


def test_prepared_twice_is_prepared_once() -> None:
    first = prepare(net())
    second = prepare(first.model)
    assert list(second.model.state_dict()) == list(first.model.state_dict())
    assert [g["param_names"] for g in second.param_groups] == [g["param_names"] for g in first.param_groups]
    assert [g["order"] for g in second.param_groups] == [g["order"] for g in first.param_groups]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.conv(x)
        return self.conv(-x)


def test_untraceable_model_names_the_line_and_the_remedy() -> None:
    with pytest.raises(TraceError) as error:
        analyze(Branches())
    line = Branches.forward.__code__.co_firstlineno + 1
    assert f"tests/test_pipeline.py:{line}: `if x.sum() > 0:`" in str(error.value)
    assert "Pass example_inputs" in str(error.value)
    assert [row.name for row in analyze(Branches(), torch.rand(1, 3, 4, 4)).bare] == ["conv"]


class Keywords(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, image: Tensor, other: Tensor | None = None) -> dict[str, Tensor]:
        y = self.conv(image)
        return {"out": self.norm(y) if other is None else self.norm(y + other)}


def test_example_inputs_in_every_form() -> None:
    model, x = Keywords(), torch.rand(2, 3, 6, 6)
    forms: list[Any] = [None, x, (x,), {"image": x}, lambda m: m(x), lambda: model(x)]
    for form in forms:
        assert [row.verdict for row in analyze(model, form).convolutions] == ["normalized"]
    other = {"image": x, "other": torch.rand(2, 4, 4, 4)}
    assert [row.verdict for row in analyze(model, other).convolutions] == ["bare"]
    with pytest.raises(TraceError, match="example_inputs is a int"):
        analyze(model, 3)  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="does not run on the example inputs"):
        analyze(model, torch.rand(2, 7, 6, 6))


class AllOptional(Keywords):
    """As models of transformers are called: every argument has a default."""

    def forward(
        self, image: Tensor | None = None, other: Tensor | None = None, doubled: bool = False
    ) -> dict[str, Tensor]:
        if (image is None) == (other is None):
            raise ValueError("exactly one of image and other")
        y = torch.relu(self.conv(image if other is None else other))
        return {"out": self.norm(2 * y if doubled else y)}


class NeedsTheSecond(AllOptional):
    def forward(self, image: Tensor | None = None, other: Tensor | None = None) -> dict[str, Tensor]:
        return super().forward(None, other)


def test_of_optional_arguments_the_first_is_the_input() -> None:
    model, x = AllOptional(), torch.rand(2, 3, 6, 6)
    (symbolic,), (recorded,) = analyze(model).convolutions, analyze(model, {"other": x}).convolutions
    assert (symbolic.verdict, symbolic.norm, symbolic.via) == ("normalized", "norm", ("relu",))
    assert (symbolic.verdict, symbolic.norm) == (recorded.verdict, recorded.norm)
    with pytest.raises(TraceError, match=r"exactly one of image and other.*Pass example_inputs"):
        analyze(NeedsTheSecond())


_ACTIVATIONS = {"relu": nn.ReLU(), "norm": nn.BatchNorm2d(4)}


class Borrows(nn.Module):
    """Calls a module that it does not own, out of a table."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.conv, self.norm, self.name = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), name

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(_ACTIVATIONS[self.name](self.conv(x)))


def test_a_module_that_the_model_does_not_own_is_looked_into() -> None:
    for inputs in (None, torch.rand(2, 3, 6, 6)):
        (row,) = analyze(Borrows("relu"), inputs).convolutions
        assert (row.verdict, row.norm, row.via) == ("normalized", "norm", ("relu",))
    with pytest.raises(TraceError, match="Pass example_inputs"):
        analyze(Borrows("norm"))  # whose parameters are nobody's


class Stateful(nn.Module):
    """Changes everything that a run can change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.cache: Tensor | None = None
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.count += 1
        self.cache = x
        self.fresh = F.dropout(x) + np.random.rand() + random.random()
        return self.norm(self.conv(x))


@pytest.mark.parametrize("inputs", [None, torch.rand(2, 3, 6, 6)], ids=["symbolic", "recorded"])
def test_analyze_changes_nothing(inputs: Tensor | None) -> None:
    model = Stateful()
    model.norm.eval()
    model(torch.rand(2, 3, 6, 6)).sum().backward()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    attributes = {id(m): dict(m.__dict__) for m in model.modules()}
    gradients = [p.grad for p in model.parameters()]
    rng, numpy_rng, python_rng = torch.get_rng_state(), np.random.get_state(), random.getstate()

    analyze(model, inputs)

    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert all(m.__dict__ == attributes[id(m)] for m in model.modules())
    assert [m.training for m in (model, model.conv, model.norm)] == [True, True, False]
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), rng)
    assert np.random.get_state()[2:] == numpy_rng[2:]
    assert random.getstate() == python_rng


def test_a_failing_analysis_changes_nothing_either() -> None:
    class Fails(Stateful):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            raise ValueError("no")

    model = Fails()
    with pytest.raises(TraceError, match="no"):
        analyze(model, torch.rand(2, 3, 6, 6))
    assert (model.count, float(model.calls), int(model.norm.num_batches_tracked)) == (0, 0.0, 0)
    assert nn.Module.__call__.__qualname__ == "Module._wrapped_call_impl"


class ReadsTheParameter(nn.Module):
    """Finds its convolution's weight by another way than ``module.weight``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) * next(self.conv.parameters()).mean()


def test_rewrite_that_would_change_the_function_is_undone() -> None:
    model, x = ReadsTheParameter(), torch.rand(1, 3, 5, 5)
    with torch.no_grad():
        model.conv.weight[
            0
        ].zero_()  # a zero filter's direction is made up, so this model computes something else
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(RewriteError, match="The model is as it was"):
        prepare(model, x, inplace=True)
    assert type(model.conv) is nn.Conv2d
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


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
