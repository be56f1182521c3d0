"""Functions of single numbers at their kinks, beside them and far out: there too the product is torch's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from tests.products import bent_sum, double_backward

AT = torch.tensor([-30, -20, -7, -3, -2, -1, -0.5, -0.3, 0, 0.3, 0.5, 1, 2, 3, 6, 7, 20, 30]).double()
POINTS = torch.cat([AT - 1e-9, AT, AT + 1e-9])
ZERO = torch.zeros(())
EDGES = torch.where(torch.arange(len(POINTS)) % 2 == 0, POINTS, POINTS + 1)
SIGNS = torch.where(torch.arange(len(POINTS)) % 2 == 0, 1.0, -1.0).double()
PROBABILITIES = torch.tensor([1e-9, 0.2, 0.5, 0.8, 1 - 1e-9]).double()

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky relu": F.leaky_relu,
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 2),
    "hardswish": F.hardswish,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "threshold": lambda x: F.threshold(x, 0.3, -2),
    "absolute": torch.abs,
    "clamp": lambda x: x.clamp(-0.5, 2),
    "clamp by tensors": lambda x: x.clamp(ZERO - 0.5, ZERO + 2),
    "maximum": lambda x: torch.maximum(x, EDGES) + torch.minimum(x * 2, EDGES),
    "maximum with itself": lambda x: torch.maximum(x, x * 1),
    "where": lambda x: torch.where(x > 0.3, x * x, x),
    "elu": F.elu,
    "elu in place": lambda x: F.elu(x * 1, 0.5, inplace=True),
    "selu": F.selu,
    "selu in place": lambda x: F.selu(x * 1, inplace=True),
    "celu": lambda x: F.celu(x, 0.5),
    "celu in place": lambda x: F.celu(x * 1, 0.5, inplace=True),
    "gelu": F.gelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "softplus, steep": lambda x: F.softplus(x, 2, 4),
    "logsigmoid": F.logsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "softsign": F.softsign,
    "erf": torch.erf,
    "atan, asinh": lambda x: torch.atan(x) + torch.asinh(x),
    "square and cube": lambda x: x**2 + x**3 + x**1,
    "root": lambda x: (x * x) ** 2.5,
    "prelu": lambda x: F.prelu(x[:, None] + 0.05, x[9:10]),
    "nan to num": torch.nan_to_num,
    "squared error": lambda x: F.mse_loss(x, EDGES, reduction="none"),
    "absolute error": lambda x: F.l1_loss(x, EDGES, reduction="none"),
    "smooth absolute error": lambda x: F.smooth_l1_loss(x, EDGES, reduction="none"),
    "smooth absolute error, narrow": lambda x: F.smooth_l1_loss(x, ZERO.double().expand(54), beta=0.5),
    "Huber": lambda x: F.huber_loss(x, EDGES, reduction="none"),
    "Huber, narrow": lambda x: F.huber_loss(x, ZERO.double().expand(54), delta=0.5),
    "soft margin": lambda x: F.soft_margin_loss(x, SIGNS, reduction="none"),
    "hinge": lambda x: F.hinge_embedding_loss(x, SIGNS, reduction="none"),
    "cross entropy of logits": lambda x: F.binary_cross_entropy_with_logits(x, (SIGNS + 1) / 2),
    "norm": lambda x: x[24:30].norm() + x.norm(dim=0),
    "norms of one number": lambda x: torch.linalg.vector_norm(x[:, None] + 0.05, dim=1),
    "largest of equals": lambda x: torch.stack([x, x * 1, x.clamp(max=0)]).amax(0) + x.max(),
    "median, sort": lambda x: x.median() + x.sort()[0],
    "log of a sum": lambda x: torch.stack([x, x * 1, -x]).logsumexp(0),
    "softmax": lambda x: torch.stack([x, -x, 0 * x]).softmax(0),
    "power of two": lambda x: torch.pow(2.0, x.clamp(max=6)),
}
SINGLE = {"celu", "celu in place"}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_product_is_torchs(name: str) -> None:
    v = torch.randn(len(POINTS), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_torchs(FUNCTIONS[name], POINTS, v, 1e-6 if name in SINGLE else 1e-11)


@pytest.mark.parametrize("target", [0.0, 0.3, 1.0])
def test_binary_cross_entropy_of_probabilities_near_0_and_1(target: float) -> None:
    t = torch.full_like(PROBABILITIES, target)
    # torch adds 1e-12 to the probabilities, which shows at 1e-9, and subtracts what cancels.
    assert_torchs(
        lambda x: F.binary_cross_entropy(x, t[1:4]), PROBABILITIES[1:4], torch.ones(3).double(), 1e-9
    )


def assert_torchs(function: Callable[[Tensor], Tensor], points: Tensor, v: Tensor, tolerance: float) -> None:
    p = points.clone().requires_grad_()
    expected = double_backward(lambda: bent_sum(function(p)), p, v)
    found = backward_with_product(bent_sum(function(p)), p, v)
    assert found is not None
    assert expected.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_functions_without_a_slope_have_no_product_but_zero() -> None:
    p = torch.tensor([-1.5, 0.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    for flat in (torch.floor, torch.ceil, torch.round, torch.trunc, torch.sign, torch.sgn):
        found = backward_with_product(flat(p).sum(), p, torch.ones(4).double())
        assert found is not None
        assert found.tolist() == [0.0] * 4


@pytest.mark.parametrize("spread", [lambda x: torch.linalg.vector_norm(x - x.mean()), lambda x: x.std()])
def test_a_spread_of_zero_has_a_finite_product(spread: Callable[[Tensor], Tensor]) -> None:
    """Its gradient is taken as 0 there; torch's second derivative divides by it."""
    p = torch.full((4,), 0.5, dtype=torch.float64, requires_grad=True)
    found = backward_with_product(spread(p) + p.square().sum(), p, torch.arange(4.0).double())
    assert found is not None
    assert found.tolist() == [0.0, 2.0, 4.0, 6.0]


def test_a_power_of_zero_is_flat_where_torch_has_no_number() -> None:
    p = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    found = backward_with_product((0.0**p).sum(), p, torch.ones(2).double())
    assert found is not None
    assert found.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("dtype", "far"), [(torch.float32, 2.0**80), (torch.float64, 2.0**600)])
def test_gelu_is_straight_where_the_square_of_its_input_overflows(dtype: torch.dtype, far: float) -> None:
    """There gelu(x) = x, so that the loss is p², whose Hessian is 2."""
    p = torch.ones(8, dtype=dtype, requires_grad=True)
    loss = (F.gelu(p * far) / far).square().sum()
    found = backward_with_product(loss, p, torch.ones_like(p))
    assert found is not None
    assert found.tolist() == [2.0] * 8
