"""Convolutions by a view of a parameter: whose weight it is, and whether it can be decoupled."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sgdph_fx import analyze, prepare, restore

CHANNELS = 4
BOTH_WAYS = pytest.mark.parametrize("recorded", [False, True], ids=["symbolic", "recorded"])


class Viewed(nn.Module):
    """Convolves by a view of the weight of ``conv``, which is ``(4, 1, 3)``, in four groups; then ``end``."""

    def __init__(self, view: Callable[[Tensor], Tensor], end: nn.Module, groups: int = CHANNELS) -> None:
        super().__init__()
        self.conv = nn.Conv1d(CHANNELS, CHANNELS, 3, groups=CHANNELS)
        self.view, self.end, self.groups = view, end, groups

    def forward(self, x: Tensor) -> Tensor:
        weight = self.view(self.conv.weight)
        return self.end(F.conv1d(x, weight, self.conv.bias, groups=self.groups))


def as_mamba_does(w: Tensor) -> Tensor:
    return w.squeeze(1).unsqueeze(1)


def by_its_own_sizes(w: Tensor) -> Tensor:
    return w.view(w.size(0), w.shape[2]).view(w.shape[0], 1, -1)


def there_and_back(w: Tensor) -> Tensor:
    return w.flatten().reshape(4, 3).t().contiguous().transpose(0, 1)[:, None]


KEPT = [as_mamba_does, by_its_own_sizes, there_and_back]


@BOTH_WAYS
@pytest.mark.parametrize("view", KEPT)
def test_a_view_that_keeps_the_filters_is_decoupled(view: Callable[[Tensor], Tensor], recorded: bool) -> None:
    model, x = Viewed(view, nn.SiLU()), torch.rand(2, CHANNELS, 8)
    plain = model(x)
    prepared, _, report = prepare(model, x if recorded else None)
    (row,) = report.plan.convolutions
    assert (row.name, row.weight, row.verdict, row.decouple) == ("conv", "conv.weight", "bare", True)
    assert (row.out_channels, row.groups) == (4, 4)
    assert report.plan.hints == ()
    assert {n: tuple(p.shape) for n, p in prepared.named_parameters()} == {
        "conv.direction": (4, 1, 3),
        "conv.gain": (4,),
        "conv.bias": (4,),
    }
    assert torch.equal(prepared(x), plain)
    with torch.no_grad():
        prepared.conv.gain[1] *= 2  # the second channel, less its bias, and no other
    after = (prepared(x), plain)
    changed = [not torch.equal(a, b) for a, b in zip(*(y.unbind(1) for y in after), strict=True)]
    assert changed == [False, True, False, False]
    assert list(restore(prepared).state_dict()) == ["conv.weight", "conv.bias"]


@BOTH_WAYS
def test_a_norm_is_found_after_a_viewed_weight(recorded: bool) -> None:
    model = Viewed(as_mamba_does, nn.BatchNorm1d(CHANNELS))
    plan = analyze(model, torch.rand(2, CHANNELS, 8) if recorded else None)
    (row,) = plan.convolutions
    assert (row.verdict, row.norm, row.decouple) == ("normalized", "end", False)


# By hand: (4, 1, 3) holds filter f's taps in numbers 3f to 3f + 2.
OTHER: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "each filter of the new has a number of every third": (lambda w: w.reshape(3, 4).t().unsqueeze(1), 4),
    "two filters are one": (lambda w: w.reshape(2, 2, 3), 2),
    "filters are cut in three": (lambda w: w.reshape(12, 1, 1), 4),
    "one filter of the first four numbers": (lambda w: w.flatten()[:4].view(1, 4, 1), 1),
    "a part of the second half": (lambda w: w.chunk(2)[1][:, :, 1:].reshape(2, 2, 1), 2),
}


@BOTH_WAYS
@pytest.mark.parametrize(("view", "groups"), OTHER.values(), ids=OTHER)
def test_a_view_with_other_filters_is_seen_and_left(
    view: Callable[[Tensor], Tensor], groups: int, recorded: bool
) -> None:
    model = Viewed(view, nn.SiLU(), groups)
    model.conv.bias = None
    plan = analyze(model, torch.rand(2, CHANNELS, 8) if recorded else None)
    (row,) = plan.convolutions
    assert (row.name, row.verdict, row.decouple) == ("conv", "bare", False)
    assert "other filters" in row.reason
    assert plan.hints == ()
    assert {p.name: p.order for p in plan.parameters} == {"conv.weight": 1}


@BOTH_WAYS
@pytest.mark.parametrize(
    ("view", "why"),
    [
        (lambda w: w * w, "its weight is computed from conv.weight by mul"),
        (lambda w: w.detach().clone(), "its weight is cut off from conv.weight by detach"),
    ],
    ids=["computed", "detached"],
)
def test_a_weight_that_is_computed_is_kept_with_the_reason(
    view: Callable[[Tensor], Tensor], why: str, recorded: bool
) -> None:
    plan = analyze(Viewed(view, nn.SiLU()), torch.rand(2, CHANNELS, 8) if recorded else None)
    (row,) = plan.convolutions
    assert (row.name, row.verdict, row.decouple) == ("conv", "bare", False)
    assert why in row.reason
    assert plan.hints == ()


class OwnKernel(nn.Module):
    """A parameter of two dimensions that only a view makes a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.rand(CHANNELS, 3))
        self.register_buffer("blur", torch.ones(CHANNELS, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv1d(x, self.blur.unsqueeze(1), groups=CHANNELS)
        return F.conv1d(y, self.taps.unsqueeze(1), groups=CHANNELS)


@BOTH_WAYS
def test_a_parameter_of_its_own_through_a_view(recorded: bool) -> None:
    """The buffer beside it, viewed alike, is a fixed kernel and no convolution of ours."""
    model, x = OwnKernel(), torch.rand(2, CHANNELS, 8)
    prepared, _, report = prepare(model, x if recorded else None)
    (row,) = report.plan.convolutions
    assert (row.name, row.weight, row.shape, row.decouple) == ("taps", "taps", (4, 3), True)
    assert {n: tuple(p.shape) for n, p in prepared.named_parameters()} == {
        "taps_direction": (4, 3),
        "taps_gain": (4,),
    }
    assert torch.equal(prepared(x), model(x))


@BOTH_WAYS
@pytest.mark.parametrize("transposed", [False, True])
def test_the_function_that_all_convolutions_call(transposed: bool, recorded: bool) -> None:
    class General(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            sizes = [1, 1], [0, 0], [1, 1]
            return torch.convolution(x, self.weight, None, *sizes, transposed, [0, 0], 2 if transposed else 1)

    model, x = General(), torch.rand(2, 4 if transposed else 3, 6, 6)
    before = model(x)
    prepared, _, report = prepare(model, x if recorded else None)
    (entry,) = report.plan.convolutions
    assert (entry.weight, entry.transposed, entry.groups) == ("weight", transposed, 2 if transposed else 1)
    assert entry.decouple
    with torch.no_grad():
        prepared.gain[1] *= 2
    torch.testing.assert_close(prepared(x)[:, 1], 2 * before[:, 1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prepared(x)[:, 2:], before[:, 2:], rtol=0, atol=1e-5)
