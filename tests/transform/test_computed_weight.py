"""What is written into a decoupled weight arrives in gain and direction, as it would in a plain weight."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from sgdph_fx import SGDPH, prepare, restore
from sgdph_fx.errors import ModelError
from sgdph_fx.transform.computed_weight import ComputedWeight
from sgdph_fx.transform.decouple import decouple
from sgdph_fx.transform.filters import Filters
from tests.transform.writes import WRITES, no_grad

X = torch.rand(2, 4, 7, 7, dtype=torch.float64)
LAYOUTS: dict[str, tuple[Callable[[], nn.Module], Filters]] = {
    "plain": (lambda: nn.Conv2d(4, 6, 3), Filters()),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), Filters(groups=2)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), Filters(transposed=True, groups=2)),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_write_does_what_it_does_to_a_plain_weight(layout: str, write: Callable[[nn.Module], Any]) -> None:
    build, filters = LAYOUTS[layout]
    plain = build().double()
    model = decouple(plain, {"weight": filters})
    with torch.no_grad():
        model.direction.mul_(1.7)  # as training leaves it: its length is not the gain
    parts = model.direction, model.gain
    for candidate in (plain, model):
        torch.manual_seed(1)
        write(candidate)
    torch.testing.assert_close(model.weight.detach(), plain.weight.detach(), rtol=1e-14, atol=1e-15)
    torch.testing.assert_close(model(X), plain(X), rtol=1e-12, atol=1e-13)
    assert (model.direction, model.gain) == parts  # the same parameters: an optimizer still knows them
    assert all(p.requires_grad and p.grad_fn is None for p in parts)
    assert torch.equal(restore(model).weight, model.weight)


def test_what_only_reads_the_weight_leaves_gain_and_direction_alone() -> None:
    model = prepare(nn.Conv2d(4, 6, 3).double()).model
    with torch.no_grad():
        model.direction.mul_(1.7)
    before = [p.detach().clone() for p in (model.direction, model.gain)]
    other = torch.zeros(6, 4, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        other.add_(model.weight).mul_(model.weight)
        torch.mul(model.weight, 2, out=other)
        model.weight.clone().zero_()
        (model.weight * 2).zero_()
        copy.deepcopy(model.weight).zero_()
        model.weight.sum(), model.weight.norm(), repr(model.weight), model.weight.tolist()
        ~model.weight.bool()
        int(model.weight[0, 0, 0, 0])
    assert all(map(torch.equal, before, (model.direction, model.gain)))


def test_what_is_computed_from_it_is_plain() -> None:
    model = prepare(nn.Conv2d(4, 6, 3)).model
    for result in (
        model(X.float()),
        model.weight * 2,
        model.weight.clone(),
        model.weight.sum(),
        model.weight + 1,
    ):
        assert type(result) is Tensor
    assert model.weight.grad_fn is not None


def test_a_weight_that_is_held_sees_what_is_trained() -> None:
    model = prepare(nn.Conv2d(4, 6, 3).double()).model
    held = model.weight.data
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    model(X).square().sum().backward()
    optimizer.step()
    held.mul_(2)  # twice what it is now, not twice what it was
    (expected,) = [p.detach() for n, p in prepare(nn.Conv2d(4, 6, 3)).model.named_parameters() if n == "gain"]
    assert expected.shape == model.gain.shape
    torch.testing.assert_close(model.weight.detach(), held)


def test_writes_while_gradients_are_recorded_are_refused_as_torch_refuses_them() -> None:
    plain = nn.Conv2d(4, 6, 3)
    model = prepare(plain).model
    before = model.weight.detach().clone()
    for write in (lambda w: w.mul_(2), lambda w: w.__setitem__(0, 0.0), lambda w: w.zero_()):
        with pytest.raises(RuntimeError, match="leaf"):
            write(plain.weight)
        with pytest.raises(ModelError, match=r"under `torch\.no_grad\(\)`"):
            write(model.weight)
    assert torch.equal(model.weight, before)
    model.requires_grad_(False)
    model.weight.mul_(2)
    assert torch.allclose(model.weight, 2 * before)


@pytest.mark.parametrize(
    "write",
    [
        lambda m: setattr(m.weight, "data", torch.zeros(2, 4, 3, 3)),
        lambda m: m.weight.data.resize_(2, 2),
        no_grad(lambda m: m.weight.squeeze_(0).unsqueeze_(0)),
        no_grad(lambda m: m.weight.transpose_(2, 3).squeeze_()),
    ],
)
def test_another_shape_is_refused(write: Callable[[nn.Module], Any]) -> None:
    model = prepare(nn.Conv2d(4, 6, (3, 5))).model
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(ModelError, match=r"restore\(model\)"):
        write(model)
    assert all(map(torch.equal, model.state_dict().values(), state.values()))


def test_numpy_may_read_it_but_not_write_to_it() -> None:
    model = prepare(nn.Conv2d(4, 6, 3)).model
    for array in (model.weight.detach().numpy(), model.weight.data.numpy()):
        assert array.shape == (6, 4, 3, 3)
        with pytest.raises(ValueError, match="read-only"):
            array *= 2


def test_freezing_the_weight_freezes_gain_and_direction() -> None:
    model = prepare(nn.Conv2d(4, 6, 3)).model
    model.weight.requires_grad_(False)
    assert [p.requires_grad for p in (model.direction, model.gain)] == [False, False]
    model.weight.requires_grad = True
    assert [p.requires_grad for p in (model.direction, model.gain)] == [True, True]


def test_another_dtype_by_data() -> None:
    model = prepare(nn.Conv2d(4, 6, 3, bias=False)).model
    model.weight.data = model.weight.data.double()
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert model(X).dtype == torch.float64


class Capped(nn.Conv2d):
    """Keeps the norm of its filters in its forward, as max-norm regularization is written."""

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.5)
        return super().forward(x)


def test_a_norm_cap_in_the_forward_holds_in_training() -> None:
    """Against the same training of the plain model's own cap: after each forward, no filter is longer."""
    torch.manual_seed(0)
    model, groups, _ = prepare(nn.Sequential(Capped(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)), X.float())
    optimizer = SGDPH(groups, lr=1.0)
    longest = []
    for _ in range(4):
        optimizer.zero_grad()
        optimizer.backward(-model(X.float()).pow(2).mean())
        longest.append(model[0].weight.detach().flatten(1).norm(dim=1).max().item())
        optimizer.step()
    assert (
        model[0].weight.detach().flatten(1).norm(dim=1).max() > 0.5
    )  # a step leads out, and the next forward back
    assert max(longest) <= 0.5 + 1e-6


