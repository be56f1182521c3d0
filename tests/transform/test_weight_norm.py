"""Weight normalization of one layer, against torch's own where the two agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from sgdph_fx import restore, weight_norm
from sgdph_fx.errors import ModelError

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 4), (3, 5)),
    "convolution": (lambda: nn.Conv2d(3, 4, 3), (2, 3, 6, 6)),
    "in groups": (lambda: nn.Conv1d(4, 6, 3, groups=2), (2, 4, 8)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_outputs_and_gradients_are_torchs(name: str) -> None:
    build, shape = LAYERS[name]
    torch.manual_seed(0)
    ours, x = build().double(), torch.randn(shape, dtype=torch.float64)
    theirs: Any = build().double()
    theirs.load_state_dict(ours.state_dict())
    plain = ours(x)
    parametrizations.weight_norm(theirs)
    assert weight_norm(ours) is ours
    assert torch.equal(ours(x), plain)
    for module in (ours, theirs):
        module(x).pow(3).sum().backward()
    gain, direction = theirs.parametrizations.weight.original0, theirs.parametrizations.weight.original1
    found: Any = ours
    torch.testing.assert_close(found.gain.grad, gain.grad.flatten(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.direction.grad, direction.grad, rtol=1e-12, atol=1e-12)


def test_each_output_channel_of_a_transposed_convolution_has_its_gain() -> None:
    layer: Any = weight_norm(nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False))
    x = torch.randn(1, 4, 5, 5)
    before = layer(x).detach()
    with torch.no_grad():
        layer.gain[4] *= 3
    scale = torch.ones(6).index_fill(0, torch.tensor(4), 3.0).view(1, 6, 1, 1)
    torch.testing.assert_close(layer(x), before * scale)


@pytest.mark.parametrize("name", LAYERS)
def test_restore_undoes_it(name: str) -> None:
    build, _ = LAYERS[name]
    layer = build()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    plain = restore(weight_norm(layer))
    assert type(plain) is type(build())
    torch.testing.assert_close(plain.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (lambda: nn.Sequential(nn.Linear(2, 2)), "this is a Sequential"),
        (lambda: nn.BatchNorm1d(2), "this is a BatchNorm1d"),
        (lambda: weight_norm(nn.Linear(2, 2)), "no plain parameter 'weight'"),
        (lambda: parametrizations.weight_norm(nn.Linear(2, 2)), "no plain parameter 'weight'"),
    ],
)
def test_what_it_does_not_take_is_refused(module: Callable[[], nn.Module], words: str) -> None:
    made = module()
    names = [name for name, _ in made.named_parameters()]
    with pytest.raises(ModelError, match=words):
        weight_norm(made)
    assert [name for name, _ in made.named_parameters()] == names
