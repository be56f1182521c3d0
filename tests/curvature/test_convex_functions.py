"""Every convex function of the Gauss-Newton matrix against a dense JᵀAJ, and what is nearly one but is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sgdph_fx.curvature.convex_functions import ROOTS
from sgdph_fx.curvature.gauss_newton import gauss_newton_diagonal
from sgdph_fx.curvature.random_signs import sign_key
from sgdph_fx.errors import NoCurvatureError
from tests.curvature.test_gauss_newton import INPUTS, LABELS, ROWS, SOFT, WEIGHTS, all_signs, diagonal

pytestmark = pytest.mark.usefixtures("one_thread")

SIGNS = torch.tensor([[1.0, -1.0, 1.0], [-1.0, -1.0, 1.0]], dtype=torch.float64)
ONE_HOT = F.one_hot(LABELS, 3).double()


class Case(NamedTuple):
    """A loss, by the names of the nodes that it ends in; ``head`` is what the network ends in."""

    loss: Callable[[Tensor], Any]
    nodes: tuple[str, ...]
    head: Callable[[Tensor], Tensor] = lambda z: z


HUBER, SMOOTH, BINARY = "HuberLossBackward0", "SmoothL1LossBackward0", "BinaryCrossEntropyBackward0"
MARGIN, SOFTPLUS, LOG_SIGMOID = "SoftMarginLossBackward0", "SoftplusBackward0", "LogSigmoidBackward0"
SUM_EXP, PRODUCT, SQUARE = "LogsumexpBackward0", "MulBackward0", "PowBackward0"
EXPONENTIAL = "ExpBackward0"
# Some of the network's outputs lie on either side of each kink, and none on it.
CASES: dict[str, Case] = {
    "huber": Case(lambda z: F.huber_loss(z, SOFT, delta=0.4), (HUBER,)),
    "huber, summed, target first": Case(lambda z: F.huber_loss(SOFT, z, reduction="sum", delta=0.4), (HUBER,)),
    "huber, of each": Case(lambda z: (F.huber_loss(z, SOFT, reduction="none") * SOFT).sum(), (HUBER,)),
    "huber, between outputs": Case(lambda z: F.huber_loss(z[:1], z[1:], delta=2.0), (HUBER,)),
    "smooth L1": Case(lambda z: F.smooth_l1_loss(z, SOFT, beta=0.4), (SMOOTH,)),
    "smooth L1, no curve": Case(lambda z: F.smooth_l1_loss(z, SOFT, beta=0.0) + z.square().sum(), (SMOOTH, SQUARE)),
    "binary, of probabilities": Case(lambda p: F.binary_cross_entropy(p, SOFT), (BINARY,), torch.sigmoid),
    "binary, weighted": Case(
        lambda p: F.binary_cross_entropy(p, SOFT, weight=WEIGHTS, reduction="sum"), (BINARY,), torch.sigmoid
    ),
    "soft margin": Case(lambda z: F.soft_margin_loss(z, SIGNS), (MARGIN,)),
    "soft margin, summed": Case(lambda z: F.soft_margin_loss(z, 2 * SIGNS, reduction="sum"), (MARGIN,)),
    "softplus": Case(lambda z: (F.softplus(z) * SOFT).sum(), (SOFTPLUS,)),
    "softplus, straight from 0.3 on": Case(lambda z: F.softplus(z, beta=2, threshold=0.3).mean(), (SOFTPLUS,)),
    "log-sigmoid": Case(lambda z: -(F.logsigmoid(z) * SOFT).sum(), (LOG_SIGMOID,)),
    "multi-label": Case(lambda z: F.multilabel_soft_margin_loss(z, ONE_HOT), (LOG_SIGMOID, LOG_SIGMOID)),
    "logsumexp": Case(lambda z: (torch.logsumexp(z, 1) * WEIGHTS[:2]).sum(), (SUM_EXP,)),
    "logsumexp of all, kept": Case(lambda z: torch.logsumexp(z, (0, 1), keepdim=True).sum(), (SUM_EXP,)),
    "logsumexp of all but one": Case(lambda z: torch.logsumexp(z.view(2, 3, 1), (0, 2)).sum(), (SUM_EXP,)),
    "cross-entropy by hand": Case(
        lambda z: (torch.logsumexp(z, 1) - z.gather(1, LABELS[:, None])[:, 0]).mean(), (SUM_EXP,)
    ),
    "logistic by hand": Case(lambda z: (F.softplus(z) - SOFT * z).mean(), (SOFTPLUS,)),
    "exponential": Case(lambda z: (z.exp() * SOFT).sum(), (EXPONENTIAL,)),
    "Poisson": Case(lambda z: F.poisson_nll_loss(z, 5 * SOFT, full=True), (EXPONENTIAL,)),
    "divergence of a Gaussian": Case(
        lambda z: (z[:1].pow(2) + z[1:].exp() - z[1:] - 1).sum() / 2, (EXPONENTIAL, SQUARE)
    ),
    "z z": Case(lambda z: (z * z).mean(), (PRODUCT,)),
    "z z, and z": Case(lambda z: (SOFT * (z * z) / 2 - z).sum(), (PRODUCT,)),
    "a square, and z": Case(lambda z: (z.pow(2) / 2).sum() - 3 * z[:, 0].sum(), (SQUARE,)),
}  # fmt: skip
NAMES = ("0.bias", "1.weight", "3.weight")


def network(head: Callable[[Tensor], Tensor]) -> Callable[[dict[str, Tensor]], Any]:
    """Values by name ↦ outputs; the rest of the network stays as it is."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3)).double()
    values = {name: p.detach() for name, p in net.named_parameters()}
    return lambda given: head(torch.func.functional_call(net, {**values, **given}, (INPUTS,)))


