"""Each example, in the package that it is for, takes the steps of a loop written out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from timm.utils import NativeScaler
from torch import nn
from torch.nn.functional import cross_entropy

from examples import with_accelerate, with_lightning, with_schemes, with_timm
from examples.data import batches, network
from sgdph_fx import SGDPH, prepare

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:Using backward\\(\\) with create_graph=True:UserWarning"),
    # What the packages say of themselves and of this machine.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*", "ignore:GPU available.*"),
]


def written_out(epochs: int, accumulate: int = 1, clip: float | None = None) -> nn.Module:
    model, groups, _ = prepare(network(), torch.randn(2, 3, 12, 12))
    optimizer = SGDPH(groups, lr=0.02)
    for _ in range(epochs):
        for number, (images, labels) in enumerate(batches()):
            optimizer.backward(cross_entropy(model(images), labels) / accumulate)
            if (number + 1) % accumulate == 0:
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
    return model


def by_lightning(epochs: int, accumulate: int, clip: float | None) -> tuple[nn.Module, float]:
    return with_lightning.train(epochs, accumulate_grad_batches=accumulate, gradient_clip_val=clip)


def by_timm(
    scaler: Callable[[], Any], epochs: int, accumulate: int, clip: float | None
) -> tuple[nn.Module, float]:
    return with_timm.train(epochs, scaler(), accumulate, clip)


WAYS: dict[str, Callable[[int, int, float | None], tuple[nn.Module, float]]] = {
    "lightning": by_lightning,
    "accelerate": with_accelerate.train,
    "timm": partial(by_timm, lambda: None),
    "timm, its own scaler": partial(by_timm, lambda: NativeScaler("cpu")),
    "timm, our scaler": partial(by_timm, lambda: with_timm.Scaler("cpu")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (2, 0.1)])
def test_the_steps_are_those_of_a_loop_written_out(way: str, accumulate: int, clip: float | None) -> None:
    found, _ = WAYS[way](2, accumulate, clip)
    started = prepare(network(), torch.randn(2, 3, 12, 12)).model
    expected = written_out(2, accumulate, clip)
    for p, q, r in zip(found.parameters(), expected.parameters(), started.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)
        assert (p - r).abs().max() > 1e-5


@pytest.mark.parametrize("train", [with_lightning.train, with_accelerate.train, with_timm.train])
def test_they_learn(train: Callable[..., tuple[nn.Module, float]]) -> None:
    """The classes are as likely at first: ln 4 = 1.386."""
    assert train(epochs=15)[1] < 1.0


def test_a_lightning_run_resumes_from_its_checkpoint(tmp_path: Any) -> None:
    whole, _ = with_lightning.train(4)
    with_lightning.train(2, enable_checkpointing=True, default_root_dir=tmp_path)
    (file,) = tmp_path.rglob("*.ckpt")
    saved = torch.load(file, weights_only=True)
    (optimizer,) = saved["optimizer_states"]
    assert {group["step"] for group in optimizer["param_groups"]} == {8}
    resumed = with_lightning.train(4, resume=file)[0]
    for p, q in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("scheme", ["sgd-ph", "no-decay", "layer-decay", "muon"])
def test_a_vision_transformer_learns_under_each_scheme(scheme: str) -> None:
    first, last = with_schemes.train(scheme)
    assert last < 0.7 * first
