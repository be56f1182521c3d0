"""Operations by name: those that have a rule of their own, and some that torch's second derivative is used for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.curvature.forward_over_reverse.cases.elementwise import ARITHMETIC, PIECEWISE, SMOOTH
from tests.curvature.forward_over_reverse.cases.layers import LAYERS
from tests.curvature.forward_over_reverse.cases.losses import LOSSES, REDUCTIONS
from tests.curvature.forward_over_reverse.cases.matrices import MATRICES
from tests.curvature.forward_over_reverse.cases.shapes import INDICES, PICK, POOLS, SHAPES, SINCE_2_12
from tests.products import LENGTH, Operation, loss_of, torch_lacks

__all__ = ["KNOWN", "TOLERANCES", "UNKNOWN", "WRITTEN_OUT"]

IMAGE = (2, 4, 5, 6)


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x * x * g


def _written_into(x: Tensor) -> Tensor:
    y = x * 2
    y[:, 1] = x[:, 0] ** 2
    y[:, 2:].mul_(x[:, :2])
    return y


def _differentiable(operation: Operation) -> bool:
    p = torch.ones(LENGTH, dtype=torch.float64, requires_grad=True)
    try:
        torch.autograd.grad(loss_of(p, operation, (True,) * len(operation[1])), p)
    except RuntimeError as error:
        if not torch_lacks(error):
            raise
        return False
    return True


KNOWN = LAYERS | PIECEWISE | SMOOTH | ARITHMETIC | LOSSES | REDUCTIONS | SHAPES | POOLS | INDICES | MATRICES
KNOWN |= {name: operation for name, operation in SINCE_2_12.items() if _differentiable(operation)}
UNKNOWN: dict[str, Operation] = {
    "power that varies": (lambda x: (x * x + 1) ** x, [IMAGE]),
    "hypot of a value and what it makes": (lambda x: torch.hypot(x, x.cos() + 2), [IMAGE]),
    "hypot of a value with itself": (lambda x: torch.hypot(x + 3, x + 3), [IMAGE]),
    "hypot that broadcasts": (torch.hypot, [IMAGE, (4, 1, 1)]),
    "written into": (_written_into, [IMAGE]),
    "circular padding": (lambda x: F.pad(x, (1, 2, 0, 1), mode="circular"), [IMAGE]),
    "grid sample": (lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False), [IMAGE, (2, 3, 4, 2)]),
    "KL divergence from what is made": (
        lambda x, t: F.kl_div(x.log_softmax(1), t.softmax(1), reduction="batchmean"), [(3, 4), (3, 4)]
    ),
    "products": (lambda x: x.prod(1) + x.cumprod(1)[:, 1], [IMAGE]),
    "custom function": (lambda x: Cube.apply(x) * x, [IMAGE]),
    "complex numbers": (lambda x: torch.fft.rfft(x).mul(2 - 1j).abs().square(), [IMAGE]),
    "complex numbers that multiply": (
        lambda x, y: torch.view_as_real(torch.complex(x, y) * torch.complex(y, x).exp()), [(3, 4), (3, 4)]
    ),
}  # fmt: skip

# torch has no second derivative of the first under their own name.
WRITTEN_OUT: dict[str, Callable[..., Any]] = {
    "hardsigmoid": lambda x: F.relu6(x + 3) / 6,
    "embedding bags": lambda w: w[PICK].sum(1) * w[PICK].mean(1),
    "largest of embeddings": lambda w: w[PICK].amax(1),
    # Here torch's second derivative is wrong.
    "torch's weight norm": lambda v, g: g * v / torch.norm_except_dim(v, 2, 0),
    "torch's weight norm of the last": lambda v, g: g * v / torch.norm_except_dim(v, 2, 2),
}

TOLERANCES = {
    **dict.fromkeys(("to another dtype and back", "hardsigmoid", "celu", "celu in place"), 1e-6),
    **dict.fromkeys(("binary cross entropy", "binary cross entropy, weighted"), 1e-10),
}
"""Relative errors of torch's own, where they are not 1e-12: it holds hardsigmoid's 1/6 and CELU's 1/α in single
precision, and adds 1e-12 to probabilities."""