def leaf(name: str) -> Tensor:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3)).double()
    return net.get_parameter(name)


def dense_diagonal(case: Case, name: str) -> Tensor:
    """diag(JᵀAJ), with J and A made by torch.func."""
    outputs, p = network(case.head), leaf(name).detach()
    z = outputs({name: p})
    jacobian = torch.func.jacrev(lambda p: outputs({name: p}))(p).reshape(z.numel(), -1)
    # Twice backward, because torch has no forward derivative of the soft margin's gradient.
    a = torch.func.jacrev(torch.func.jacrev(case.loss))(z).reshape(z.numel(), z.numel())
    return (jacobian.T @ a @ jacobian).diagonal().view_as(p)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", CASES)
def test_unit_vectors_give_the_diagonal_itself(case: str, name: str) -> None:
    chosen, p = CASES[case], leaf(name)
    (found,) = diagonal(chosen.loss(network(chosen.head)({name: p})), [p], None)
    expected = dense_diagonal(chosen, name)
    assert bool(expected.any())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if len(case.nodes) == 1])
def test_the_mean_over_all_signs_is_the_diagonal(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen, p = CASES[case], leaf("1.weight")
    value = chosen.loss(network(chosen.head)({"1.weight": p}))
    count = 3 if case.endswith("between outputs") else 6
    draws = [diagonal(value, [p])[0] for _ in all_signs(monkeypatch, count)]
    torch.testing.assert_close(
        torch.stack(draws).mean(0), dense_diagonal(chosen, "1.weight"), rtol=1e-9, atol=1e-12
    )


def test_every_function_of_the_table_is_tried() -> None:
    elsewhere = {"BinaryCrossEntropyWithLogitsBackward0", "LogSoftmaxBackward0", "MseLossBackward0"}
    assert {name for case in CASES.values() for name in case.nodes} | elsewhere == set(ROOTS)


def test_cross_entropy_by_hand_draws_what_cross_entropy_draws() -> None:
    p, q = leaf("1.weight"), leaf("1.weight")
    outputs = network(lambda z: z)
    by_hand = CASES["cross-entropy by hand"].loss(outputs({"1.weight": p}))
    known = F.cross_entropy(outputs({"1.weight": q}), LABELS)
    found = [gauss_newton_diagonal(loss, [x], sign_key(0, 1))[0] for loss, x in ((by_hand, p), (known, q))]
    torch.testing.assert_close(*found)


def test_what_bends_downwards_counts_as_zero() -> None:
    """The part with a negative weight is concave."""
    p = torch.tensor([0.3, -0.2], dtype=torch.float64, requires_grad=True)
    (found,) = diagonal((F.softplus(p) - 2 * F.softplus(-3 * p)).sum(), [p], None)
    s = torch.sigmoid(p.detach())
    torch.testing.assert_close(found, s * (1 - s))


# The outputs are z, and h is a hidden layer that they were made of.
NEARLY: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "a product of two outputs": (lambda z, h: (z[0] * z[1]).sum(), "MulBackward0"),
    "a cube": (lambda z, h: (z * z * z).sum(), "MulBackward0"),
    "another power": (lambda z, h: z.abs().pow(1.5).sum(), "PowBackward0"),
    "a fourth power": (lambda z, h: z.pow(4).sum(), "PowBackward0"),
    "a quotient": (lambda z, h: (1 / (z * z + 1)).sum(), "ReciprocalBackward0"),
    "a logarithm": (lambda z, h: -z.sigmoid().log().sum(), "LogBackward0"),
    "logsumexp by hand": (lambda z, h: z.exp().sum(1).log().sum(), "LogBackward0"),
    "a hyperbolic cosine": (lambda z, h: z.cosh().sum(), "CoshBackward0"),
    "a Poisson rate": (lambda z, h: F.poisson_nll_loss(F.softplus(z), z.detach(), log_input=False), "LogBackward0"),
    "a function of logsumexp": (lambda z, h: torch.logsumexp(z, 1).tanh().sum(), "TanhBackward0"),
    "a convex function times an output": (lambda z, h: (F.softplus(z) * z).sum(), "MulBackward0"),
    "a hidden layer used linearly": (lambda z, h: torch.logsumexp(z, 1).sum() - h.sum(), "TanhBackward0"),
    "probabilities that are targets": (
        lambda z, h: F.binary_cross_entropy(z[:1].sigmoid(), z[1:].sigmoid()), "BinaryCrossEntropyBackward0",
    ),
    "a norm": (lambda z, h: z.norm(), "LinalgVectorNormBackward0"),
    "a variance": (lambda z, h: z.var(), "VarBackward0"),
    "another activation": (lambda z, h: F.silu(z).sum(), "SiluBackward0"),
}  # fmt: skip


