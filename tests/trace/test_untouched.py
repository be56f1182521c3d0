"""A look leaves a model as it was, to the bit, whatever the model does when it runs."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sgdph_fx import analyze, param_groups, prepare
from sgdph_fx.errors import ModelChangedError, NonFiniteWeightError, TraceError
from tests.trace.restless import BUFFERS, CHANGES, Merging, Restless
from tests.trace.states import state_of

X = torch.rand(2, 3, 6, 6)
pytestmark = pytest.mark.filterwarnings("ignore")


def used(model: nn.Module) -> nn.Module:
    """With gradients, as in the midst of a training."""
    model(X).square().sum().backward()
    return model


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("look", [analyze, param_groups, prepare], ids=["analyze", "param_groups", "prepare"])
@pytest.mark.parametrize("training", [True, False])
def test_a_recorded_run(
    look: Callable[..., Any], change: Callable[..., Any], training: bool, how: str
) -> None:
    model = Restless(lambda m, x: None)
    used(model).train(training)
    model.change = change
    before = state_of(model)
    state = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    if how == "watched" and "NumPy" in str([k for k, c in CHANGES.items() if c is change]):
        with pytest.raises(ModelChangedError, match="code that PyTorch does not see"):
            look(model, X)
        return
    look(model, X)
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == state[1:]


@pytest.mark.parametrize(("make", "change"), BUFFERS.values(), ids=BUFFERS)
def test_buffers_of_every_layout(
    make: Callable[[], Tensor], change: Callable[[Tensor], Any], how: str
) -> None:
    model = Restless(lambda m, x: change(m.other))
    model.register_buffer("other", make())
    before = state_of(model)
    analyze(model, X)
    assert state_of(model) == before
    assert float(model.norm.running_mean.abs().max()) == 0


PARAMETERS = {
    "sparse": torch.eye(3).to_sparse(),
    "CSR": torch.eye(3).to_sparse_csr(),
    "BSC": torch.eye(4).to_sparse_bsc((2, 2)),
    "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
    "jagged": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "float8": torch.ones(3).to(torch.float8_e5m2),
    "complex": torch.ones(3, dtype=torch.cfloat),
}


@pytest.mark.parametrize("value", PARAMETERS.values(), ids=PARAMETERS)
def test_frozen_parameters_of_every_layout(value: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))
    model.register_parameter("odd", nn.Parameter(value, requires_grad=False))
    before = state_of(model)
    prepared, _, report = prepare(model, X)
    assert state_of(model) == before
    assert [row.decouple for row in report.plan.convolutions] == [False, True]
    odd = prepared.get_parameter("odd")
    assert odd is not model.odd
    assert (odd.layout, odd.dtype, odd.requires_grad) == (value.layout, value.dtype, False)


def test_a_sparse_parameter_that_is_not_finite_is_named() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    model.register_parameter("odd", nn.Parameter(torch.tensor([0.0, torch.nan]).to_sparse()))
    with pytest.raises(NonFiniteWeightError, match=r"odd \(1 of 2\)"):
        prepare(model)


@pytest.mark.parametrize("inputs", [None, torch.rand(1, 3, 8, 8)], ids=["symbolic", "recorded"])
@pytest.mark.parametrize("training", [True, False])
def test_an_adapter_that_merges_by_mode(inputs: Tensor | None, training: bool, how: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), Merging(3, 4, 3)).train(training)
    before, x = state_of(model), torch.rand(1, 3, 8, 8)
    y = model(x)
    analyze(model, inputs)
    prepare(model, inputs)
    assert state_of(model) == before
    assert torch.equal(model.train(training)(x), y)


@pytest.mark.parametrize("norm", [nn.utils.spectral_norm, nn.utils.parametrizations.spectral_norm])
@pytest.mark.parametrize("inputs", [None, torch.rand(1, 3, 8, 8)], ids=["symbolic", "recorded"])
def test_a_weight_whose_computation_changes_buffers(norm: Callable[..., Any], inputs: Tensor | None) -> None:
    """The estimate of the largest singular value goes on with each reading of the weight, and not by a look."""
    model = nn.Sequential(norm(nn.Conv2d(3, 4, 3)), nn.ReLU(), nn.Conv2d(4, 2, 1))
    before = state_of(model)
    for look in (analyze, param_groups, prepare):
        look(model, inputs)
        assert state_of(model) == before


def test_a_symbolic_trace() -> None:
    model = Restless(
        lambda m, x: (m.notes.append(1), m.conv.register_forward_hook(print), setattr(m, "new", 1))
    )
    before = state_of(model)
    analyze(model)
    prepare(model)
    assert state_of(model) == before


def test_torchscript_keeps_its_own_attributes() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count, self.last = 0, torch.zeros(1)

        def forward(self, x: Tensor) -> Tensor:
            self.count += 1
            self.last = x.sum()
            return x

    scripted = torch.jit.script(Counting())
    model, x = nn.Sequential(nn.Conv2d(3, 3, 1), scripted), torch.rand(1, 3, 4, 4)
    analyze(model, x)
    assert (scripted.count, scripted.last.tolist()) == (0, [0.0])


def test_what_hooks_and_patched_methods_keep_in_their_closures() -> None:
    seen: list[int] = []
    count = 0

    def hook(*_: Any) -> None:
        nonlocal count
        count += 1
        seen.append(count)

    model = nn.Sequential(nn.Conv2d(3, 3, 1))
    model[0].register_forward_hook(hook)
    analyze(model, X)
    assert (seen, count) == ([], 0)


def test_a_graph_from_before_can_still_be_differentiated() -> None:
    """Batch norm in evaluation keeps its running statistics for the backward pass, and checks their version."""
    model = Restless(lambda m, x: None)
    model.norm.eval()
    loss = model(X).square().sum()
    model.norm.train()
    analyze(model, X)
    loss.backward()
    assert model.conv.weight.grad is not None


def test_a_run_that_fails_changes_nothing_either(how: str) -> None:
    def fail(m: Restless, x: Tensor) -> None:
        for change in (c for name, c in CHANGES.items() if "NumPy" not in name):
            change(m, x)
        raise ValueError("no")

    model = Restless(fail)
    before = state_of(model)
    with pytest.raises(TraceError, match="no"):
        analyze(model, X)
    assert state_of(model) == before


def test_a_model_that_cannot_switch_modes_is_an_error_of_ours_and_stays_as_it_was() -> None:
    class Stuck(nn.Conv2d):
        def train(self, mode: bool = True) -> Stuck:
            self.weight.data.zero_()
            raise RuntimeError("not now")

    model = nn.Sequential(Stuck(3, 4, 1))
    before = state_of(model)
    with pytest.raises(TraceError, match="not now"):
        analyze(model, X)
    assert state_of(model) == before
