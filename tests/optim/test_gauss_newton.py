"""curvature="gauss-newton" in the optimizer: what it averages, and in every way to run a step."""

from __future__ import annotations

import copy
import io
import math
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from sgdph_fx import attach
from sgdph_fx.errors import NoCurvatureError
from sgdph_fx.optim import SGDPH
from tests.once import Cut
from tests.optim.gauss_newton_oracle import dense_diagonal

GN: Any = {"curvature": "gauss-newton"}
EXACT: Any = {**GN, "probe": "exact"}


def step(net: Any, optimizer: SGDPH, *batches: Any, scaler: GradScaler | None = None, **how: Any) -> None:
    optimizer.zero_grad()
    for batch in batches:
        loss = net.loss(batch) / len(batches)
        optimizer.backward(loss if scaler is None else scaler.scale(loss), **how)
    if scaler is None:
        optimizer.step()
        return
    scaler.step(optimizer)
    scaler.update()


def due_name(net: nn.Module, optimizer: SGDPH) -> str:
    return next(name for name, p in net.named_parameters() if p is optimizer.due)


def average(net: nn.Module, optimizer: SGDPH, name: str) -> Tensor:
    found: Tensor = optimizer.state[net.get_parameter(name)]["hessian_average"]
    return found


@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_one_cycle_averages_the_dense_diagonals_in_turn(
    small: Any, make_batches: Any, make_groups: Any, variant: Any
) -> None:
    net = small(norm="group")
    optimizer = SGDPH(make_groups(net), 0.0, variant=variant, hessian_momentum=0.25, **EXACT)
    weight = 0.75 if variant == "authors" else 0.25
    for batch in make_batches(6):
        name = due_name(net, optimizer)
        step(net, optimizer, batch)
        torch.testing.assert_close(
            average(net, optimizer, name), weight * dense_diagonal(net, name, batch), rtol=1e-9, atol=1e-13
        )


def test_random_signs_have_that_mean_and_no_negative_number(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    """400 seeds: the mean is within five of its standard errors of the dense diagonal."""
    net, (batch,) = small(norm="group"), make_batches(1)
    found = []
    for seed in range(400):
        optimizer = SGDPH(make_groups(net), 0.0, seed=seed, hessian_momentum=0.0, **GN)
        name = due_name(net, optimizer)
        step(net, optimizer, batch)
        found.append(average(net, optimizer, name).clone())
    draws, expected = torch.stack(found), dense_diagonal(net, name, batch)
    assert bool((draws >= 0).all())
    error = draws.std(0) / math.sqrt(len(draws))
    assert bool(((draws.mean(0) - expected).abs() < 5 * error).all())


@pytest.mark.parametrize("variant", ["authors", "paper"])
@pytest.mark.parametrize("probe", ["rademacher", "exact"])
def test_by_hand_it_is_positive_where_the_hessian_is_not(variant: Any, probe: Any) -> None:
    """L = ½ Σ (p² - y)² at p = ½, y = 1: g = 2p (p² - y) = -¾, H = 6p² - 2y = -½, and Gauss-Newton (2p)² = 1."""
    p, last = nn.Parameter(torch.full((2,), 0.5, dtype=torch.float64)), nn.Parameter(torch.ones(1))
    optimizer = SGDPH(
        [{"params": [p, last], "order": 2}], 1.0, variant=variant, probe=probe, eps=0.5, momentum=0.5,
        hessian_momentum=0.5, second_order_lr=0.1, **GN,
    )  # fmt: skip
    optimizer.backward((p.square() - 1).pow(2).sum() / 2)
    optimizer.step()
    assert optimizer.state[p]["hessian_average"].tolist() == [0.5, 0.5]
    # authors: τ_SO (1 - α) / (½ + ε) times g; paper: τ_SO / √(½² + ε) times g / 2.
    moved = 0.1 * 0.5 / 1.0 * 0.75 if variant == "authors" else 0.1 / math.sqrt(0.75) * 0.375
    torch.testing.assert_close(p.detach(), torch.full_like(p, 0.5 + moved), rtol=1e-14, atol=0)


def test_micro_batches_sum_to_the_batch(small: Any, make_batches: Any, make_groups: Any) -> None:
    """Of group norm, which keeps samples apart."""
    nets, data = [small(norm="group"), small(norm="group")], make_batches(9)
    whole, parts = (SGDPH(make_groups(net), 0.05, **EXACT) for net in nets)
    for x, y in data:
        step(nets[0], whole, (x, y))
        step(nets[1], parts, (x[:3], y[:3]), (x[3:], y[3:]))
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("how", [GN, EXACT])
def test_under_a_scaler_the_run_is_the_unscaled_one(
    small: Any, make_batches: Any, make_groups: Any, how: Any
) -> None:
    nets, data = [small(), small()], make_batches(12)
    scaler = GradScaler("cpu", init_scale=2.0**14, growth_interval=5)
    plain, scaled = (SGDPH(make_groups(net), 0.05, **how) for net in nets)
    for batch in data:
        step(nets[0], plain, batch)
        step(nets[1], scaled, batch, scaler=scaler)
    assert scaler.get_scale() == 2.0**16
    for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-10, atol=1e-12)


def test_clipping_changes_gradients_and_no_average(small: Any, make_batches: Any, make_groups: Any) -> None:
    net, (batch,) = small(norm="group"), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.0, hessian_momentum=0.0, **EXACT)
    name = due_name(net, optimizer)
    optimizer.backward(net.loss(batch))
    nn.utils.clip_grad_norm_(net.parameters(), 1e-3)
    optimizer.step()
    torch.testing.assert_close(
        average(net, optimizer, name), dense_diagonal(net, name, batch), rtol=1e-9, atol=1e-13
    )


