"""A weight as gain and direction: its derivatives of every kind, and the edges of its domain."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from sgdph_fx import prepare
from sgdph_fx.transform.filters import Filters, compose, decompose

LAYOUTS = {
    "plain": ((3, 4, 2), Filters(), 3),
    "grouped": ((4, 1, 3), Filters(groups=4), 4),
    "transposed": ((4, 3, 2), Filters(transposed=True), 3),
    "transposed in groups": ((4, 3, 2), Filters(transposed=True, groups=2), 6),
}


def by_definition(direction: Tensor, gain: Tensor, filters: Filters) -> Tensor:
    stacked = direction if not filters.transposed else direction.unflatten(0, (filters.groups, -1))
    over = [d for d in range(1, stacked.dim()) if not (filters.transposed and d == 2)]
    norm = stacked.square().sum(over, keepdim=True).sqrt()
    return (stacked / norm * gain.view_as(norm)).view_as(direction)


@pytest.fixture(params=LAYOUTS, ids=str)
def parts(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, Filters]:
    torch.manual_seed(0)
    shape, filters, gains = LAYOUTS[request.param]
    direction, gain = torch.randn(shape, dtype=torch.float64), torch.randn(gains, dtype=torch.float64)
    return direction.requires_grad_(), gain.requires_grad_(), filters


def test_both_derivatives_by_finite_differences(parts: tuple[Tensor, Tensor, Filters]) -> None:
    """Backward, forward, batched, and one over the other."""
    direction, gain, filters = parts

    def weight(v: Tensor, g: Tensor) -> Tensor:
        return compose(v, g, filters)

    how: Any = {"check_forward_ad": True, "check_batched_grad": True, "check_batched_forward_grad": True}
    assert torch.autograd.gradcheck(weight, (direction, gain), **how)
    assert torch.autograd.gradgradcheck(
        weight, (direction, gain), check_fwd_over_rev=True, check_rev_over_rev=True
    )
    # One of the two may be frozen.
    assert torch.autograd.gradcheck(weight, (direction.detach(), gain), check_forward_ad=True)
    assert torch.autograd.gradcheck(weight, (direction, gain.detach()), check_forward_ad=True)


def test_zeros_that_torch_writes_without_memory_are_read_as_zeros(
    parts: tuple[Tensor, Tensor, Filters],
) -> None:
    """The derivative of a sign is one; so is the second one of an L1 penalty, which is piecewise linear in γ."""
    direction, gain, filters = parts
    for found in torch.autograd.grad(compose(direction, gain, filters).sgn().sum(), (direction, gain)):
        assert not found.any()
    penalty = compose(direction, gain, filters).abs().sum()
    (by_gain,) = torch.autograd.grad(penalty, gain, create_graph=True)
    (bent,) = torch.autograd.grad(by_gain.sum(), gain)
    torch.testing.assert_close(bent, torch.zeros_like(gain), rtol=0, atol=1e-12)


def test_a_product_passes_an_activation_checkpoint(parts: tuple[Tensor, Tensor, Filters]) -> None:
    """It may read each saved tensor once."""
    direction, gain, filters = parts

    def loss(v: Tensor, g: Tensor) -> Tensor:
        return compose(v, g, filters).exp().sum()

    def products(value: Tensor) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(value, (direction, gain), create_graph=True)
        return torch.autograd.grad([f.sum() for f in first], (direction, gain))

    recomputed = products(checkpoint(loss, direction, gain, use_reentrant=False))
    torch.testing.assert_close(recomputed, products(loss(direction, gain)))


class Calls(TorchDispatchMode):
    """Names of the operations that were called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))

    def computing(self) -> list[str]:
        """Those that are more than a view."""
        return [name for name in self.names if name not in ("view", "permute", "detach", "ones_like")]


