"""The Triton kernel of a decoupled weight, run by its interpreter on a CPU, against the formula in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sgdph_fx.transform.filters import Filters, compose, decompose
from tests.transform.test_filters import by_definition

SHAPES: dict[str, tuple[tuple[int, ...], torch.memory_format]] = {
    "images": ((4, 5, 3, 2), torch.contiguous_format),
    "channels last": ((4, 5, 3, 2), torch.channels_last),
    "pointwise, channels last": ((4, 5, 1, 1), torch.channels_last),
    "depthwise": ((4, 1, 3, 3), torch.contiguous_format),
    "one number": ((4, 1, 1, 1), torch.contiguous_format),
    "a matrix": ((4, 7), torch.contiguous_format),
    "longer than a tile": ((3, 260, 3, 3), torch.channels_last),
}


@pytest.fixture(params=SHAPES, ids=str)
def direction(request: pytest.FixtureRequest) -> Tensor:
    torch.manual_seed(0)
    shape, layout = SHAPES[request.param]
    return torch.randn(shape).contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weight_and_gradients(launched: list[str], direction: Tensor, dtype: torch.dtype) -> None:
    gain, grad = torch.randn(len(direction)), torch.randn_like(direction, dtype=dtype)
    inputs = [t.clone().requires_grad_() for t in (direction, gain)]
    weight = compose(inputs[0], inputs[1], Filters(), dtype)
    found = torch.autograd.grad(weight, inputs, grad)
    in_halves = dtype is torch.bfloat16
    # Of gradients in single precision torch has a kernel.
    assert launched == ["weight_norm_forward", *(["weight_norm_backward"] if in_halves else [])]
    assert (weight.stride(), weight.dtype) == (direction.stride(), dtype)
    assert [t.dtype for t in found] == [torch.float32] * 2
    assert found[0].stride() == direction.stride()
    exact = [t.detach().double().requires_grad_() for t in inputs]
    expected = by_definition(exact[0], exact[1], Filters())
    # The interpreter rounds to halves towards zero.
    accuracy = 0.01 if in_halves else 1e-5
    torch.testing.assert_close(weight.double(), expected, rtol=accuracy, atol=1e-6)
    by_both = torch.autograd.grad(expected, exact, grad.double())
    torch.testing.assert_close([t.double() for t in found], [*by_both], rtol=1e-4, atol=1e-4)


def test_a_filter_of_zeros_is_finite_and_not_a_number_stays_so(launched: list[str]) -> None:
    direction, gain = torch.randn(3, 5), torch.ones(3, requires_grad=True)
    direction[0], direction[1, 2] = 0, torch.nan
    direction.requires_grad_()
    weight = compose(direction, gain, Filters())
    by_direction, by_gain = torch.autograd.grad(weight[0].sum(), (direction, gain))
    assert launched == ["weight_norm_forward"]
    assert torch.equal(weight[0], torch.zeros(5))
    assert weight[1].isnan().all()
    assert torch.equal(by_direction[0], torch.ones(5))
    assert by_gain[0] == 0


def test_a_weight_that_is_taken_apart_there_comes_back_to_the_bit(
    launched: list[str], direction: Tensor
) -> None:
    assert torch.equal(compose(*decompose(direction, Filters()), Filters()), direction)
    assert launched == ["weight_norm_forward"] * 2


def test_other_weights_are_left_to_torch(launched: list[str]) -> None:
    images = torch.randn(4, 5, 3, 2)
    for direction, gains, filters in (
        (images, 5, Filters(transposed=True)),
        (images.double(), 4, Filters()),
        (images.bfloat16(), 4, Filters()),
        (images.transpose(0, 2), 3, Filters()),
    ):
        gain = torch.ones(gains, dtype=direction.dtype)
        expected = by_definition(direction.double(), gain.double(), filters)
        found = compose(direction, gain, filters)
        torch.testing.assert_close(found.double(), expected, rtol=0.02, atol=0.01)
    assert launched == []