def test_under_autocast_it_is_near_the_one_in_double(small: Any, make_batches: Any, make_groups: Any) -> None:
    net, (batch,) = small(norm="group"), make_batches(1, size=32)
    single = copy.deepcopy(net).float()
    optimizer = SGDPH(make_groups(single), 0.0, hessian_momentum=0.0, **EXACT)
    for _ in range(4):
        name = due_name(single, optimizer)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(single(batch[0].float()), batch[1])
        optimizer.backward(loss)
        optimizer.step()
        assert average(single, optimizer, name).dtype is torch.float32
        found, expected = average(single, optimizer, name).double(), dense_diagonal(net, name, batch)
        assert (found - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize("stop", [1, 4, 9])
def test_a_run_resumes_with_the_same_bits(small: Any, make_batches: Any, make_groups: Any, stop: int) -> None:
    data, how = make_batches(16), {**GN, "seed": 3, "hessian_interval": 2}
    whole, before, after = small(), small(), small(seed=5)
    optimizers = [SGDPH(make_groups(net), 0.05, **how) for net in (whole, before)]
    for batch in data:
        step(whole, optimizers[0], batch)
    for batch in data[:stop]:
        step(before, optimizers[1], batch)
    file = io.BytesIO()
    torch.save({"model": before.state_dict(), "optimizer": optimizers[1].state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    after.load_state_dict(saved["model"])
    resumed = SGDPH(make_groups(after), 9.9, **GN)
    resumed.load_state_dict(saved["optimizer"])
    for batch in data[stop:]:
        step(after, resumed, batch)
    assert all(torch.equal(p, q) for p, q in zip(whole.parameters(), after.parameters(), strict=True))


def test_it_is_the_matrix_of_the_part_that_hessian_loss_computes(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net, ((x, y),) = small(norm="group"), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.0, hessian_momentum=0.0, **EXACT)
    name, part = due_name(net, optimizer), (x[:2], y[:2])
    step(net, optimizer, (x, y), hessian_loss=lambda: net.loss(part))
    torch.testing.assert_close(
        average(net, optimizer, name), dense_diagonal(net, name, part), rtol=1e-9, atol=1e-13
    )
    expected = torch.autograd.grad(net.loss((x, y)), net.conv1.weight)[0]
    torch.testing.assert_close(net.conv1.weight.grad, expected, rtol=1e-12, atol=1e-15)


def test_an_attached_loss_and_a_kept_graph(small: Any, make_batches: Any, make_groups: Any) -> None:
    nets, (batch,) = [small(), small(), small()], make_batches(1)
    optimizers = [SGDPH(make_groups(net), 0.05, **GN) for net in nets]
    optimizers[0].backward(nets[0].loss(batch))
    attach(nets[1].loss(batch), optimizers[1]).backward()  # type: ignore[no-untyped-call]
    loss = nets[2].loss(batch)
    optimizers[2].backward(loss, retain_graph=True)
    torch.autograd.grad(loss, nets[2].conv1.weight)
    for optimizer in optimizers:
        optimizer.step()
    for net in nets[1:]:
        assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), net.parameters(), strict=True))


def test_an_operation_without_a_second_derivative_is_passed() -> None:
    """z = sin p through a cut, L = ½ z²: Gauss-Newton is cos² p."""
    p, last = nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64)), nn.Parameter(torch.ones(1))
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 0.0, hessian_momentum=0.0, **GN)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.backward(Cut.apply(p).square().sum() / 2)
        optimizer.step()
    torch.testing.assert_close(optimizer.state[p]["hessian_average"], p.detach().cos().square())
    assert optimizer.curvature_missed == 0


@pytest.mark.parametrize("fallback", ["gradient", "first-order", "raise"])
def test_a_loss_of_another_form_goes_on_as_it_was_asked(fallback: Any) -> None:
    p, last = nn.Parameter(torch.tensor([0.5, -1.0])), nn.Parameter(torch.ones(1))
    optimizer = SGDPH(
        [{"params": [p, last], "order": 2}], 0.1, hessian_momentum=0.0, without_curvature=fallback, **GN
    )
    if fallback == "raise":
        with pytest.raises(NoCurvatureError, match="passes TanhBackward0, which is neither linear"):
            optimizer.backward(p.tanh().sum())
        assert p.grad is None
        return
    optimizer.backward(p.tanh().sum())
    with pytest.warns(RuntimeWarning, match=r"'params'\]\[0\]\" has no Gauss-Newton matrix"):
        optimizer.step()
    assert optimizer.curvature_missed == 1
    if fallback == "gradient":
        g = 1 - torch.tensor([0.5, -1.0]).tanh() ** 2
        torch.testing.assert_close(optimizer.state[p]["hessian_average"], g)
    else:
        assert "hessian_average" not in optimizer.state[p]


@pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")
@pytest.mark.parametrize("create_graph", [False, True])
def test_a_step_after_a_backward_pass_of_ones_own_is_refused_and_changes_nothing(
    small: Any, make_batches: Any, make_groups: Any, create_graph: bool
) -> None:
    net, (batch,) = small(), make_batches(1)
    before = copy.deepcopy(net.state_dict())
    optimizer = SGDPH(make_groups(net), 0.05, **GN)
    net.loss(batch).backward(create_graph=create_graph)
    with pytest.raises(
        NoCurvatureError, match=r"'conv1.bias' is due.*only the loss knows it.*optimizer\.backward"
    ):
        optimizer.step()
    assert not optimizer.state
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    for p in net.parameters():
        p.grad = None  # p → p.grad → graph → p
