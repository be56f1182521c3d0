"""The paper's networks in CIFAR form, and a few others. Each has a width, so that a narrow one trains on a CPU.

ResNet (He et al. 2016) has a 3×3 stem of stride 1 and no max pooling. VGG (Simonyan & Zisserman 2015) has five
poolings that leave one pixel, and a single linear layer as classifier. Every convolution starts as in He et al.
2015 (normal, fan out), in every network and for every optimizer: with torch's default initialization a VGG without
normalization hardly starts to learn. ConvNeXt and ViT, which the paper does not have, are timm's, with timm's
initialization. Inputs are ``(N, channels, 32, 32)``, outputs are logits ``(N, classes)``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from experiments.residual_blocks import BasicBlock, Bottleneck, PlainBlock, conv_norm

__all__ = ["MLPS", "NETWORKS", "TORCHVISION", "ResNet", "Vgg", "build"]

# Output channels as multiples of width / 64; "M" is a pooling of 2×2.
VGG_LAYOUTS: dict[int, tuple[int | str, ...]] = {
    11: (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"),
    19: (64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"),
}
HIDDEN_LAYERS = 4


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
        block: type[BasicBlock | Bottleneck | PlainBlock],
        depths: tuple[int, ...],
        width: int,
        channels: int,
        classes: int,
    ) -> None:
        super().__init__()
        plain = block is PlainBlock
        stem = (nn.Conv2d(channels, width, 3, padding=1),) if plain else conv_norm(channels, width, 3)
        self.stem = nn.Sequential(*stem, nn.ReLU())
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
        """Compute logits from images."""
        return self.classifier(self.pool(self.blocks(self.stem(x))).flatten(1))  # type: ignore[no-any-return]


class Vgg(nn.Module):
    """3×3 convolutions, with or without batch norm, and one linear layer.

    Args:
        depth: 11 or 19.
        norm: Whether a batch norm follows each convolution.
        width: Channels of the first convolution, later up to 8 times as many; 64 is the published network.
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
        """Compute logits from images."""
        return self.classifier(self.features(x).flatten(1))  # type: ignore[no-any-return]


def _he_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _convnext(width: int, channels: int, classes: int) -> nn.Module:
    """A 2×2 stem, then four stages of two blocks, each at half the resolution, of 1, 2, 4 and 8 times ``width``."""
    import timm

    dims = tuple(width << stage for stage in range(4))
    size: dict[str, Any] = {"patch_size": 2, "depths": (2, 2, 2, 2), "dims": dims}
    return timm.create_model("convnext_atto", in_chans=channels, num_classes=classes, **size)


def _vit(patch: int, depth: int, width: int, channels: int, classes: int) -> nn.Module:
    """Square patches of ``patch`` pixels a side, and ``depth`` blocks of three heads with ``width`` channels each."""
    import timm

    size: dict[str, Any] = {
        "img_size": 32,
        "patch_size": patch,
        "embed_dim": 3 * width,
        "depth": depth,
        "num_heads": 3,
    }
    return timm.create_model("vit_tiny_patch16_224", in_chans=channels, num_classes=classes, **size)


def _halved(name: str, width: int, channels: int, classes: int) -> nn.Module:
    """A network on images of half the size."""
    return nn.Sequential(nn.AvgPool2d(2), NETWORKS[name](width, channels, classes))


def _mlp(width: int, channels: int, classes: int) -> nn.Module:
    """Four hidden layers with tanh. Weights start as in Glorot & Bengio 2010, biases at zero."""
    sizes = (channels, *[width] * HIDDEN_LAYERS, classes)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
    return nn.Sequential(*layers[:-1])


NETWORKS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
    "resnet18-no-norm": partial(ResNet, PlainBlock, (2, 2, 2, 2)),
    "resnet18-halved": partial(_halved, "resnet18"),
    "resnet18-no-norm-halved": partial(_halved, "resnet18-no-norm"),
    "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
    "vgg11": partial(Vgg, 11, False),
    "vgg11-bn": partial(Vgg, 11, True),
    "vgg19": partial(Vgg, 19, False),
    "vgg19-bn": partial(Vgg, 19, True),
    "convnext": _convnext,
    "vit": partial(_vit, 4, 6),
    "vit-patch8": partial(_vit, 8, 4),
}
"""Networks for images of 32×32 pixels."""

MLPS: dict[str, Callable[[int, int, int], nn.Module]] = {"mlp-tanh": _mlp}
"""Networks for points: inputs ``(N, channels)``, outputs ``(N, classes)``."""

TORCHVISION: dict[str, Callable[..., nn.Module]] = {
    "resnet18-imagenet": torchvision.models.resnet18,
    "resnet50-imagenet": torchvision.models.resnet50,
}
"""Networks for images of 224×224 pixels with three channels, in the published width only."""


def build(name: str, *, width: int = 64, channels: int = 3, classes: int = 10, seed: int = 0) -> nn.Module:
    """Build a network whose initial weights depend on ``seed`` alone. The global random state is left as it was.

    Args:
        name: A key of :data:`NETWORKS`, :data:`MLPS` or :data:`TORCHVISION`.
        width: Channels of the first layer.
        channels: Channels of the inputs.
        classes: Number of outputs.
        seed: Decides the weights.

    Raises:
        ValueError: for a width or number of channels that a torchvision network does not have.
    """
    if name in TORCHVISION and (width, channels) != (64, 3):
        raise ValueError(
            f"{name} is torchvision's, with width 64 and 3 channels; you asked for width {width} and "
            f"{channels} channel(s)."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in TORCHVISION:
            return TORCHVISION[name](num_classes=classes)
        return {**NETWORKS, **MLPS}[name](width, channels, classes)
