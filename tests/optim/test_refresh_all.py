"""refresh="all": every second-order parameter at each refresh."""

from __future__ import annotations

import copy
import io
import time
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from sgdph_fx.curvature import gauss_newton_diagonal, sign_key
from sgdph_fx.errors import NoCurvatureError, OptimizerError
from sgdph_fx.optim import SGDPH
from tests.growth import grows_in_proportion
from tests.optim.gauss_newton_oracle import dense_diagonal
from tests.optim.training import same_bits

ALL: Any = {"curvature": "gauss-newton", "refresh": "all"}
EXACT: Any = {**ALL, "probe": "exact"}
SECOND_ORDER = ("conv1.bias", "norm1.weight", "norm1.bias", "conv2.bias", "norm2.weight", "norm2.bias")


def train(net: Any, optimizer: SGDPH, data: list[Any], scaler: GradScaler | None = None) -> None:
    for batch in data:
        optimizer.zero_grad()
        loss = net.loss(batch)
        optimizer.backward(loss if scaler is None else scaler.scale(loss))
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()


def averages(net: nn.Module, optimizer: SGDPH) -> dict[str, Tensor]:
    return {name: optimizer.state[net.get_parameter(name)]["hessian_average"] for name in SECOND_ORDER}


@pytest.mark.parametrize("interval", [1, 3])
def test_every_refresh_averages_all_dense_diagonals(
    small: Any, make_batches: Any, make_groups: Any, interval: int
) -> None:
    net, data = small(norm="group"), make_batches(5)
    optimizer = SGDPH(make_groups(net), 0.0, hessian_momentum=0.5, hessian_interval=interval, **EXACT)
    expected = {name: torch.zeros_like(net.get_parameter(name)).detach() for name in SECOND_ORDER}
    for t, batch in enumerate(data):
        train(net, optimizer, [batch])
        if t % interval == 0:
            expected = {n: 0.5 * old + 0.5 * dense_diagonal(net, n, batch) for n, old in expected.items()}
        torch.testing.assert_close(averages(net, optimizer), expected, rtol=1e-9, atol=1e-13)
    # The authors' variant leaves the last one out, the classifier's bias.
    assert "hessian_average" not in optimizer.state[net.linear.bias]


def test_by_hand_the_zero_start_is_answered_by_the_number_of_refreshes() -> None:
    """½ c p² has Gauss-Newton c at every draw: M^H / (1 - αⁿ) is c, so D is τ_SO g / (c + ε / (1 - αⁿ))."""
    c = torch.tensor([2.0, 5.0], dtype=torch.float64)
    p, q, last = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(3))
    optimizer = SGDPH(
        [{"params": [p, q, last], "order": 2}], 0.5, second_order_lr=0.1, momentum=0.0, eps=0.2,
        hessian_momentum=0.5, hessian_interval=2, **ALL,
    )  # fmt: skip
    expected = torch.ones(2, dtype=torch.float64)
    for n in (1, 1, 2, 2, 3):
        optimizer.zero_grad()
        optimizer.backward((c / 2 * (p.square() + q.square())).sum())
        optimizer.step()
        expected = expected - 0.5 * 0.1 * c * expected / (c + 0.2 / (1 - 0.5**n))
        torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(q.detach(), expected, rtol=1e-12, atol=0)
    assert optimizer.statistics()["cycle"] == 3
    assert optimizer.statistics()["cycle_length"] == 2


