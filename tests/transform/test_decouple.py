"""Direction and gain: same function, same gradients by the chain rule, and the traps of torch's weight_norm."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from sgdph_fx import prepare, restore
from sgdph_fx.errors import ModelError
from sgdph_fx.transform.decouple import Decoupled, decouple
from sgdph_fx.transform.filters import Filters

CONVOLUTIONS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "Conv1d": (lambda: nn.Conv1d(4, 6, 3), (2, 4, 9)),
    "Conv2d": (lambda: nn.Conv2d(4, 6, 3), (2, 4, 6, 6)),
    "Conv2d grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 6, 6)),
    "Conv2d depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, bias=False), (2, 4, 6, 6)),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(4, 6, 3), (2, 4, 9)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5)),
    "ConvTranspose2d grouped": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2), (2, 2, 3, 3, 3)),
}


def filter_of(weight: Tensor, conv: nn.Module, channel: int) -> Tensor:
    """The numbers that output ``channel`` depends on, taken straight from the documented weight layouts."""
    if "Transpose" not in type(conv).__name__:
        return weight[channel]
    per_group = conv.out_channels // conv.groups
    inputs = conv.in_channels // conv.groups
    group = channel // per_group
    return weight[group * inputs : (group + 1) * inputs, channel % per_group]


@pytest.fixture(params=CONVOLUTIONS, ids=str)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    build, shape = CONVOLUTIONS[request.param]
    return build().double(), torch.rand(shape, dtype=torch.float64)


def test_same_function_and_same_input_gradient(case: tuple[nn.Module, Tensor]) -> None:
    conv, x = case
    prepared = prepare(conv).model
    assert isinstance(prepared, Decoupled)
    assert isinstance(prepared, type(conv))
    for training in (True, False):
        a, b = (x.clone().requires_grad_() for _ in range(2))
        y, z = conv.train(training)(a), prepared.train(training)(b)
        assert torch.allclose(y, z, rtol=1e-12, atol=0)
        y.square().sum().backward()
        z.square().sum().backward()
        assert torch.allclose(a.grad, b.grad, rtol=1e-12, atol=1e-14)


def test_one_gain_for_each_output_channel_and_the_chain_rule(case: tuple[nn.Module, Tensor]) -> None:
    """∂L/∂gain of a channel = ⟨∂L/∂weight, direction/‖direction‖⟩ over that channel's filter."""
    conv, x = case
    prepared = prepare(conv).model
    conv(x).square().sum().backward()
    prepared(x).square().sum().backward()
    assert prepared.gain.shape == (conv.out_channels,)
    for channel in range(conv.out_channels):
        weight, gradient = (filter_of(t, conv, channel) for t in (conv.weight.detach(), conv.weight.grad))
        assert torch.allclose(prepared.gain[channel], weight.norm())
        assert torch.allclose(prepared.gain.grad[channel], (gradient * weight).sum() / weight.norm())


@pytest.mark.parametrize("build", [lambda: nn.Conv2d(3, 4, 3), lambda: nn.ConvTranspose2d(3, 4, 3)])
def test_filter_of_zeros_stays_zero_with_finite_gradients_and_can_leave(
    build: Callable[[], nn.Module],
) -> None:
    conv = build().double()
    dim = 1 if isinstance(conv, nn.ConvTranspose2d) else 0
    with torch.no_grad():
        conv.weight.select(dim, 1).zero_()
        conv.bias.zero_()
    x = torch.rand(2, 3, 5, 5, dtype=torch.float64)

    theirs = weight_norm(copy.deepcopy(conv), dim=dim)
    assert theirs(x).isnan().any(), "torch's weight_norm gives NaN here"

    model = prepare(conv).model
    assert model(x)[:, 1].abs().max() == 0
    (model(x) - 1).square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    optimizer.step()
    assert model.weight.select(dim, 1).abs().max() > 0


def test_gain_shape_and_count_where_weight_norm_differs() -> None:
    conv = nn.ConvTranspose2d(4, 6, 3, groups=2)
    theirs = weight_norm(copy.deepcopy(conv), dim=1).parametrizations.weight.original0
    assert (theirs.dim(), theirs.numel()) == (4, 3), (
        "torch's weight_norm: 4-D, one for each channel of a group"
    )
    assert prepare(conv).model.gain.shape == (6,)


