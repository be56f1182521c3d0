"""The Gauss-Newton diagonal: its mean over all signs against a dense matrix that torch.func makes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sgdph_fx.curvature import gauss_newton
from sgdph_fx.curvature.gauss_newton import gauss_newton_diagonal
from sgdph_fx.curvature.random_signs import random_signs, sign_key
from sgdph_fx.errors import NoCurvatureError

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS, CLASSES = 2, 3
LABELS = torch.tensor([2, 0])
IGNORED = torch.tensor([2, -100])
WEIGHTS = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64)
SOFT = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], dtype=torch.float64)

# Each is convex in the network's outputs z.
LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "cross-entropy": lambda z: F.cross_entropy(z, LABELS),
    "cross-entropy, summed": lambda z: F.cross_entropy(z, LABELS, reduction="sum"),
    "cross-entropy by rows": lambda z: F.cross_entropy(z, LABELS, reduction="none").mul(WEIGHTS[:2]).mean(),
    "cross-entropy with class weights": lambda z: F.cross_entropy(z, LABELS, weight=WEIGHTS),
    "cross-entropy with a label to ignore": lambda z: F.cross_entropy(z, IGNORED),
    "cross-entropy, smoothed": lambda z: F.cross_entropy(z, LABELS, label_smoothing=0.2),
    "cross-entropy of soft targets": lambda z: F.cross_entropy(z, SOFT),
    "cross-entropy of images": lambda z: F.cross_entropy(z.T.reshape(1, 3, 2, 1), LABELS.view(1, 2, 1)),
    "log-softmax, masked": lambda z: -(F.log_softmax(z, 1) * F.one_hot(LABELS, CLASSES)).sum() / 2,
    "divergence": lambda z: F.kl_div(F.log_softmax(z, 1), SOFT, reduction="batchmean"),
    "mse": lambda z: F.mse_loss(z, SOFT),
    "mse, target first": lambda z: F.mse_loss(SOFT, z),
    "mse between two outputs": lambda z: F.mse_loss(z[:1], z[1:]),
    "mse, summed and scaled": lambda z: 3 * F.mse_loss(z, SOFT, reduction="sum"),
    "squares": lambda z: (z - SOFT).pow(2).mean(),
    "binary": lambda z: F.binary_cross_entropy_with_logits(z, SOFT),
    "binary, weighted": lambda z: F.binary_cross_entropy_with_logits(
        z, SOFT, weight=SOFT, pos_weight=WEIGHTS
    ),
    "two losses": lambda z: F.cross_entropy(z, LABELS) + 0.5 * F.mse_loss(z, SOFT),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, CLASSES)).double()


KEY = sign_key(seed=0, step=1)
INPUTS = torch.randn(ROWS, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def diagonal(loss: Tensor, params: list[Any], key: Tensor | None = KEY, **options: Any) -> list[Any]:
    return gauss_newton_diagonal(loss, params, key, **options)


def dense_diagonal(net: nn.Module, name: str, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """diag(JᵀAJ), with J and A made by torch.func."""
    parameter = dict(net.named_parameters())[name].detach()

    def outputs(p: Tensor) -> Any:
        return torch.func.functional_call(net, {name: p}, (INPUTS,))

    jacobian = torch.func.jacrev(outputs)(parameter).reshape(ROWS * CLASSES, -1)
    a = torch.func.hessian(loss)(outputs(parameter).detach()).reshape(ROWS * CLASSES, ROWS * CLASSES)
    return (jacobian.T @ a @ jacobian).diagonal().view_as(parameter)


def all_signs(monkeypatch: pytest.MonkeyPatch, *ends: int) -> Iterator[None]:
    """Every choice of signs in turn, for one end of each of these sizes."""
    for chosen in itertools.product((-1.0, 1.0), repeat=sum(ends)):
        parts = iter(torch.tensor(chosen, dtype=torch.float64).split(ends))

        def signs(edge: Any, key: Any, start: int, parts: Iterator[Tensor] = parts) -> Tensor:
            return next(parts).view(tuple(edge.node._input_metadata[edge.output_nr].shape))

        monkeypatch.setattr(gauss_newton, "_signs", signs)
        yield


NAMES = ("0.bias", "1.weight", "1.bias", "3.weight")
# Two ends have 4,096 choices of signs, so that one parameter has to do.
CASES = [(loss, name) for loss in LOSSES for name in (NAMES if loss != "two losses" else NAMES[1:2])]


@pytest.mark.parametrize(("loss", "name"), CASES)
def test_the_mean_over_all_signs_is_the_diagonal(
    loss: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network()
    value, parameter = LOSSES[loss](net(INPUTS)), net.get_parameter(name)
    ends = {"two losses": (6, 6), "mse between two outputs": (3,)}.get(loss, (6,))
    draws = [diagonal(value, [parameter])[0] for _ in all_signs(monkeypatch, *ends)]
    expected = dense_diagonal(net, name, LOSSES[loss])
    torch.testing.assert_close(torch.stack(draws).mean(0), expected, rtol=1e-10, atol=1e-13)
    assert all(bool((draw >= 0).all()) for draw in draws)


@pytest.mark.parametrize(("loss", "name"), CASES)
def test_unit_vectors_give_the_diagonal_itself(loss: str, name: str) -> None:
    net = network()
    (found,) = diagonal(LOSSES[loss](net(INPUTS)), [net.get_parameter(name)], None)
    torch.testing.assert_close(found, dense_diagonal(net, name, LOSSES[loss]), rtol=1e-10, atol=1e-13)


def test_draws_are_averaged_and_the_key_decides() -> None:
    """Each draw goes on in the numbers where the one before it ended."""
    net = network()
    value, params = F.cross_entropy(net(INPUTS), LABELS), [*net.parameters()]
    together = diagonal(value, params, sign_key(0, 3), draws=4)
    signs = random_signs(sign_key(0, 3), 0, 4 * ROWS * CLASSES, torch.float64).view(4, ROWS, CLASSES)
    z = net(INPUTS)
    p = z.softmax(1).detach()
    rows = [p.sqrt() * s - p * (p.sqrt() * s).sum(1, keepdim=True) for s in signs]
    squares = [
        [g.square() for g in torch.autograd.grad(z, params, row / ROWS**0.5, retain_graph=True)]
        for row in rows
    ]
    for several, mean in zip(zip(*squares, strict=True), together, strict=True):
        torch.testing.assert_close(torch.stack(several).mean(0), mean, rtol=1e-10, atol=1e-14)
    assert not torch.equal(diagonal(value, params)[0], diagonal(value, params, sign_key(0, 2))[0])


def test_signs_are_even_independent_and_the_same_wherever_they_begin() -> None:
    count, keys = 4096, 64
    signs = torch.stack([random_signs(sign_key(5, t), 0, count, torch.float64) for t in range(keys)])
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    # Of 64 means and 2,016 products, none is five standard deviations from 0.
    assert signs.mean(1).abs().max() < 5 / count**0.5
    between = (signs @ signs.T / count).fill_diagonal_(0)
    assert between.abs().max() < 5 / count**0.5
    # Neighbours, and those a power of 2 apart.
    for distance in (1, 2, 16, 1024):
        assert (signs * signs.roll(distance, 1)).mean().abs() < 5 / (count * keys) ** 0.5
    assert torch.equal(random_signs(sign_key(5, 0), 100, 50, torch.float64), signs[0, 100:150])
    far = random_signs(sign_key(5, 0), 2**31 - 2, 4, torch.float64)
    assert torch.equal(far[2:], random_signs(sign_key(5, 0), 2**31, 2, torch.float64))


def test_no_gradient_is_written_and_the_graph_is_kept() -> None:
    net = network()
    value = F.cross_entropy(net(INPUTS), LABELS)
    diagonal(value, [*net.parameters()])
    assert all(p.grad is None for p in net.parameters())
    value.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in net.parameters())


def test_what_the_loss_is_linear_in_is_zero_and_what_it_does_not_use_is_nothing() -> None:
    p, q, r = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    found = diagonal(p.sum() + p.pow(2).sum() + r.sum(), [p, q, r])
    torch.testing.assert_close(found[0], torch.full((3,), 2.0, dtype=torch.float64))
    assert found[1] is None
    assert torch.equal(found[2], torch.zeros_like(r))
    (alone,) = diagonal(r.sum(), [r])
    assert torch.equal(alone, torch.zeros_like(r))


def test_a_reentrant_checkpoint_would_hide_its_parameters_and_is_refused() -> None:
    net = network()
    x = INPUTS.clone().requires_grad_()
    value = F.cross_entropy(checkpoint(net, x, use_reentrant=True), LABELS)
    with pytest.raises(NoCurvatureError, match="use_reentrant=False"):
        diagonal(value, [*net.parameters()])
    plain = F.cross_entropy(net(x), LABELS)
    value = F.cross_entropy(checkpoint(net, x, use_reentrant=False), LABELS)
    for a, b in zip(diagonal(value, [*net.parameters()]), diagonal(plain, [*net.parameters()]), strict=True):
        torch.testing.assert_close(a, b)


def test_a_graph_that_runs_once_is_refused_and_says_so() -> None:
    net = network()
    value = F.cross_entropy(Once.apply(net(INPUTS)), LABELS)
    with pytest.raises(NoCurvatureError, match=r"backward twice.*It says: only once"):
        diagonal(value, [*net.parameters()])


class Once(torch.autograd.Function):
    """Its backward fails, as compiled code's does if another pass is to follow."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        raise RuntimeError("only once")