@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_the_gradient_of_all_stands_in_at_the_price_of_sgd(
    small: Any, make_batches: Any, make_groups: Any, variant: Any
) -> None:
    net, (batch,) = small(), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.0, variant=variant, eps=0.1, probe="gradient", refresh="all")
    assert optimizer.due is None
    optimizer.backward(net.loss(batch))
    gradients = {name: net.get_parameter(name).grad.abs() for name in SECOND_ORDER}
    optimizer.step()
    for name, found in averages(net, optimizer).items():
        g = gradients[name]
        expected = 0.1 * g if variant == "authors" else 0.1 * 0.1**0.5 + 0.9 * (g**2 + 0.1).sqrt()
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("how", [ALL, {"probe": "gradient", "refresh": "all"}])
@pytest.mark.parametrize("stop", [1, 4])
def test_a_run_resumes_with_the_same_bits(
    small: Any, make_batches: Any, make_groups: Any, how: Any, stop: int
) -> None:
    data, whole, before, after = make_batches(10), small(), small(), small(seed=5)
    options = {**how, "hessian_interval": 3, "seed": 2}
    train(whole, SGDPH(make_groups(whole), 0.05, **options), data)
    optimizer = SGDPH(make_groups(before), 0.05, **options)
    train(before, optimizer, data[:stop])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    after.load_state_dict(before.state_dict())
    resumed = SGDPH(make_groups(after), 9.9, **how)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    train(after, resumed, data[stop:])
    assert same_bits(whole, after)


