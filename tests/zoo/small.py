"""Small models for the numerical oracle: torchvision's families cut down, and single patterns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.shufflenetv2 import ShuffleNetV2
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.models.vision_transformer import VisionTransformer
from torchvision.ops.misc import FrozenBatchNorm2d

__all__ = ["FAMILIES", "PATTERNS", "Path", "Pattern"]


Rest = Callable[[Any, Tensor], Tensor]


class Path(nn.Module):
    """``conv`` and whatever ``rest`` does with its output; ``rest`` sees this module and the tensor."""

    def __init__(self, rest: Rest, conv: nn.Module, **modules: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        for name, module in modules.items():
            self.add_module(name, module)
        self.rest = rest

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self, self.conv(x))


@dataclass(frozen=True)
class Pattern:
    """One way from a convolution to a norm, or past it.

    Args:
        name: A name for the test's label.
        model: A :class:`Path` for images of 6 by 6.
        absorbed: The answer by algebra: whether a gain on a channel of ``conv`` cancels.
        cautious: Why the walk may answer "bare" although the gain cancels; empty where it may not.
    """

    name: str
    model: Path
    absorbed: bool
    cautious: str = ""


def _path(
    name: str,
    absorbed: bool,
    rest: Rest,
    conv: nn.Module | None = None,
    cautious: str = "",
    **modules: nn.Module,
) -> Pattern:
    model = Path(rest, conv=conv or nn.Conv2d(3, 4, 3, padding=1), **modules)
    return Pattern(name, model, absorbed, cautious)


_BN, _IN, _GN, _LN = nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm, nn.LayerNorm

PATTERNS = (
    _path("batch norm", True, lambda m, y: m.norm(y), norm=_BN(4)),
    _path("batch norm without affine", True, lambda m, y: m.norm(y), norm=_BN(4, affine=False)),
    _path("instance norm", True, lambda m, y: m.norm(y), norm=_IN(4)),
    _path("group norm", False, lambda m, y: m.norm(y), norm=_GN(2, 4)),
    _path("layer norm over channels", False, lambda m, y: m.norm(y.permute(0, 2, 3, 1)), norm=_LN(4)),
    _path("layer norm over everything", False, lambda m, y: m.norm(y), norm=_LN([4, 6, 6])),
    _path("frozen batch norm", False, lambda m, y: m.norm(y), norm=FrozenBatchNorm2d(4)),
    _path("no norm", False, lambda m, y: F.relu(y)),
    _path("ReLU before", True, lambda m, y: m.norm(F.relu(y)), norm=_BN(4)),
    _path("LeakyReLU before", True, lambda m, y: m.norm(m.act(y)), act=nn.LeakyReLU(0.2), norm=_BN(4)),
    _path("PReLU before", True, lambda m, y: m.norm(m.act(y)), act=nn.PReLU(4), norm=_BN(4)),
    _path("GELU before", False, lambda m, y: m.norm(F.gelu(y)), norm=_BN(4)),
    *(
        _path(f"{act.__name__} as a module", False, lambda m, y: m.norm(m.act(y)), act=act(), norm=_BN(4))
        for act in (nn.GELU, nn.SiLU, nn.Hardswish, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh, nn.ELU)
    ),
    _path("ReLU6 before", False, lambda m, y: m.norm(F.relu6(y)), norm=_BN(4)),
    _path("max pooling", True, lambda m, y: m.norm(F.max_pool2d(y, 2)), norm=_BN(4)),
    _path("dropout", True, lambda m, y: m.norm(m.drop(y)), drop=nn.Dropout(0.3), norm=_BN(4)),
    _path("average pooling", True, lambda m, y: m.norm(F.avg_pool2d(y, 3, 2, 1)), norm=_BN(4)),
    _path(
        "flatten", True, lambda m, y: m.norm(F.adaptive_avg_pool2d(y, 2).flatten(1)), norm=nn.BatchNorm1d(16)
    ),
    _path(
        "interpolation",
        True,
        lambda m, y: m.norm(F.interpolate(y, scale_factor=2, mode="bicubic")),
        norm=_IN(4),
    ),
    _path("padding with zeros", True, lambda m, y: m.norm(F.pad(y, (1, 1))), norm=_BN(4)),
    _path("padding with ones", False, lambda m, y: m.norm(F.pad(y, (1, 1), value=1.0)), norm=_BN(4)),
    _path("concatenation", True, lambda m, y: m.norm(torch.cat([y, F.relu(y)], 1)), norm=_BN(8)),
    # ones_like reads the shape of its argument and no value.
    _path(
        "two readers, one of the shape alone", True, lambda m, y: m.norm(y) * torch.ones_like(y), norm=_BN(4)
    ),
    _path("two halves, two norms", True, lambda m, y: m.a(y[:, :2]) * m.b(y[:, 2:]), a=_BN(2), b=_IN(2)),
    _path("two halves, one norm", False, lambda m, y: m.a(y[:, :2]) * y[:, 2:], a=_BN(2)),
    _path("two consumers, one norm", False, lambda m, y: m.norm(y) + y, norm=_BN(4)),
    _path("two consumers, two norms", True, lambda m, y: m.a(y) + m.b(y), a=_BN(4), b=_IN(4)),
    # A table of 6 by 6 positions, here the weight of a Linear layer that is never called.
    _path(
        "position before the norm",
        False,
        lambda m, y: m.norm(y + m.table.weight),
        table=nn.Linear(6, 6),
        norm=_BN(4),
    ),
    _path("residual before the norm", False, lambda m, y: m.norm(y + y.roll(1, 1)), norm=_BN(4)),
    _path("channel shuffle", True, lambda m, y: m.norm(F.channel_shuffle(y, 2)), norm=_BN(4)),
    _path("pixel shuffle", False, lambda m, y: m.norm(F.pixel_shuffle(y, 2)), norm=_BN(1)),
    # The norm's channels are columns of the image, so each has all of the convolution's gains in its
    # statistics.
    _path("batch norm over columns", False, lambda m, y: m.norm(y.transpose(1, 3)), norm=_BN(6)),
    _path("cumulative sum over channels", False, lambda m, y: m.norm(y.cumsum(1)), norm=_BN(4)),
    _path(
        "transposed", True, lambda m, y: m.norm(y), conv=nn.ConvTranspose2d(3, 6, 3, groups=3), norm=_BN(6)
    ),
    _path("grouped", True, lambda m, y: m.norm(y), conv=nn.Conv2d(3, 6, 3, groups=3), norm=_IN(6)),
    _path(
        "one channel in a group",
        True,
        lambda m, y: m.norm(y),
        norm=_GN(4, 4),
        cautious="a group norm counts as mixing, although with one channel in a group it is an instance norm",
    ),
    _path(
        "depthwise convolution before the norm",
        True,
        lambda m, y: m.norm(m.depthwise(y)),
        depthwise=nn.Conv2d(4, 4, 3, groups=4, bias=False),
        norm=_BN(4),
        cautious="the walk ends at a convolution, although a depthwise one without bias keeps channels apart",
    ),
    _path(
        "product with a number",
        True,
        lambda m, y: m.norm(0.5 * y),
        norm=_BN(4),
        cautious="arithmetic ends the walk, although a constant factor commutes with a gain",
    ),
    _path("functional batch norm", True, lambda m, y: F.batch_norm(y, None, None, training=True, eps=1e-20)),
    _path("functional instance norm", True, lambda m, y: F.instance_norm(y, eps=1e-20)),
)


def _small_mobilenet(norm: Callable[..., nn.Module]) -> nn.Module:
    setting = [[1, 8, 1, 1], [2, 8, 2, 2]]
    model: nn.Module = MobileNetV2(5, 0.25, setting, norm_layer=norm)
    return model


def _small_efficientnet() -> nn.Module:
    setting = [FusedMBConvConfig(2, 3, 2, 8, 8, 1), MBConvConfig(2, 3, 1, 8, 8, 2)]
    model: nn.Module = EfficientNet(setting, dropout=0.1, num_classes=5, last_channel=16)
    return model


# Name, builder, size of the square images.
FAMILIES: tuple[tuple[str, Callable[[], nn.Module], int], ...] = (
    ("mobilenet", partial(_small_mobilenet, nn.BatchNorm2d), 32),
    ("mobilenet with group norm", partial(_small_mobilenet, partial(nn.GroupNorm, 4)), 32),
    ("densenet", partial(DenseNet, 4, (2, 3), 8, num_classes=5), 32),
    ("efficientnet", _small_efficientnet, 32),
    ("convnext", lambda: ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 1)], num_classes=5), 32),
    ("vit", lambda: VisionTransformer(16, 8, 1, 2, 16, 32, num_classes=5), 16),
    ("swin", lambda: SwinTransformer([4, 4], 8, [1, 1], [2, 2], [2, 2], num_classes=5), 16),
    ("shufflenet", lambda: ShuffleNetV2([1, 2, 1], [8, 16, 32, 32, 32], num_classes=5), 64),
    (
        "regnet",
        lambda: RegNet(BlockParams([1, 1], [8, 16], [8, 8], [1.0, 1.0], [2, 2], 0.25), 5, stem_width=8),
        32,
    ),
)
