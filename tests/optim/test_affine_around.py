"""blocks="affine" in every way to run a step."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from sgdph_fx.errors import NoCurvatureError, OptimizerError
from sgdph_fx.optim import SGDPH
from tests.once import Cut
from tests.optim.affine_oracle import NAMES, Norms, batch, groups

AFFINE: Any = {"blocks": "affine"}
GN: Any = {"curvature": "gauss-newton", **AFFINE}
HOW: tuple[Any, ...] = (
    AFFINE,
    {"probe": "rademacher", "seed": 3, **AFFINE},
    {"probe": "exact", "negative_curvature": "zero", "max_preconditioner": 1.0, **AFFINE},
    {"seed": 3, **GN},
    {"refresh": "all", "hessian_interval": 2, **GN},
)


def train(net: Norms, optimizer: SGDPH, first: int, last: int) -> None:
    for t in range(first, last):
        optimizer.zero_grad()
        optimizer.backward(net.loss(batch(t)))
        optimizer.step()


def require_same(a: nn.Module, b: nn.Module, **close: float) -> None:
    for p, q in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(p, q, **(close or {"rtol": 0, "atol": 0}))


def coupling(net: Norms, optimizer: SGDPH) -> Tensor:
    found: Tensor = optimizer.state[net.norm.bias]["hessian_coupling"]
    return found


def test_a_pair_shares_a_turn_at_the_place_of_the_first_of_the_two() -> None:
    net = Norms()
    optimizer = SGDPH(groups(net), 0.05, **AFFINE)
    due = []
    for t in range(6):
        due.append(optimizer.due_name)
        train(net, optimizer, t, t + 1)
    assert due == ["conv.bias", "norm.weight", None] * 2  # the authors' last one is not refreshed
    assert optimizer.statistics()["cycle_length"] == 3
    assert bool(coupling(net, optimizer).all())


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_run_resumes_with_the_same_bits(how: Any, stop: int) -> None:
    whole, before, after = Norms(), Norms(), Norms()
    train(whole, SGDPH(groups(whole), 0.05, **how), 0, 9)
    optimizer = SGDPH(groups(before), 0.05, **how)
    train(before, optimizer, 0, stop)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    after.load_state_dict(before.state_dict())
    resumed = SGDPH(groups(after)[::-1], 9.9, **how)  # the names decide, whatever the order
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(after, resumed, stop, 9)
    require_same(whole, after)


def test_a_state_without_blocks_is_of_the_diagonal() -> None:
    net, other = Norms(), Norms()
    optimizer = SGDPH(groups(net), 0.05)
    train(net, optimizer, 0, 4)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["blocks"]
    with pytest.raises(OptimizerError, match="saved with blocks='diagonal' and has 'affine' here"):
        SGDPH(groups(other), 0.05, **AFFINE).load_state_dict(state)
    resumed = SGDPH(groups(other), 0.05)
    resumed.load_state_dict(state)
    other.load_state_dict(net.state_dict())
    train(net, optimizer, 4, 9)
    train(other, resumed, 4, 9)
    require_same(net, other)


@pytest.mark.parametrize("buffer", [torch.ones(3, dtype=torch.float64), torch.full((4,), torch.nan).double()])
def test_a_damaged_coupling_is_refused(buffer: Tensor) -> None:
    net = Norms()
    optimizer = SGDPH(groups(net), 0.05, **AFFINE)
    train(net, optimizer, 0, 3)
    state = optimizer.state_dict()
    next(own for own in state["state"].values() if "hessian_coupling" in own)["hessian_coupling"] = buffer
    with pytest.raises(OptimizerError, match=r"The saved hessian_coupling of parameter 'norm.bias' is"):
        SGDPH(groups(Norms()), 0.05, **AFFINE).load_state_dict(state)


def test_a_pair_that_the_loss_does_not_use_keeps_what_its_average_holds() -> None:
    """A turn of one parameter that is not used leaves its average, too."""
    net = Norms()
    optimizer = SGDPH(groups(net), 0.05, **AFFINE)
    train(net, optimizer, 0, 4)
    assert optimizer.due_name == "norm.weight"
    before = [coupling(net, optimizer).clone()]
    before += [optimizer.state[net.get_parameter(name)]["hessian_average"].clone() for name in NAMES]
    optimizer.zero_grad()
    optimizer.backward(net.linear(net.conv(batch(4)[0]).mean((2, 3))).square().sum())
    optimizer.step()
    after = [coupling(net, optimizer)]
    after += [optimizer.state[net.get_parameter(name)]["hessian_average"] for name in NAMES]
    torch.testing.assert_close(after, before, rtol=0, atol=0)


@pytest.mark.parametrize("how", HOW)
def test_a_step_that_the_device_skips_leaves_the_blocks_as_they_were(how: Any) -> None:
    """The product is finite there; one number of a gradient is not."""
    net = Norms()
    optimizer = SGDPH(groups(net), 0.05, capturable=True, **how)
    train(net, optimizer, 0, 4)
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict()["state"]))
    assert "refresh" in how or optimizer.due_name == "norm.weight"
    optimizer.zero_grad()
    optimizer.backward(net.loss(batch(4)))
    assert net.linear.weight.grad is not None
    net.linear.weight.grad[0, 0] = torch.inf
    optimizer.step()
    with pytest.warns(RuntimeWarning, match="skipped"):
        assert (optimizer.steps_skipped, optimizer.refreshes_skipped) == (1, 0)
    after = net.state_dict(), optimizer.state_dict()["state"]
    torch.testing.assert_close([dict(after[0]), after[1]], [dict(before[0]), before[1]], rtol=0, atol=0)


@pytest.mark.parametrize("how", HOW)
def test_a_plain_loop_has_the_bits_of_multi_tensor_calls(how: Any) -> None:
    nets = [Norms(), Norms()]
    for net, foreach in zip(nets, (False, True), strict=True):
        train(net, SGDPH(groups(net), 0.05, foreach=foreach, weight_decay=0.01, **how), 0, 7)
    require_same(*nets)


@pytest.mark.parametrize("how", HOW[:3])
def test_differentiated_gradients_give_the_same_as_the_sweep(how: Any) -> None:
    nets = [Norms(), Norms()]
    optimizers = [SGDPH(groups(net), 0.05, **how) for net in nets]
    train(nets[0], optimizers[0], 0, 7)
    for t in range(7):
        optimizers[1].zero_grad()
        torch.autograd.backward(nets[1].loss(batch(t)), create_graph=True)
        optimizers[1].step()
    require_same(*nets, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("how", [AFFINE, {"probe": "exact", **GN}])
def test_micro_batches_a_scaler_and_another_loss_give_the_whole_batch(how: Any) -> None:
    nets = [Norms() for _ in range(4)]
    optimizers = [SGDPH(groups(net), 0.05, **how) for net in nets]
    scaler = GradScaler("cpu", init_scale=2.0**14)
    train(nets[0], optimizers[0], 0, 7)
    for t in range(7):
        x, y = batch(t)
        for optimizer in optimizers[1:]:
            optimizer.zero_grad()
        for part in (slice(0, 3), slice(3, 6)):
            optimizers[1].backward(nets[1].loss((x[part], y[part])))
        optimizers[1].scale_gradients(0.5)
        optimizers[1].step()
        optimizers[2].backward(scaler.scale(nets[2].loss((x, y))))
        scaler.step(optimizers[2])
        scaler.update()
        optimizers[3].backward(nets[3].loss((x, y)), hessian_loss=lambda x=x, y=y: nets[3].loss((x, y)))
        optimizers[3].step()
    for net in nets[1:]:
        require_same(nets[0], net, rtol=1e-9, atol=1e-11)


def test_each_of_the_two_keeps_its_own_rate_decay_and_momentum() -> None:
    """One step, so that the momenta are the gradients; of the shift the rate is twice as large and there is decay."""
    found = []
    for more in ({}, {"lr": 0.1, "weight_decay": 0.25, "momentum": 0.0}):
        net = Norms()
        rows = groups(net)
        rows[1] |= more
        optimizer = SGDPH(rows, 0.05, probe="exact", refresh="all", **GN)
        before = [net.get_parameter(name).detach().clone() for name in NAMES]
        train(net, optimizer, 0, 1)
        found.append([b - net.get_parameter(name).detach() for name, b in zip(NAMES, before, strict=True)])
    torch.testing.assert_close(found[1][0], found[0][0], rtol=0, atol=0)
    torch.testing.assert_close(found[1][1], 2 * found[0][1] + 0.1 * 0.25 * before[1], rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("fallback", ["gradient", "first-order", "raise"])
def test_where_there_is_no_second_derivative_both_go_on_as_it_was_asked(fallback: Any) -> None:
    net = Norms()
    net.norm.register_forward_hook(lambda module, args, out: Cut.apply(out))
    optimizer = SGDPH(groups(net), 0.0, hessian_momentum=0.0, without_curvature=fallback, **AFFINE)
    optimizer.param_groups[0]["step"] = 1  # the pair is due
    optimizer.param_groups[1]["step"] = optimizer.param_groups[2]["step"] = optimizer.param_groups[3][
        "step"
    ] = 1
    loss = net.loss(batch(0))
    if fallback == "raise":
        with pytest.raises(NoCurvatureError):
            optimizer.backward(loss)
        assert net.norm.weight.grad is None
        return
    optimizer.backward(loss)
    slopes = [net.get_parameter(name).grad for name in NAMES]
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        optimizer.step()
    assert optimizer.parameters_without_curvature == NAMES
    for name, slope in zip(NAMES, slopes, strict=True):
        own = optimizer.state[net.get_parameter(name)]
        assert ("hessian_average" in own) == (fallback == "gradient")
        if fallback == "gradient":
            assert slope is not None
            torch.testing.assert_close(own["hessian_average"], slope.abs())
    if fallback == "gradient":
        assert not coupling(net, optimizer).any()


def test_an_estimate_that_is_not_finite_is_left_out_whole() -> None:
    """(k γ)² / 2 + γ β with k² = 1e400: the gradient holds at γ = 1e-300, a overflows and c does not."""
    gamma, beta = (nn.Parameter(torch.full((2,), x, dtype=torch.float64)) for x in (1e-300, 1.0))
    named = [("x.gamma", gamma), ("x.beta", beta)]
    optimizer = SGDPH([{"params": named, "order": 2}], 0.0, variant="paper", probe="exact", **AFFINE)
    optimizer.backward(((1e200 * gamma) * 1e100 * (1e100 * gamma)).sum() / 2 + (gamma * beta).sum())
    with pytest.warns(RuntimeWarning, match="average has not been changed"):
        optimizer.step()
    assert (optimizer.refreshes_skipped, optimizer.steps_skipped) == (1, 0)
    assert torch.equal(optimizer.state[gamma]["hessian_average"], torch.full_like(gamma, 1e-2))
    assert not optimizer.state[beta]["hessian_coupling"].any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_stay_finite(dtype: torch.dtype) -> None:
    net = Norms().to(dtype)
    optimizer = SGDPH(groups(net), 0.05, max_preconditioner=1.0, **AFFINE)
    for t in range(6):
        x, y = batch(t)
        optimizer.zero_grad()
        optimizer.backward(net.loss((x.to(dtype), y)))
        optimizer.step()
    assert all(bool(p.isfinite().all()) for p in net.parameters())
    assert coupling(net, optimizer).dtype is dtype
    assert bool(coupling(net, optimizer).any())