def test_micro_batches_and_a_scaler_give_the_whole_batch(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    nets, data = [small(norm="group") for _ in range(3)], make_batches(6)
    optimizers = [SGDPH(make_groups(net), 0.05, **EXACT) for net in nets]
    train(nets[0], optimizers[0], data)
    train(nets[1], optimizers[1], data, GradScaler("cpu", init_scale=2.0**14))
    for x, y in data:
        optimizers[2].zero_grad()
        for part in (slice(0, 2), slice(2, 4), slice(4, 6)):
            optimizers[2].backward(nets[2].loss((x[part], y[part])))
        optimizers[2].scale_gradients(1 / 3)
        optimizers[2].step()
    for net in nets[1:]:
        for p, q in zip(nets[0].parameters(), net.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-9, atol=1e-11)


def test_each_micro_batch_draws_signs_of_its_own(small: Any, make_batches: Any, make_groups: Any) -> None:
    """The sum of (JᵀBs)² over two micro-batches, by keys that say which it is; the first has those of a whole batch."""
    net, ((x, y),) = small(norm="group"), make_batches(1)
    optimizer = SGDPH(make_groups(net), 0.0, hessian_momentum=0.0, seed=3, **ALL)
    expected = {name: torch.zeros_like(net.get_parameter(name)).detach() for name in SECOND_ORDER}
    for number, part in enumerate((slice(0, 3), slice(3, 6))):
        batch, params = (x[part], y[part]), [net.get_parameter(name) for name in SECOND_ORDER]
        keys = [sign_key(3, 1, 0, 0), sign_key(3, 1, 0, 1)]
        assert torch.equal(keys[0], sign_key(3, 1))
        assert not torch.equal(*keys)
        for name, found in zip(
            SECOND_ORDER, gauss_newton_diagonal(net.loss(batch), params, keys[number]), strict=True
        ):
            assert found is not None
            expected[name] += found
        optimizer.backward(net.loss(batch))
    optimizer.step()
    torch.testing.assert_close(averages(net, optimizer), expected, rtol=1e-12, atol=1e-16)


def test_frozen_and_unused_parameters_keep_their_averages() -> None:
    p, q, r, last = (nn.Parameter(torch.ones(2, dtype=torch.float64)) for _ in range(4))
    optimizer = SGDPH([{"params": [p, q, r, last], "order": 2}], 0.1, hessian_momentum=0.0, **ALL)
    p.requires_grad_(False)
    optimizer.backward((p * r).square().sum())
    optimizer.step()
    assert optimizer.state[r]["hessian_average"].tolist() == pytest.approx([2.0, 2.0], rel=1e-14)
    assert p not in optimizer.state
    assert q not in optimizer.state


@pytest.mark.parametrize("fallback", ["gradient", "first-order", "raise"])
def test_a_loss_of_another_form_goes_on_as_it_was_asked(fallback: Any) -> None:
    p, q, last = (nn.Parameter(torch.tensor([0.5])) for _ in range(3))
    optimizer = SGDPH(
        [{"params": [p, q, last], "order": 2}], 0.1, hessian_momentum=0.0, without_curvature=fallback, **ALL
    )
    if fallback == "raise":
        with pytest.raises(NoCurvatureError, match="TanhBackward0"):
            optimizer.backward((p + q).tanh().sum())
        assert p.grad is None
        return
    optimizer.backward((p + q).tanh().sum())
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        optimizer.step()
    assert optimizer.curvature_missed == 1
    assert len(optimizer.parameters_without_curvature) == 2
    for parameter in (p, q):
        assert ("hessian_average" in optimizer.state[parameter]) == (fallback == "gradient")
    optimizer.zero_grad()
    optimizer.backward((p + q).tanh().sum())
    optimizer.step()


def test_one_that_joins_later_counts_its_own_refreshes() -> None:
    """By hand as above: q joins after two steps with a refresh at each, so that its n is 1 when p's is 3."""
    p, q, last = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(3))
    options: Any = {"second_order_lr": 0.1, "momentum": 0.0, "eps": 0.2, "hessian_momentum": 0.5}
    optimizer = SGDPH([{"params": [p, last], "order": 2}], 0.5, variant="authors", **options, **ALL)
    expected = torch.ones(1, dtype=torch.float64)
    for n in (1, 2):
        optimizer.zero_grad()
        optimizer.backward(p.square().sum())
        optimizer.step()
        expected = expected - 0.5 * 0.1 * 2 * expected / (2 + 0.2 / (1 - 0.5**n))
    optimizer.add_param_group({"params": [q, nn.Parameter(torch.ones(1))], "order": 2})
    optimizer.zero_grad()
    optimizer.backward((p.square() + q.square()).sum())
    optimizer.step()
    expected = expected - 0.5 * 0.1 * 2 * expected / (2 + 0.2 / (1 - 0.5**3))
    torch.testing.assert_close(p.detach(), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(
        q.detach(), torch.full_like(q, 1 - 0.5 * 0.1 * 2 / (2 + 0.2 / 0.5)), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("options", [{}, {"probe": "exact"}, {"probe": "rademacher"}])
def test_the_hessian_of_all_is_refused(options: Any) -> None:
    with pytest.raises(OptimizerError, match="a product of its own for each parameter"):
        SGDPH([nn.Parameter(torch.ones(1))], 0.1, refresh="all", **options)


def test_a_state_of_the_other_kind_is_refused_and_an_older_one_is_of_a_cycle(
    small: Any, make_groups: Any
) -> None:
    options: Any = {"curvature": "gauss-newton"}
    state = copy.deepcopy(SGDPH(make_groups(small()), 0.05, **options).state_dict())
    with pytest.raises(OptimizerError, match="saved with refresh='cycle' and has 'all' here"):
        SGDPH(make_groups(small()), 0.05, **ALL).load_state_dict(state)
    for group in state["param_groups"]:
        del group["refresh"]
    resumed = SGDPH(make_groups(small()), 0.05, **options)
    resumed.load_state_dict(state)
    assert resumed.param_groups[0]["refresh"] == "cycle"


def test_time_of_a_step_grows_in_proportion() -> None:
    def seconds(count: int) -> float:
        params = [nn.Parameter(torch.ones(1)) for _ in range(count)]
        optimizer = SGDPH([{"params": params, "order": 2}], 0.1, probe="gradient", refresh="all")
        optimizer.backward(torch.stack(params).square().sum())
        start = time.process_time()
        optimizer.step()
        return time.process_time() - start

    assert grows_in_proportion(seconds, 500, 4000)


def test_one_diagonal_that_is_not_finite_is_counted_beside_others_that_are() -> None:
    """(1e200 p)² has the gradient 0 at 0, and the square of 1e200 overflows; q² bends by 2."""
    p, q, last = (nn.Parameter(torch.full((1,), start, dtype=torch.float64)) for start in (0.0, 1.0, 1.0))
    optimizer = SGDPH([{"params": [p, q, last], "order": 2}], 0.1, **EXACT)
    optimizer.backward((1e200 * p).square().sum() + q.square().sum())
    with pytest.warns(RuntimeWarning, match="Hessian that was due is not finite"):
        optimizer.step()
    assert (optimizer.refreshes_skipped, optimizer.steps_skipped) == (1, 0)
    found = [optimizer.state[t]["hessian_average"].item() for t in (p, q)]
    assert found == [0.0, pytest.approx(0.1 * 2)]