def test_torchs_convolution_computes_with_the_weight_and_hands_no_link_on(monkeypatch: Any) -> None:
    """What nobody can write into is a plain tensor; a convolution that is patched later still runs."""
    seen: list[type] = []

    def convolve(input: Tensor, weight: Tensor, *rest: Any) -> Tensor:
        seen.append(type(weight))
        return conv2d(input, weight, *rest)

    conv2d = F.conv2d
    monkeypatch.setattr(F, "conv2d", convolve)
    model = prepare(nn.Conv2d(4, 6, 3).double()).model
    expected = conv2d(X, model.weight.detach(), model.bias)
    seen.clear()
    assert torch.equal(model(X), expected)
    assert seen == [Tensor]
    monkeypatch.setattr(
        nn.Conv2d, "forward", lambda self, input: self._conv_forward(-input, self.weight, None)
    )
    torch.testing.assert_close(model(X), conv2d(-X, model.weight.detach()))
    assert seen == [Tensor, ComputedWeight]


def test_under_autocast_it_is_rounded_once_and_its_gradient_comes_back_as_by_torchs_casts() -> None:
    torch.manual_seed(0)
    model, x = prepare(nn.Conv2d(4, 6, 3)).model, X.float()
    found = []
    with torch.autocast("cpu", torch.bfloat16):
        for y in (model(x), F.conv2d(x, model.weight, model.bias)):
            assert y.dtype is torch.bfloat16
            found.append([y, *torch.autograd.grad(y.float().square().sum(), list(model.parameters()))])
    torch.testing.assert_close(*found, rtol=0, atol=0)
    assert all(g.dtype is torch.float32 for g in found[0][1:])


def test_an_average_of_weights_is_swapped_in_and_out() -> None:
    model = prepare(nn.Conv2d(4, 6, 3).double()).model
    average = {name: p.detach() * 0.5 for name, p in model.named_parameters()}
    kept = parameters_to_vector(model.parameters()).detach().clone()
    y = model(X)
    for name, p in model.named_parameters():
        p.data.copy_(average[name])
    assert not torch.allclose(model(X), y)
    vector_to_parameters(kept, model.parameters())
    assert torch.equal(model(X), y)


def test_reading_leaves_nothing_for_the_garbage_collector() -> None:
    def alive() -> set[int]:
        return {id(o) for o in gc.get_objects() if type(o) is ComputedWeight}

    model = prepare(nn.Conv2d(4, 6, 3)).model
    gc.collect()
    gc.disable()
    try:
        before = alive()
        for _ in range(3):
            model(X.float()).sum().backward()
            model.weight.data.mul_(1)
        assert alive() <= before
    finally:
        gc.enable()


def test_a_compiler_an_exporter_and_transforms_see_a_plain_tensor() -> None:
    model, x = prepare(nn.Conv2d(4, 6, 3).double()).model, X
    assert torch.allclose(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))
    assert torch.allclose(torch.export.export(model, (x,)).module()(x), model(x))
    gains = torch.stack([model.gain.detach(), 2 * model.gain.detach()])
    several = torch.vmap(lambda gain: torch.func.functional_call(model, {"gain": gain}, x))(gains)
    assert torch.allclose(several[0], model(x))

    def loss(gain: Tensor) -> Tensor:
        return F.mse_loss(torch.func.functional_call(model, {"gain": gain}, x), torch.zeros_like(model(x)))

    hessian = torch.func.hessian(loss)(model.gain.detach())
    assert hessian.shape == (6, 6)