@pytest.mark.parametrize(
    ("filters", "layout", "dtype", "in_one_pass"),
    [
        (Filters(), torch.contiguous_format, torch.float64, True),
        (Filters(groups=2), torch.contiguous_format, torch.float32, True),
        (Filters(), torch.channels_last, torch.float64, True),
        (Filters(), torch.contiguous_format, torch.bfloat16, False),
        (Filters(transposed=True), torch.contiguous_format, torch.float64, False),
    ],
)
def test_the_backward_is_one_pass_where_torch_has_it(
    filters: Filters, layout: torch.memory_format, dtype: torch.dtype, in_one_pass: bool
) -> None:
    torch.manual_seed(0)
    direction, gain, grad = (torch.randn(shape, dtype=dtype) for shape in ((4, 5, 3, 2), 4, (4, 5, 3, 2)))
    if filters.transposed:
        gain = torch.randn(5, dtype=dtype)
    inputs = direction.requires_grad_(), gain.requires_grad_()
    with Calls() as calls:
        found = torch.autograd.grad(compose(*inputs, filters), inputs, grad.contiguous(memory_format=layout))
    assert ("_weight_norm_interface_backward" in calls.names) == in_one_pass
    exact = [t.detach().double().requires_grad_() for t in inputs]
    expected = torch.autograd.grad(by_definition(*exact, filters), exact, grad.double())
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.05}[dtype]
    torch.testing.assert_close([t.double() for t in found], [*expected], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_forward_is_four_operations_and_the_backward_one(layout: torch.memory_format) -> None:
    """The norms, 1 in place of 0, γ / ‖V‖, and the product; the backward takes the norms over."""
    torch.manual_seed(0)
    direction = torch.randn(4, 5, 3, 2).contiguous(memory_format=layout).requires_grad_()
    gain, grad = torch.randn(4, requires_grad=True), torch.randn(4, 5, 3, 2).contiguous(memory_format=layout)
    with Calls() as forward:
        weight = compose(direction, gain, Filters())
    with Calls() as backward:
        by_direction, _ = torch.autograd.grad(weight, (direction, gain), grad)
    assert forward.computing() == ["linalg_vector_norm", "threshold", "div", "mul"]
    assert backward.computing() == ["_weight_norm_interface_backward"]
    assert weight.is_contiguous(memory_format=layout)
    assert by_direction.is_contiguous(memory_format=layout)


def test_a_derivative_along_a_direction_reaches_the_norms_that_the_forward_kept() -> None:
    """Dual numbers pass through a backward that records no graph, by V and γ; against double backward."""
    torch.manual_seed(0)
    direction, gain, other, turn = (torch.randn(3, 4, dtype=torch.float64) for _ in range(4))
    gain = gain[:, 0].clone()

    def gradients(v: Tensor) -> tuple[Tensor, ...]:
        lengths = gain.clone().requires_grad_()
        weight = compose(v, lengths, Filters())
        return torch.autograd.grad((weight * other).sin().sum(), (v, lengths))

    with forward_ad.dual_level():
        dual = forward_ad.make_dual(direction.clone().requires_grad_(), turn)
        found = [forward_ad.unpack_dual(g).tangent for g in gradients(dual)]

    def loss(v: Tensor, g: Tensor) -> Tensor:
        return (by_definition(v, g, Filters()) * other).sin().sum()

    by_v, by_gain = torch.func.hessian(loss, argnums=(0, 1))(direction, gain)
    expected = [torch.einsum("ijkl,kl->ij", by_v[0], turn), torch.einsum("ikl,kl->i", by_gain[0], turn)]
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_transforms_of_functions_see_through_it(parts: tuple[Tensor, Tensor, Filters]) -> None:
    direction, gain, filters = (*(t.detach() for t in parts[:2]), parts[2])

    def bent(weight: Any) -> Any:
        return lambda v, g: weight(v, g, filters).sin().square().sum()

    found = torch.func.hessian(bent(compose), argnums=(0, 1))(direction, gain)
    torch.testing.assert_close(
        found, torch.func.hessian(bent(by_definition), argnums=(0, 1))(direction, gain)
    )
    several = [torch.stack([t, 2 - t, 0.5 * t]) for t in (direction, gain)]
    by_each = torch.stack(
        [torch.func.grad(bent(by_definition))(*each) for each in zip(*several, strict=True)]
    )
    torch.testing.assert_close(torch.vmap(torch.func.grad(bent(compose)))(*several), by_each)


def test_it_is_compiled_without_a_break_and_traced_into_a_file() -> None:
    torch.manual_seed(0)
    model = prepare(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())).model
    x = torch.randn(2, 3, 5, 5)
    by_each = []
    for run in (model, torch.compile(model, backend="aot_eager", fullgraph=True)):
        model.zero_grad()
        run(x).square().sum().backward()
        by_each.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*by_each)
    file = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, x), file)
    file.seek(0)
    torch.testing.assert_close(torch.jit.load(file)(x), model(x), rtol=0, atol=0)


def test_decompose_is_exact_to_the_bit() -> None:
    torch.manual_seed(0)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        weight = torch.randn(16, 8, 3, 3).to(dtype)
        assert torch.equal(compose(*decompose(weight, Filters()), Filters()), weight)


@pytest.mark.parametrize("create_graph", [False, True])
def test_direction_of_zeros_is_finite(create_graph: bool) -> None:
    """Never made by us, but a person may load or set it."""
    direction, gain = torch.zeros(2, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    weight = compose(direction, gain, Filters())
    by_direction, by_gain = torch.autograd.grad(weight.sum(), (direction, gain), create_graph=create_graph)
    assert weight.abs().max() == 0
    assert torch.equal(by_direction, torch.ones(2, 3))
    assert torch.equal(by_gain, torch.zeros(2))
    if create_graph:
        for t in torch.autograd.grad((by_direction.square().sum(), by_gain.sum()), (direction, gain)):
            assert t.isfinite().all()
