"""Products in every precision and memory format that people train in, held to the noise of that precision.

The truth is torch's double backward in float64 on the CPU. The noise is what torch's own double backward is off by, in
the same precision on the same device: ours may not be off by much more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sgdph_fx.curvature import block_product, differentiable_gradient
from sgdph_fx.curvature.forward_over_reverse import backward_with_product
from tests.gpu.networks import OTHERS, WIDTHS, batches, loss_of, prepared

pytestmark = pytest.mark.gpu

(BATCH,) = batches(1)
MODES: dict[str, torch.dtype | None] = {
    "float32": None,
    "tf32": None,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
MOST = 3.0
"""How many times torch's own error ours may be, for one vector of one parameter."""
SCALE = 2.0**7
"""What the loss is multiplied by in float16, as a GradScaler does."""


@contextmanager
def precision(mode: str, device: torch.device) -> Iterator[None]:
    """tf32 is on in its own mode; the last two are modes of autocast."""
    places = torch.backends.cudnn, torch.backends.cuda.matmul
    for place in places:
        place.allow_tf32 = mode == "tf32"
    dtype = MODES[mode]
    with torch.autocast(device.type, dtype or torch.bfloat16, enabled=dtype is not None):
        yield


def by_torch(loss: Tensor, parameter: Tensor, v: Tensor) -> Tensor:
    gradient = differentiable_gradient(loss, parameter)
    assert gradient is not None
    return block_product(gradient, parameter)(v)


def second_order(model: Any, groups: list[dict[str, Any]]) -> list[str]:
    """A few, spread over the network; none whose Hessian is nothing but rounding."""
    names = [n for group in groups if group["order"] == 2 for n in group["param_names"]]
    chosen = []
    for name in names[:: max(1, len(names) // 4)]:
        parameter = model.get_parameter(name)
        with sdpa_kernel(SDPBackend.MATH):
            product = by_torch(loss_of(model, BATCH), parameter, torch.ones_like(parameter))
        if product.norm() > 1e-9:
            chosen.append(name)
    return chosen


def error(found: Tensor, truth: Tensor) -> float:
    return float((found.cpu().double() - truth).norm() / truth.norm())


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", [*WIDTHS, *OTHERS])
def test_products_are_as_near_as_torchs_own(
    device: torch.device, name: str, mode: str, channels_last: bool
) -> None:
    model, groups = prepared(name)
    names = second_order(model, groups)
    assert names
    vs = {n: torch.randn_like(model.get_parameter(n)) for n in names}
    with sdpa_kernel(SDPBackend.MATH):
        truth = {n: by_torch(loss_of(model, BATCH), model.get_parameter(n), v) for n, v in vs.items()}
    model.to(
        device, torch.float32, memory_format=torch.channels_last if channels_last else torch.preserve_format
    )
    # cuDNN's recurrent kernel has no second derivative.
    with torch.backends.cudnn.flags(enabled=name != "lstm"):
        for n, v in vs.items():
            check(model, n, v.to(device, torch.float32), truth[n], mode, device)


def scale_of(mode: str) -> float:
    return SCALE if mode == "float16" else 1.0


def noise_of_torch(
    model: nn.Module, parameter: Tensor, v: Tensor, truth: Tensor, mode: str, device: torch.device
) -> float:
    """What torch's own double backward is off by."""
    with precision(mode, device), sdpa_kernel(SDPBackend.MATH):
        loss = loss_of(model, BATCH) * scale_of(mode)
    return error(by_torch(loss, parameter, v) / scale_of(mode), truth)


def check(model: nn.Module, name: str, v: Tensor, truth: Tensor, mode: str, device: torch.device) -> None:
    parameter = model.get_parameter(name)
    noise = noise_of_torch(model, parameter, v, truth, mode, device)
    if not math.isfinite(noise):
        # Torch's second derivative of a norm overflows in float16, and ours does not.
        noise = noise_of_torch(model, parameter, v, truth, "bfloat16", device)
    scale = scale_of(mode)
    model.zero_grad()
    with precision(mode, device):
        loss = loss_of(model, BATCH) * scale
    found = backward_with_product(loss, parameter, v)
    assert found is not None
    unit = torch.finfo(MODES[mode] or torch.float32).eps
    assert error(found / scale, truth) <= MOST * noise + 8 * unit, f"{name}: torch is off by {noise:.1e}"