def test_a_weight_may_be_assigned_to_its_own_module() -> None:
    """As `m.weight = m.weight` in loops that tie what may be tied already."""
    model = prepare(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU())).model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model[0].weight = model[0].weight
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.relu(self.first(x)))


def test_shared_weight_stays_shared() -> None:
    tied = Tied()
    theirs = copy.deepcopy(tied)
    weight_norm(theirs.first)
    weight_norm(theirs.second)
    assert len(dict(theirs.named_parameters())) == 6, "torch's weight_norm: two directions, two gains"

    prepared = prepare(tied).model
    for model in (prepared, copy.deepcopy(prepared), pickle.loads(pickle.dumps(prepared))):
        assert model.first.direction is model.second.direction
        assert model.first.gain is model.second.gain
    back = restore(prepared)
    assert back.first.weight is back.second.weight
    assert torch.equal(back.first.weight, tied.first.weight)
    assert list(back.state_dict()) == list(tied.state_dict())


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.ConvTranspose2d(6, 6, 3, groups=2),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(6 * 36, 2),
    )


def test_the_persons_model_is_not_touched_and_restore_gives_it_back() -> None:
    model = small()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    back = restore(prepare(model).model)
    for candidate in (model, back):
        state = candidate.state_dict()
        assert list(state) == list(before)
        assert all(torch.equal(state[k], before[k]) and state[k].dtype == before[k].dtype for k in before)
    assert [type(m) for m in back.modules()] == [type(m) for m in model.modules()]
    assert restore(model) is not model


def test_in_place_keeps_the_parameters_objects() -> None:
    model = small()
    weight, bias = model[0].weight, model[0].bias
    assert prepare(model, inplace=True).model is model
    assert model[0].direction is weight
    assert model[0].bias is bias
    assert restore(model, inplace=True) is model
    assert model[0].weight is weight


def test_restored_weights_are_those_that_were_trained() -> None:
    model, _, _ = prepare(small())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x = torch.rand(2, 3, 6, 6)
    model(x).square().sum().backward()
    optimizer.step()
    back = restore(model)
    assert torch.equal(back[0].weight, model[0].weight)
    assert torch.allclose(back(x), model(x), rtol=1e-5, atol=0)
    assert back[0].weight.grad is None


def test_hooks_attributes_and_modes_are_kept() -> None:
    model = small()
    seen = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    model[0].note = "kept"
    model.eval()
    prepared = prepare(model).model
    prepared(torch.rand(1, 3, 6, 6))
    assert seen == [1]
    assert prepared[0].note == "kept"
    assert not prepared[0].training


def test_weight_can_be_read_and_assigned() -> None:
    model = prepare(small()).model
    new = torch.rand_like(model[0].weight)
    model[0].weight = new
    assert torch.equal(model[0].weight, new)
    model[0].weight = nn.Parameter(new * 2)
    assert torch.equal(model[0].weight, new * 2)
    assert "weight" not in dict(model[0].named_parameters())


def test_channels_last_and_half_precision_are_kept() -> None:
    model = small().to(memory_format=torch.channels_last)
    assert prepare(model).model[0].weight.is_contiguous(memory_format=torch.channels_last)
    half = prepare(small().bfloat16()).model
    assert half[0].gain.dtype == half[0].weight.dtype == torch.bfloat16


class Owner(nn.Module):
    """A functional convolution on a parameter that is not called ``weight``."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.rand(4, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel)


def test_functional_convolution_is_decoupled_through_its_owner() -> None:
    owner = Owner()
    model, groups, _ = prepare(owner)
    assert isinstance(model, Owner)
    assert dict(model.named_parameters()).keys() == {"kernel_direction", "kernel_gain"}
    x = torch.rand(1, 3, 5, 5)
    assert torch.equal(model(x), owner(x))
    assert {g["role"] for g in groups} == {"direction", "gain"}
    assert prepare(model).param_groups[0]["param_names"] == groups[0]["param_names"]
    assert list(restore(model).state_dict()) == ["kernel"]


def test_parameter_order_and_name_clash() -> None:
    assert [n for n, _ in prepare(small()).model.named_parameters()][:3] == [
        "0.direction",
        "0.gain",
        "0.bias",
    ]
    conv = nn.Conv2d(1, 1, 1)
    conv.gain = 3
    with pytest.raises(ModelError, match="'gain' of its own"):
        decouple(conv, {"weight": Filters()}, inplace=True)
    assert "weight" in conv._parameters
