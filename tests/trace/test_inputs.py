"""Example inputs in every form; the model gets copies, and an error says what is wanted."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import SGDPH, analyze, prepare
from sgdph_fx.errors import TraceError


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
    assert f"trace/test_inputs.py:{line}: `if x.sum() > 0:`" in str(error.value)
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


class Named(nn.Module):
    """Takes its inputs by keyword alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, *, image: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        y = self.norm(self.conv(image)) * scale
        return y if bias is None else y + bias


def test_inputs_by_keyword_alone() -> None:
    named = {"image": torch.rand(2, 3, 6, 6), "scale": torch.ones(1)}
    for inputs in (None, named):
        assert [row.verdict for row in analyze(Named(), inputs).convolutions] == ["normalized"]
    with pytest.raises(
        TraceError, match=r"It is called as `forward\(\*, image, scale, bias=None\)`; pass inputs"
    ):
        analyze(Named(), torch.rand(2, 3, 6, 6))


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.left(left) * self.right(right)


def test_several_inputs() -> None:
    x = torch.rand(1, 3, 6, 6)
    for inputs in (None, (x, x), {"right": x, "left": x}):
        assert [row.name for row in analyze(Pair(), inputs).bare] == ["left", "right"]
    with pytest.raises(TraceError, match=r"called as `forward\(left, right\)`"):
        analyze(Pair(), x)


class InPlace(nn.Module):
    """Its first layer writes into its inputs, wherever they stand."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: Any) -> Tensor:
        parts = {dict: lambda: x["x"], list: lambda: x[0], SimpleNamespace: lambda: x.x}
        tensor = parts.get(type(x), lambda: x)()
        return self.conv(tensor.mul_(2).add_(1))


def packed(x: Tensor) -> list[Any]:
    return [x, (x,), [x], ({"x": x},), (SimpleNamespace(x=x),), lambda m: m(x), lambda: None]


@pytest.mark.parametrize("form", range(6))
def test_inputs_are_not_changed_and_each_run_gets_the_same(form: int) -> None:
    x = torch.rand(2, 3, 4, 4)
    before, model = x.clone(), InPlace()
    prepared, _, report = prepare(model, packed(x)[form])
    assert torch.equal(x, before)
    assert report.check is not None
    assert report.check.what == "outputs in evaluation mode"
    assert torch.equal(prepared(x.clone()), model(x.clone()))


SHARED = torch.rand(2, 3, 4, 4)


def test_a_callable_that_names_a_variable_of_its_file() -> None:
    before = SHARED.clone()
    prepare(InPlace(), lambda m: m(SHARED))
    assert torch.equal(SHARED, before)


def test_inputs_that_are_results_of_a_computation_or_need_a_gradient() -> None:
    leaf = torch.rand(1, 3, 6, 6, requires_grad=True)
    for x in (leaf, leaf * 2):
        assert len(analyze(nn.Conv2d(3, 4, 1), x).bare) == 1
    assert leaf.grad is None


class Forces(nn.Module):
    """The negative gradient of an energy, as models of molecules return it."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)
        return -gradient


def test_a_model_that_differentiates_in_its_forward() -> None:
    model, x = Forces(), torch.rand(5, 3)
    prepared, groups, _ = prepare(model, x)
    assert torch.equal(prepared(x), model(x))
    optimizer = SGDPH(groups, lr=0.1)
    before = copy.deepcopy(prepared.state_dict())
    optimizer.backward(prepared(x).square().sum())
    optimizer.step()
    assert not torch.equal(before["energy.0.weight"], prepared.state_dict()["energy.0.weight"])


def test_a_default_device_is_not_used() -> None:
    model, x = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)), torch.rand(1, 3, 4, 4)
    nn.init.zeros_(model[0].weight)
    torch.set_default_device("meta")
    try:
        prepared = prepare(model, x).model
    finally:
        torch.set_default_device(None)
    assert {p.device.type for p in prepared.parameters()} == {"cpu"}
    assert torch.equal(prepared(x), model(x))
