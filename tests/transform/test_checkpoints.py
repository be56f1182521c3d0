"""Prepared models saved, copied and loaded; and checkpoints of plain models, both ways."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import Plan, analyze, prepare, restore
from sgdph_fx.errors import PlanFormatError, PlanMismatchError
from tests.transform.test_decouple import Tied, small


def test_pickle_deepcopy_and_save_of_the_whole_model() -> None:
    model = prepare(small()).model
    x = torch.rand(1, 3, 6, 6)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    for twin in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(twin(x), model(x))
        assert type(twin[0]) is type(model[0])
        assert twin[0].direction is not model[0].direction


def test_checkpoints_load_both_ways() -> None:
    plain, other = small(), small()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(torch.rand_like(p))
    prepared, _, report = prepare(plain)
    prepared.load_state_dict(other.state_dict())
    x = torch.rand(1, 3, 6, 6)
    assert torch.equal(prepared(x), other(x))
    plain.load_state_dict(report.plan.restore_state_dict(prepared.state_dict()))
    assert torch.equal(plain(x), other(x))
    again = prepare(small()).model
    again.load_state_dict(prepared.state_dict())
    assert torch.equal(again[0].direction, prepared[0].direction)


def test_plain_checkpoint_of_a_tied_model_loads() -> None:
    source, prepared = Tied(), prepare(Tied()).model
    prepared.load_state_dict(source.state_dict())
    assert torch.equal(prepared.first.weight, source.first.weight)
    assert prepared.second.gain is prepared.first.gain


def test_missing_weight_is_reported_under_its_names() -> None:
    with pytest.raises(RuntimeError, match=r"0\.direction.*0\.gain"):
        prepare(small()).model.load_state_dict({})


class TwoNames(nn.Module):
    """A convolution that stands under two names, with its parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.stem = nn.Sequential(self.conv, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.stem(x)


class TiedOwners(nn.Module):
    """A convolution module, and a parameter of another name that is its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.inner = nn.Module()
        self.inner.kernel = self.conv.weight

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.relu(self.conv(x)), self.inner.kernel)


@pytest.mark.parametrize("build", [TwoNames, TiedOwners, Tied])
@pytest.mark.parametrize("shares", [True, False], ids=["sharing memory", "read from a file"])
def test_a_weight_under_several_names_restores_under_all_of_them(
    build: Callable[[], nn.Module], shares: bool
) -> None:
    model, x = build(), torch.rand(1, 3, 6, 6)
    prepared, _, report = prepare(model)
    with torch.no_grad():
        for p in prepared.parameters():
            p.add_(torch.rand_like(p))
    state = prepared.state_dict()
    state = state if shares else {key: value.clone() for key, value in state.items()}
    plain = report.plan.restore_state_dict(state)
    assert list(plain) == list(model.state_dict())
    fresh = build()
    fresh.load_state_dict(plain)
    assert torch.equal(fresh(x), prepared(x))
    assert torch.equal(restore(prepared)(x), prepared(x))


class Autoencoder(nn.Module):
    """A convolution and its transpose by one weight: the filters of one are not those of the other."""

    def __init__(self, decoder_first: bool = False) -> None:
        super().__init__()
        if decoder_first:
            self.decode = nn.ConvTranspose2d(8, 3, 3)
        self.encode = nn.Conv2d(3, 8, 3)
        if not decoder_first:
            self.decode = nn.ConvTranspose2d(8, 3, 3)
        self.decode.weight = self.encode.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x).relu())


@pytest.mark.parametrize("decoder_first", [False, True])
def test_a_convolution_and_its_transpose_keep_the_weight_that_they_share(decoder_first: bool) -> None:
    model, x = Autoencoder(decoder_first), torch.rand(1, 3, 6, 6)
    for inputs in (None, x):
        prepared, groups, report = prepare(model, inputs)
        assert report.plan.decoupled == ()
        assert all("share a weight" in row.reason for row in report.plan.convolutions)
        shapes = {p.name: p.shape for p in report.plan.parameters}
        assert shapes == {name: tuple(p.shape) for name, p in prepared.named_parameters()}
        assert sum(len(g["params"]) for g in groups) == len(shapes)
        prepared.load_state_dict(model.state_dict())


def test_a_saved_plan_that_decouples_both_is_refused() -> None:
    """Version 1 wrote such plans."""
    text = analyze(Autoencoder()).to_json().replace('"decouple": false', '"decouple": true')
    with pytest.raises(PlanFormatError, match=r"share 'encode\.weight', but not its output filters"):
        Plan.from_json(text)


@pytest.mark.filterwarnings("ignore:Casting complex values")
@pytest.mark.parametrize("dtype", [torch.int32, torch.cfloat, torch.float64, torch.bfloat16, torch.float16])
def test_a_plain_weight_of_another_dtype_is_cast_as_torch_casts_it(dtype: torch.dtype) -> None:
    plain = nn.Conv2d(3, 4, 3)
    model = prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).model
    weight = (10 * torch.randn(4, 3, 3, 3, dtype=dtype if dtype.is_complex else torch.float32)).to(dtype)
    plain.load_state_dict({"weight": weight, "bias": torch.zeros(4)})
    model.load_state_dict({"0.weight": weight, "0.bias": torch.zeros(4)})
    torch.testing.assert_close(model[0].weight.detach(), plain.weight.detach())


def test_what_is_no_tensor_is_refused_by_torch_itself() -> None:
    model = prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).model
    with pytest.raises(RuntimeError, match=r'the parameter named "0\.direction"'):
        model.load_state_dict({"0.weight": "text", "0.bias": torch.zeros(4)})


@pytest.mark.parametrize("name", ["direction", "scan_direction", "gain", "again"])
@pytest.mark.parametrize("value", [torch.tensor(1), torch.ones(3)], ids=["whole", "real"])
def test_a_buffer_of_the_person_s_own_stays_by_whatever_name(name: str, value: Tensor) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    net.register_buffer(name, value)
    prepared = prepare(net)
    plain = prepared.report.plan.restore_state_dict(prepared.model.state_dict())
    assert plain.keys() == net.state_dict().keys()
    net.load_state_dict(plain)
    assert torch.equal(plain[name], value)


def test_a_checkpoint_of_a_shared_weight_needs_the_parts_under_both_names() -> None:
    prepared = prepare(Tied())
    state = dict(prepared.model.state_dict())
    assert prepared.report.plan.restore_state_dict(state).keys() == Tied().state_dict().keys()
    del state["second.gain"]
    with pytest.raises(PlanMismatchError, match=r"it lacks second\.gain"):
        prepared.report.plan.restore_state_dict(state)


def test_a_copy_of_a_direction_without_a_gain_beside_it_is_a_tensor_like_others() -> None:
    """As a buffer that keeps where a training began."""
    prepared = prepare(small())
    state = dict(prepared.model.state_dict())
    state["start.direction"] = state["0.direction"].clone()
    plain = prepared.report.plan.restore_state_dict(state)
    assert plain.keys() == {*small().state_dict(), "start.direction"}
    assert torch.equal(plain["start.direction"], state["0.direction"])