# h is read through a kink, beside a cross-entropy of z.
KINKS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "L1": (lambda h: F.l1_loss(h, torch.zeros_like(h)), "AbsBackward0"),
    "hinge": (lambda h: (1 - h).relu().mean(), "ReluBackward0"),
    "ranking": (lambda h: F.margin_ranking_loss(h[0], h[1], torch.ones(4), margin=2.0), "ClampMinBackward0"),
    "quantiles": (lambda h: torch.maximum(0.3 * h, -0.7 * h).mean(), "MaximumBackward0"),
}  # fmt: skip


@pytest.mark.parametrize("case", KINKS)
def test_a_loss_that_is_straight_but_for_kinks_is_refused_by_its_own_name(case: str) -> None:
    """And not by that of the layer below it alone, of which it is no fault."""
    loss, kink = KINKS[case]
    w = torch.eye(4, 4, dtype=torch.float64).requires_grad_()
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    hidden = torch.addmm(bias, INPUTS, w)
    with pytest.raises(NoCurvatureError, match=rf"reads AddmmBackward0 through {kink}.*huber_loss"):
        diagonal(F.cross_entropy(hidden[:, :3].tanh(), LABELS) + loss(hidden), [bias], None)


def test_a_loss_that_is_linear_in_the_outputs_is_told_apart_from_a_function() -> None:
    w = torch.eye(4, 3, dtype=torch.float64).requires_grad_()
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    z = torch.addmm(bias, INPUTS, w)
    with pytest.raises(NoCurvatureError, match=r"passes AddmmBackward0.*as a critic's mean is"):
        diagonal(z.mean(), [bias], None)
    # The function is named, not the layer that the loss reads beside it.
    with pytest.raises(NoCurvatureError, match="passes LogcumsumexpBackward0"):
        diagonal((torch.logcumsumexp(z, 1) - z).mean(), [bias], None)


@pytest.mark.parametrize("case", NEARLY)
def test_what_is_nearly_of_the_form_is_refused_by_name(case: str) -> None:
    loss, node = NEARLY[case]
    w = torch.eye(4, 3, dtype=torch.float64).requires_grad_()
    hidden = torch.tanh(INPUTS @ w)
    z = hidden @ torch.ones(3, 3, dtype=torch.float64).requires_grad_()
    says = rf"it passes {node}, which is neither linear nor a convex .* MulBackward0 \(z \* z\),"
    with pytest.raises(NoCurvatureError, match=says):
        diagonal(loss(z, hidden), [w], None)
    assert w.grad is None
    assert z.shape == (ROWS, 3)
