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

from examples import (
    with_accelerate,
    with_lightning,
    with_schemes,
    with_timm,
    with_token_weights,
    with_transformers,
    with_two_optimizers,
)
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
    scaler: Callable[[], Any], attached: bool, epochs: int, accumulate: int, clip: float | None
) -> tuple[nn.Module, float]:
    return with_timm.train(epochs, scaler(), accumulate, clip, attached)


WAYS: dict[str, Callable[[int, int, float | None], tuple[nn.Module, float]]] = {
    "lightning": by_lightning,
    "accelerate": with_accelerate.train,
    "transformers": with_transformers.train,
    "timm": partial(by_timm, lambda: None, True),
    "timm, its scaler": partial(by_timm, lambda: NativeScaler("cpu"), True),
    "timm, as it is": partial(by_timm, lambda: None, False),
    "timm, its scaler, as it is": partial(by_timm, lambda: NativeScaler("cpu"), False),
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


TRAININGS = [with_lightning.train, with_accelerate.train, with_timm.train, with_transformers.train]


@pytest.mark.parametrize("train", TRAININGS)
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


def test_a_transformers_run_resumes_from_its_checkpoint(tmp_path: Any) -> None:
    whole, _ = with_transformers.train(4)
    with_transformers.train(2, output_dir=str(tmp_path), save_strategy="epoch")
    saved = torch.load(tmp_path / "checkpoint-8" / "optimizer.pt", weights_only=True)
    assert {group["step"] for group in saved["param_groups"]} == {8}
    resumed, _ = with_transformers.train(4, resume=str(tmp_path / "checkpoint-8"))
    for p, q in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_losses_summed_over_tokens_and_divided_at_the_end_are_the_means_of_whole_batches(
    clip: float | None,
) -> None:
    pieces, whole = (with_token_weights.train(2, clip=clip, whole=whole)[0] for whole in (False, True))
    for p, q in zip(pieces.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-5)
    # A word follows with certainty: by chance it would be ln 12 = 2.48.
    assert with_token_weights.train(5)[1] < 0.5


def test_the_gan_moves_its_samples_to_the_real_ones() -> None:
    """They start around 0, 2.24 from the mean of the real ones."""
    assert with_two_optimizers.train()[1] < 0.5
    critic = with_two_optimizers.network(2, 1).double()
    samples = with_two_optimizers.real(torch.Generator().manual_seed(0)).double()
    _, penalty = with_two_optimizers.r1(critic, samples)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: critic(x).squeeze()))(samples.detach())
    torch.testing.assert_close(penalty, jacobian.square().sum(1).mean(), rtol=1e-12, atol=0)
