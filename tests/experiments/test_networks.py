"""The networks, against parameter counts summed by hand and against their published sizes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from experiments.networks import NETWORKS, build

VGG_CHANNELS = {11: [1, 2, 4, 4, 8, 8, 8, 8], 19: [1, 1, 2, 2, *[4] * 4, *[8] * 8]}


def vgg_count(depth: int, norm: bool, width: int, channels: int) -> int:
    """Count 9·in·out + out for each convolution, 2·out for each norm, and the classifier."""
    outs = [multiple * width for multiple in VGG_CHANNELS[depth]]
    ins = [channels, *outs[:-1]]
    convolutions = sum(9 * i * o + o for i, o in zip(ins, outs, strict=True))
    return convolutions + (2 * sum(outs) if norm else 0) + outs[-1] * 10 + 10


def resnet18_count(w: int, channels: int) -> int:
    """Count stem, two blocks in each stage, three 1×1 shortcuts; no biases, two numbers for each norm channel."""
    stem = 9 * channels * w + 2 * w
    first = 4 * (9 * w * w + 2 * w)
    rest = sum(
        (9 * (c // 2) * c + 2 * c) + 3 * (9 * c * c + 2 * c) + ((c // 2) * c + 2 * c)
        for c in (2 * w, 4 * w, 8 * w)
    )
    return stem + first + rest + 8 * w * 10 + 10


def resnet18_no_norm_count(w: int, channels: int) -> int:
    """As above without norms, each convolution with a bias."""
    stem = 9 * channels * w + w
    first = 4 * (9 * w * w + w)
    rest = sum(
        (9 * (c // 2) * c + c) + 3 * (9 * c * c + c) + ((c // 2) * c + c) for c in (2 * w, 4 * w, 8 * w)
    )
    return stem + first + rest + 8 * w * 10 + 10


def resnet50_count(w: int, channels: int) -> int:
    """As above, with bottlenecks of 1×1, 3×3, 1×1 to four times the width."""
    total, inputs = 9 * channels * w + 2 * w, w
    for c, depth in ((w, 3), (2 * w, 4), (4 * w, 6), (8 * w, 3)):
        for block in range(depth):
            total += inputs * c + 9 * c * c + c * 4 * c + 2 * (c + c + 4 * c)
            total += inputs * 4 * c + 2 * 4 * c if block == 0 else 0
            inputs = 4 * c
    return total + inputs * 10 + 10


def convnext_count(w: int, channels: int) -> int:
    """Stem and norm; each stage a norm and a step down, then 2 blocks of depthwise 7×7, norm, MLP and scales."""
    stages = (w, 2 * w, 4 * w, 8 * w)
    down = sum(2 * i + 4 * i * o + o for i, o in zip((w, *stages), stages, strict=False))
    mlp = sum(2 * (c * 4 * c) + 4 * c + c for c in stages)
    blocks = 2 * (sum(49 * c + c + 2 * c + c for c in stages) + mlp)
    return 4 * channels * w + w + 2 * w + down + blocks + 2 * 8 * w + 8 * w * 10 + 10


def vit_count(w: int, channels: int) -> int:
    """Patches, a class token, 65 positions, 6 blocks of two norms, q, k, v, projection and MLP, and a norm."""
    e = 3 * w
    block = 2 * 2 * e + 3 * e * e + 3 * e + e * e + e + 4 * e * e + 4 * e + 4 * e * e + e
    return 16 * channels * e + e + e + 65 * e + 6 * block + 2 * e + e * 10 + 10


def _count(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


@pytest.mark.parametrize(("width", "channels"), [(64, 3), (16, 3), (8, 1)])
def test_parameter_counts(width: int, channels: int) -> None:
    for name, expected in {
        "resnet18": resnet18_count(width, channels),
        "resnet18-no-norm": resnet18_no_norm_count(width, channels),
        "resnet50": resnet50_count(width, channels),
        "vgg11": vgg_count(11, False, width, channels),
        "vgg11-bn": vgg_count(11, True, width, channels),
        "vgg19": vgg_count(19, False, width, channels),
        "vgg19-bn": vgg_count(19, True, width, channels),
        "convnext": convnext_count(width, channels),
        "vit": vit_count(width, channels),
    }.items():
        assert _count(build(name, width=width, channels=channels)) == expected, name


def test_published_counts() -> None:
    # The CIFAR-10 ResNet-18 and ResNet-50 that are in common use.
    assert _count(build("resnet18")) == 11_173_962
    assert _count(build("resnet50")) == 23_520_842


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_of_32_pixel_images(name: str) -> None:
    net = build(name, width=8, channels=1, classes=7)
    assert net(torch.randn(2, 1, 32, 32)).shape == (2, 7)


def test_resnet_stages_have_32_16_8_and_4_pixels() -> None:
    net = build("resnet18", width=8)
    sizes: list[int] = []
    for block in net.get_submodule("blocks").children():
        block.register_forward_hook(lambda module, inputs, output: sizes.append(output.shape[-1]))
    net(torch.randn(2, 3, 32, 32))
    assert sizes == [32, 32, 16, 16, 8, 8, 4, 4]


def test_initial_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    once, again, other = (build("vgg11", width=8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    pairs = zip(once.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(next(once.parameters()), next(other.parameters()))


def test_convolutions_start_as_he_et_al_say() -> None:
    weight = build("vgg19").get_submodule("features.34").get_parameter("weight")
    # Variance 2 / fan_out with fan_out = 9 · 512. With 512 · 512 · 9 draws chance is under 0.2%.
    assert weight.std().item() == pytest.approx((2 / (9 * 512)) ** 0.5, rel=0.01)


def test_without_norm_activations_neither_vanish_nor_explode_at_the_start() -> None:
    net = build("resnet18-no-norm", width=16)
    sizes: list[float] = []
    for block in net.get_submodule("blocks").children():
        block.register_forward_hook(
            lambda module, inputs, output: sizes.append(output.square().mean().item())
        )
    net(torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    # Unscaled residuals would double the mean square in each of the 8 blocks.
    assert 1 / 20 < sizes[-1] / sizes[0] < 20


def test_the_mlp_has_four_hidden_layers_and_starts_as_glorot_and_bengio_say() -> None:
    net = build("mlp-tanh", width=200, channels=2, classes=1)
    assert _count(net) == (2 * 200 + 200) + 3 * (200 * 200 + 200) + 200 + 1
    assert net(torch.randn(5, 2)).shape == (5, 1)
    # Variance 2 / (fan_in + fan_out).
    assert net.get_parameter("2.weight").std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert not net.get_parameter("2.bias").any()
