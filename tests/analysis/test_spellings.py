"""A call is read alike however it is spelled: by NumPy's names, input last, beside a tensor that lends its type alone.

The oracle scales the convolution's filters by random positive numbers: under ``absorbing`` a convolution is normalized
if and only if that leaves the output in training mode as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import Config, analyze

X = torch.randn(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Spelled(nn.Module):
    """A convolution with 8 output filters on maps of 6 by 6, and what follows it."""

    def __init__(self, after: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.after = nn.Conv2d(3, 8, 3, bias=False), after
        self.over_rows, self.over_channels = nn.BatchNorm2d(6, eps=1e-12), nn.BatchNorm2d(8, eps=1e-12)
        self.halves = nn.GroupNorm(4, 4, eps=1e-12)
        self.place = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, self.conv(x))


def rows(net: nn.Module, y: Tensor) -> Tensor:
    y = y.transpose(1, 2).mean(3, keepdims=True)  # type: ignore[call-overload]
    return net.over_rows(y.transpose(-1, -2))  # type: ignore[no-any-return, operator]


def columns(net: nn.Module, y: Tensor) -> Tensor:
    return net.over_channels(y.mean(axis=3, keepdims=True))  # type: ignore[no-any-return, operator, call-overload]


def chunks(net: nn.Module, y: Tensor) -> Tensor:
    halves = torch.chunk(y, 2, axis=1)  # type: ignore[call-overload]
    return torch.cat([net.halves(halves[0]), net.halves(halves[1])])  # type: ignore[operator]


def unsqueezed(net: nn.Module, y: Tensor) -> Tensor:
    y = y.unsqueeze(axis=0)  # type: ignore[call-arg]
    return net.over_channels(y.squeeze(axis=0))  # type: ignore[no-any-return, operator, call-overload]


def twice(net: nn.Module, y: Tensor) -> Tensor:
    return net.over_channels(torch.mul(y, x2=2.0))  # type: ignore[no-any-return, operator, call-overload]


def functional(net: nn.Module, y: Tensor) -> Tensor:
    return F.layer_norm(normalized_shape=(6, 6), input=y, eps=1e-12)


def typed(net: nn.Module, y: Tensor) -> Tensor:
    return net.over_channels(y) + net.place.mean().to(y)  # type: ignore[no-any-return, operator]


def placed(net: nn.Module, y: Tensor) -> Tensor:
    return net.over_channels(y) + torch.zeros((), dtype=y.dtype).to(y.get_device() if y.is_cuda else "cpu")  # type: ignore[no-any-return, operator]


ALL = [rows, columns, chunks, unsqueezed, twice, functional, typed, placed]
# Without a run nobody knows where a tensor is, nor how long the pieces of one are.
RECORDED_ALONE = (placed, chunks)
CASES = [
    (after, recorded)
    for after in ALL
    for recorded in (True, False)
    if recorded or after not in RECORDED_ALONE
]


def is_absorbed(net: Spelled) -> bool:
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled.conv.weight *= torch.rand(8, 1, 1, 1, dtype=torch.float64) + 0.5
    return torch.allclose(net(X), scaled(X), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("after", "recorded"), CASES)
def test_a_call_is_what_it_is_by_any_spelling(
    after: Callable[[nn.Module, Tensor], Tensor], recorded: bool
) -> None:
    net = Spelled(after).double()
    (entry,) = analyze(net, X if recorded else None, config=Config("absorbing")).convolutions
    assert (entry.verdict == "normalized") is is_absorbed(net), entry.reason
