"""The paper's networks in CIFAR form and two of today's, each with a width, so that a narrow one trains on a CPU.

ResNet (He et al. 2016) with a 3×3 stem of stride 1 and no max pooling; VGG (Simonyan & Zisserman 2015)
whose five poolings leave one pixel, with a single linear layer as classifier. Convolutions start as in
He et al. 2015 (normal, fan out), in every network and for every optimizer: with torch's default a VGG
without normalization hardly starts to learn. ConvNeXt and ViT, which the paper does not have, are timm's, with its
start. Inputs are ``(N, channels, 32, 32)``, outputs logits ``(N, classes)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

__all__ = ["NETWORKS", "TORCHVISION", "BasicBlock", "Bottleneck", "ResNet", "Vgg", "build"]

# Output channels as multiples of width / 64; "M" is a pooling of 2×2.
VGG_LAYOUTS: dict[int, tuple[int | str, ...]] = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    19: (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"),
}


class BasicBlock(nn.Module):
    """Two 3×3 convolutions, each with batch norm, and the shortcut around them (ResNet-18)."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_norm(inputs, width, 3, stride), nn.ReLU(), *_conv_norm(width, width, 3)
        )
        self.shortcut = _shortcut(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut, then ReLU."""
        return torch.relu(self.residual(x) + self.shortcut(x))


class Bottleneck(nn.Module):
    """1×1, 3×3 and 1×1 convolutions to four times the width, each with batch norm (ResNet-50)."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_conv_norm(inputs, width, 1), nn.ReLU(),
            *_conv_norm(width, width, 3, stride), nn.ReLU(),
            *_conv_norm(width, width * self.expansion, 1),
        )  # fmt: skip
        self.shortcut = _shortcut(inputs, width * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Add the residual to the shortcut, then ReLU."""
        return torch.relu(self.residual(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages of residual blocks with ``width``, 2, 4 and 8 times ``width`` channels.

    Args:
        block: The kind of block.
        depths: Number of blocks in each stage.
        width: Channels of the stem and the first stage; 64 is the published network.
        channels: Channels of the images.
        classes: Number of classes.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, ...],
        width: int,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_conv_norm(channels, width, 3), nn.ReLU())
        blocks: list[nn.Module] = []
        features = width
        for stage, depth in enumerate(depths):
            for index in range(depth):
                blocks.append(block(features, width << stage, stride=2 if stage and not index else 1))
                features = (width << stage) * block.expansion
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(features, classes)
        self.apply(_he_normal)

    def forward(self, x: Tensor) -> Tensor:
        """Images → logits."""
        return self.classifier(self.pool(self.blocks(self.stem(x))).flatten(1))  # type: ignore[no-any-return]


class Vgg(nn.Module):
    """3×3 convolutions, with or without batch norm, and one linear layer.

    Args:
        depth: 11 or 19.
        norm: Whether a batch norm follows each convolution.
        width: Channels of the first convolution, at most 8 times as many later; 64 is the published network.
        channels: Channels of the images.
        classes: Number of classes.
    """

    def __init__(self, depth: int, norm: bool, width: int, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for entry in VGG_LAYOUTS[depth]:
            if isinstance(entry, str):
                layers.append(nn.MaxPool2d(2))
                continue
            outputs = entry * width // 64
            layers.append(nn.Conv2d(channels, outputs, 3, padding=1))
            layers += [nn.BatchNorm2d(outputs), nn.ReLU()] if norm else [nn.ReLU()]
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, classes)
        self.apply(_he_normal)

    def forward(self, x: Tensor) -> Tensor:
        """Images → logits."""
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]


def _conv_norm(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return convolution, nn.BatchNorm2d(outputs)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Module:
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return nn.Sequential(*_conv_norm(inputs, outputs, 1, stride))


def _he_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _convnext(width: int, channels: int, classes: int) -> nn.Module:
    """A stem of 2×2; four stages of two blocks, each at half the pixels, of ``width``, 2, 4 and 8 times that."""
    import timm

    dims = tuple(width << stage for stage in range(4))
    size: dict[str, Any] = {"patch_size": 2, "depths": (2, 2, 2, 2), "dims": dims}
    return timm.create_model("convnext_atto", in_chans=channels, num_classes=classes, **size)


def _vit(width: int, channels: int, classes: int) -> nn.Module:
    """Patches of 4×4, and six blocks of three heads with ``width`` channels each."""
    import timm

    size: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 4,
        "embed_dim": 3 * width,
        "depth": 6,
        "num_heads": 3,
    }
    return timm.create_model("vit_tiny_patch16_224", in_chans=channels, num_classes=classes, **size)


NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "vgg11": partial(Vgg, 11, False),
    "vgg11-bn": partial(Vgg, 11, True),
    "vgg19": partial(Vgg, 19, False),
    "vgg19-bn": partial(Vgg, 19, True),
    "convnext": _convnext,
    "vit": _vit,
}

TORCHVISION: dict[str, Callable[..., nn.Module]] = {
    "resnet18-imagenet": torchvision.models.resnet18,
    "resnet50-imagenet": torchvision.models.resnet50,
}
"""Those for images of 224×224 pixels, of three channels and in the published width alone."""


def build(name: str, *, width: int = 64, channels: int = 3, classes: int = 10, seed: int = 0) -> nn.Module:
    """The network ``name`` of :data:`NETWORKS` or :data:`TORCHVISION`, its start decided by ``seed`` alone.

    The global random state is left as it was.

    Raises:
        ValueError: for a width or number of channels that a torchvision network does not come in.
    """
    if name in TORCHVISION and (width, channels) != (64, 3):
        raise ValueError(
            f"{name} is torchvision's, of width 64 for 3 channels; width {width}, {channels} channel(s) asked for."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in TORCHVISION:
            return TORCHVISION[name](num_classes=classes)
        return NETWORKS[name](width, channels, classes)
