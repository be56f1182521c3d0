"""Both ways to call, and micro-batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sgdph_fx.optim import SGDPH

pytestmark = pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning")


@pytest.mark.parametrize("variant", ["authors", "paper"])
def test_both_ways_to_call_and_a_closure_give_equal_results(
    small: Any, make_batches: Any, make_groups: Any, variant: Any
) -> None:
    nets = [small() for _ in range(4)]
    ours, theirs, closing, closing_theirs = (SGDPH(make_groups(n), 0.05, variant=variant) for n in nets)
    for batch in make_batches(20):
        ours.zero_grad()
        ours.backward(nets[0].loss(batch))
        ours.step()

        theirs.zero_grad()
        nets[1].loss(batch).backward(create_graph=True)
        theirs.step()

        def closure(batch: Any = batch) -> Any:
            closing.zero_grad()
            loss = nets[2].loss(batch)
            closing.backward(loss)
            return loss

        def closure_theirs(batch: Any = batch) -> Any:
            closing_theirs.zero_grad()
            loss = nets[3].loss(batch)
            loss.backward(create_graph=True)
            return loss

        assert closing.step(closure) == closing_theirs.step(closure_theirs)
    for name, p in nets[0].named_parameters():
        for net in nets[1:]:
            torch.testing.assert_close(net.get_parameter(name), p, rtol=1e-11, atol=1e-13)


def test_gradients_are_those_of_loss_backward_also_outside_the_optimizer(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    (batch,) = make_batches(1)
    net, plain = small(), small()
    optimizer = SGDPH(make_groups(net)[:1], 0.05)
    assert optimizer.due is net.conv1.bias
    for _ in range(2):
        optimizer.backward(net.loss(batch))
        plain.loss(batch).backward()
    for p, q in zip(net.parameters(), plain.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)
        assert not p.grad.requires_grad


def test_step_takes_the_graph_off_every_gradient(small: Any, make_batches: Any, make_groups: Any) -> None:
    net = small()
    optimizer = SGDPH(make_groups(net), 0.05)
    for batch in make_batches(7):
        optimizer.zero_grad()
        net.loss(batch).backward(create_graph=True)
        assert all(p.grad.requires_grad for p in net.parameters())
        optimizer.step()
        assert not any(p.grad.requires_grad for p in net.parameters())


@pytest.mark.parametrize(
    "options", [{}, {"probe": "rademacher", "seed": 3}], ids=["ones", "one draw of signs"]
)
@pytest.mark.parametrize("own_graph", [False, True])
def test_micro_batches_add_up_to_the_batch(
    small: Any, make_batches: Any, make_groups: Any, own_graph: bool, options: dict[str, Any]
) -> None:
    whole, parts = small("group"), small("group")
    a, b = (SGDPH(make_groups(net), 0.05, **options) for net in (whole, parts))
    for x, y in make_batches(14, size=6):
        a.zero_grad()
        a.backward(whole.loss((x, y)))
        a.step()
        b.zero_grad()
        for i in range(0, 6, 2):
            loss = parts.loss((x[i : i + 2], y[i : i + 2])) / 3
            if own_graph:
                loss.backward(create_graph=True)
            else:
                b.backward(loss)
        b.step()
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("drop", ["optimizer", "optimizer, to zero", "model", "model, to zero"])
def test_zero_grad_drops_the_hessian_too(drop: str) -> None:
    p, q = nn.Parameter(torch.tensor([1.0])), nn.Parameter(torch.tensor([1.0]))
    net = nn.ParameterList([p, q])
    optimizer = SGDPH([{"params": [p, q], "order": 2}], 0.0)
    optimizer.backward((50 * p**2).sum())
    (net if "model" in drop else optimizer).zero_grad(set_to_none="zero" not in drop)
    optimizer.backward((p**2).sum())
    optimizer.step()
    # H = 2, averaged from zero with weight 0.1.
    assert optimizer.state[p]["hessian_average"].item() == pytest.approx(0.2)


def test_the_due_parameter_may_be_unused_and_the_cycle_goes_on() -> None:
    p, q, last = (nn.Parameter(torch.tensor([1.0, 2.0])) for _ in range(3))
    optimizer = SGDPH([{"params": [p, q, last], "order": 2}], 0.1)
    optimizer.backward((q**4).sum() + (last**2).sum())
    optimizer.step()
    assert p.tolist() == [1.0, 2.0]
    assert p not in optimizer.state
    assert optimizer.state[q]["hessian_average"].tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    at = q.detach().clone()
    assert optimizer.due is q
    optimizer.backward((p * q**4).sum())
    optimizer.step()
    # ∂²(p q⁴)/∂q² = 12 p q², averaged from zero with weight 0.1.
    expected = 0.1 * 12 * torch.tensor([1.0, 2.0]) * at**2
    torch.testing.assert_close(optimizer.state[q]["hessian_average"], expected)


def test_unused_in_one_micro_batch_is_refreshed_by_the_others() -> None:
    for losses in ((1, 0), (0, 1)):
        p, q = (nn.Parameter(torch.tensor([3.0])) for _ in range(2))
        optimizer = SGDPH([{"params": [p, q], "order": 2}], 0.0)
        for used in losses:
            optimizer.backward((p**2 + q**2).sum() if used else (q**2).sum())
        optimizer.step()
        assert optimizer.state[p]["hessian_average"].item() == pytest.approx(0.2)


@pytest.mark.parametrize("own_graph", [False, True])
def test_a_loss_linear_in_the_due_parameter_has_a_zero_hessian(own_graph: bool) -> None:
    p, q, last = (nn.Parameter(torch.tensor([3.0])) for _ in range(3))
    optimizer = SGDPH([{"params": [p, q, last], "order": 2}], 0.1, variant="paper", eps=0.25)
    loss = (5 * p + q**2).sum()
    if own_graph:
        torch.autograd.backward(loss, create_graph=True)
    else:
        optimizer.backward(loss)
    optimizer.step()
    # sqrt(0 + eps) averaged into sqrt(eps) is sqrt(eps); M^G = 0.9 * 5.
    assert optimizer.state[p]["hessian_average"].item() == pytest.approx(0.5)
    assert p.item() == pytest.approx(3.0 - 0.1 * 1e-3 * 4.5 / 0.5)


def test_the_last_parameters_turn_needs_no_product_in_the_authors_variant(
    small: Any, make_batches: Any, make_groups: Any
) -> None:
    net = small()
    optimizer = SGDPH(make_groups(net), 0.05)
    *earlier, last = make_batches(7)
    for batch in earlier:
        optimizer.zero_grad()
        optimizer.backward(net.loss(batch))
        optimizer.step()
    assert optimizer.due is None
    optimizer.zero_grad()
    net.loss(last).backward()
    optimizer.step()
    assert optimizer.due is net.conv1.bias
    assert "hessian_average" not in optimizer.state[net.linear.bias]


def test_between_refreshes_a_plain_backward_will_do(small: Any, make_batches: Any, make_groups: Any) -> None:
    nets = [small(), small()]
    ours, theirs = (SGDPH(make_groups(n), 0.05, hessian_interval=2) for n in nets)
    for t, batch in enumerate(make_batches(9)):
        ours.zero_grad()
        ours.backward(nets[0].loss(batch))
        ours.step()
        theirs.zero_grad()
        loss = nets[1].loss(batch)
        theirs.backward(loss) if t % 2 == 0 else loss.backward()
        theirs.step()
    assert all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