@pytest.mark.parametrize(
    ("loss", "operation"),
    [
        (lambda z: F.log_softmax(z, 1)[:, 0].sigmoid().sum(), "SigmoidBackward"),
        (lambda z: z.pow(3).sum(), "PowBackward"),
        (lambda z: z.tanh().sum(), "TanhBackward"),
        (lambda z: F.cross_entropy(z, LABELS) * z.sum(), "MulBackward"),
        (lambda z: torch.linalg.vector_norm(z), "LinalgVectorNormBackward"),
        (lambda z: F.binary_cross_entropy_with_logits(z[:1], z[1:]), "BinaryCrossEntropyWithLogitsBackward"),
    ],
)
def test_a_loss_of_another_form_is_refused_by_name(loss: Callable[[Tensor], Tensor], operation: str) -> None:
    net = network()
    with pytest.raises(NoCurvatureError, match=operation):
        diagonal(loss(net(INPUTS)), [*net.parameters()])
    assert all(p.grad is None for p in net.parameters())


def test_a_convex_function_below_another_one_keeps_its_own_weight() -> None:
    """Both read the network: the cross-entropy its outputs z, the squares its log-probabilities."""
    net = network()
    parameter = net.get_parameter("1.weight")

    def log_probabilities(p: Tensor) -> Tensor:
        found: Tensor = F.log_softmax(torch.func.functional_call(net, {"1.weight": p}, (INPUTS,)), 1)
        return found

    by_log = torch.func.jacrev(log_probabilities)(parameter.detach()).reshape(ROWS * CLASSES, -1)
    # The Hessian of the mean square of n numbers is 2 / n.
    squares = by_log.square().sum(0).mul(2 / (ROWS * CLASSES))
    expected = dense_diagonal(net, "1.weight", LOSSES["cross-entropy"]) + squares
    found = log_probabilities(parameter)
    (both,) = diagonal(F.nll_loss(found, LABELS) + F.mse_loss(found, SOFT), [parameter], None)
    torch.testing.assert_close(both, expected.detach(), rtol=1e-10, atol=1e-13)
