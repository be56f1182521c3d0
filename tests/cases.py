"""Small networks with verdicts derived by hand, near-misses that must *not* match among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import ops

__all__ = ["CASES", "Case"]


class After(nn.Module):
    """conv → ``between`` → norm (or whatever ``end`` is): the shape of most questions."""

    def __init__(self, between: Callable[[Tensor], Tensor] | nn.Module, end: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.between = between
        self.end = nn.BatchNorm2d(8) if end is None else end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.between(self.conv(x)))


class Written(nn.Module):
    """A forward written as a function of the module, with the submodules given by name."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor], **modules: nn.Module) -> None:
        super().__init__()
        self.written = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Tensor:
        return self.written(self, x)


@dataclass(frozen=True)
class Case:
    """A network, an input for it, and which of its convolutions are bare under each policy."""

    name: str
    build: Callable[[], nn.Module]
    bare: frozenset[str]
    absorbing: frozenset[str] | None = None
    direct: frozenset[str] | None = None
    shape: tuple[int, ...] = (2, 3, 8, 8)
    norm: dict[str, str] = field(default_factory=dict)

    def input(self) -> Tensor:
        return torch.rand(self.shape)

    def bare_under(self, policy: str) -> frozenset[str]:
        special = {"absorbing": self.absorbing, "direct": self.direct}.get(policy)
        return self.bare if special is None else special


def conv(channels: int = 8, **options: bool) -> nn.Conv2d:
    return nn.Conv2d(3, channels, 3, padding=1, **options)


NONE: frozenset[str] = frozenset()
CONV = frozenset({"conv"})


def _passes(
    name: str, between: Callable[[Tensor], Tensor] | nn.Module, direct: frozenset[str] = CONV
) -> Case:
    """An operation that is transparent: normalized, though not directly unless it is shape-only."""
    return Case(name, lambda: After(between), NONE, direct=direct, norm={"conv": "end"})


def _stops(name: str, between: Callable[[Tensor], Tensor] | nn.Module) -> Case:
    return Case(name, lambda: After(between), CONV)


def _residual(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(m.conv(x) + m.other(x))


def _two_consumers(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y) + y


def _dense(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(torch.cat([x, y], 1))


def _twice(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(m.conv(x)) + torch.sigmoid(m.conv(x))


def _split(m: nn.Module, x: Tensor) -> Tensor:
    left, right = m.conv(x).chunk(2, 1)
    return m.norm(left) + m.norm2(right)


def _gated(m: nn.Module, x: Tensor) -> Tensor:
    left, right = m.conv(x).chunk(2, 1)
    return m.norm(left) * torch.sigmoid(right)


def _shape_reader(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y).view(y.shape[0], -1)


def _to_tokens(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(m.conv(x).flatten(2).transpose(1, 2))


def _with_position(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x).flatten(2).transpose(1, 2)
    return m.norm(y + torch.ones(1, y.shape[1], 8))


def _pool_over_channels(m: nn.Module, x: Tensor) -> Tensor:
    """Channels are last, where the pooling goes."""
    return m.norm(F.max_pool2d(m.conv(x).permute(0, 2, 3, 1), 3, 1, 1))


def _pool_over_space(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(F.max_pool1d(m.conv(x).flatten(2), 2))


def _resize_over_channels(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(F.interpolate(m.conv(x).permute(0, 2, 3, 1), size=(8, 8)))


def _functional_norm(m: nn.Module, x: Tensor) -> Tensor:
    return F.batch_norm(m.conv(x), None, None, training=True)


def _functional_frozen(m: nn.Module, x: Tensor) -> Tensor:
    return F.batch_norm(m.conv(x), torch.zeros(8), torch.ones(8), training=False)


def _as_the_weight(m: nn.Module, x: Tensor) -> Tensor:
    """The convolution's output scales a norm; the norm does not normalize *it*."""
    scale = m.conv(x).mean((0, 2, 3))
    return F.batch_norm(x.repeat(1, 3, 1, 1)[:, :8], None, None, weight=scale, training=True)


def _spatial_norm(m: nn.Module, x: Tensor) -> Tensor:
    return F.layer_norm(m.conv(x), (8, 8))


CASES: list[Case] = [
    Case("straight", lambda: After(nn.Identity()), NONE, norm={"conv": "end"}),
    _passes("relu module", nn.ReLU()),
    _passes("relu function", F.relu),
    _passes("relu method", lambda x: x.relu()),
    _passes("relu in place", nn.ReLU(inplace=True)),
    _passes("leaky relu", nn.LeakyReLU(0.1)),
    _passes("prelu", nn.PReLU(8)),
    _passes("dropout", nn.Dropout(0.1)),
    _passes("stochastic depth", ops.StochasticDepth(0.1, "row")),
    _passes("max pool", nn.MaxPool2d(2)),
    _passes("max pool function", lambda x: F.max_pool2d(x, 2)),
    _passes("average pool", nn.AvgPool2d(2)),
    _passes("adaptive average pool", nn.AdaptiveAvgPool2d(2)),
    _passes("zero pad", nn.ZeroPad2d(1)),
    _passes("pad function", lambda x: F.pad(x, (1, 1))),
    _passes("reflection pad", nn.ReflectionPad2d(1)),
    _passes("interpolate", lambda x: F.interpolate(x, scale_factor=2.0)),
    _passes("upsample", nn.Upsample(scale_factor=2)),
    _passes("channel shuffle", nn.ChannelShuffle(2), direct=NONE),
    _passes("contiguous", lambda x: x.contiguous(), direct=NONE),
    _passes("times a positive number", lambda x: 2 * x),
    _passes("slice", lambda x: x[:, :, 1:, ::2], direct=NONE),
    _stops("gelu", nn.GELU()),
    _stops("silu", nn.SiLU()),
    _stops("relu6", nn.ReLU6()),
    _stops("hardswish", nn.Hardswish()),
    _stops("elu", nn.ELU()),
    _stops("softplus", nn.Softplus()),
    _stops("sigmoid function", torch.sigmoid),
    _stops("pad with ones", lambda x: F.pad(x, (1, 1), value=1.0)),
    _stops("constant pad", nn.ConstantPad2d(1, 0.5)),
    _stops("plus a number", lambda x: x + 1),
    _stops("times itself", lambda x: x * x),
    _stops("local response norm", nn.LocalResponseNorm(2)),
    _stops("softmax", nn.Softmax(1)),
    _stops("pixel shuffle", nn.Sequential(nn.PixelShuffle(2), nn.PixelUnshuffle(2))),
    _stops("alpha dropout", nn.AlphaDropout(0.1)),
    Case("instance norm", lambda: After(nn.ReLU(), nn.InstanceNorm2d(8)), NONE, direct=CONV),
    Case("group norm", lambda: After(nn.ReLU(), nn.GroupNorm(2, 8)), NONE, absorbing=CONV, direct=CONV),
    Case("group norm of single channels", lambda: After(nn.ReLU(), nn.GroupNorm(8, 8)), NONE, direct=CONV),
    Case("norm without affine", lambda: After(nn.Identity(), nn.BatchNorm2d(8, affine=False)), NONE),
    Case(
        "norm without running statistics",
        lambda: After(nn.Identity(), nn.BatchNorm2d(8, track_running_stats=False)),
        NONE,
    ),
    Case("frozen norm", lambda: After(nn.Identity(), ops.FrozenBatchNorm2d(8)), CONV),
    Case(
        "layer norm of the map", lambda: After(nn.Identity(), nn.LayerNorm((8, 8, 8))), NONE, absorbing=CONV
    ),
    Case("layer norm of each channel's map", lambda: After(nn.Identity(), nn.LayerNorm((8, 8))), NONE),
    Case("functional layer norm over space", lambda: Written(_spatial_norm, conv=conv()), NONE),
    Case(
        "residual",
        lambda: Written(_residual, conv=conv(), other=conv(), norm=nn.BatchNorm2d(8)),
        frozenset({"conv", "other"}),
    ),
    Case("two consumers", lambda: Written(_two_consumers, conv=conv(), norm=nn.BatchNorm2d(8)), CONV),
    Case("concatenated", lambda: Written(_dense, conv=conv(), norm=nn.BatchNorm2d(11)), NONE, direct=CONV),
    Case("called twice", lambda: Written(_twice, conv=conv(), norm=nn.BatchNorm2d(8)), CONV),
    Case(
        "split, both halves normalized",
        lambda: Written(_split, conv=conv(), norm=nn.BatchNorm2d(4), norm2=nn.BatchNorm2d(4)),
        NONE,
        direct=CONV,
    ),
    Case("split, one half gates", lambda: Written(_gated, conv=conv(), norm=nn.BatchNorm2d(4)), CONV),
    Case(
        "reading a shape is no use", lambda: Written(_shape_reader, conv=conv(), norm=nn.BatchNorm2d(8)), NONE
    ),
    Case(
        "tokens into layer norm",
        lambda: Written(_to_tokens, conv=conv(), norm=nn.LayerNorm(8)),
        NONE,
        absorbing=CONV,
    ),
    Case(
        "tokens plus position into layer norm",
        lambda: Written(_with_position, conv=conv(), norm=nn.LayerNorm(8)),
        CONV,
    ),
    Case(
        "pooling over the channels",
        lambda: Written(_pool_over_channels, conv=conv(), norm=nn.LayerNorm(8)),
        CONV,
    ),
    Case(
        "pooling over flattened space",
        lambda: Written(_pool_over_space, conv=conv(), norm=nn.BatchNorm1d(8)),
        NONE,
        direct=CONV,
    ),
    Case(
        "resizing over the channels",
        lambda: Written(_resize_over_channels, conv=conv(), norm=nn.LayerNorm(8)),
        CONV,
    ),
    Case("functional norm", lambda: Written(_functional_norm, conv=conv()), NONE),
    Case("functional norm that is frozen", lambda: Written(_functional_frozen, conv=conv()), CONV),
    Case("a norm's weight, not its input", lambda: Written(_as_the_weight, conv=conv()), CONV),
    Case("the last operation", lambda: nn.Sequential(conv()), frozenset({"0"})),
    Case("nothing but a convolution", conv, frozenset({""})),
    Case(
        "flattened into a feature norm",
        lambda: After(nn.Flatten(), nn.BatchNorm1d(8 * 64)),
        NONE,
    ),
    Case(
        "one dimension",
        lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.BatchNorm1d(4), nn.Conv1d(4, 4, 1)),
        frozenset({"3"}),
        direct=frozenset({"0", "3"}),
        shape=(2, 3, 8),
    ),
    Case(
        "three dimensions, transposed",
        lambda: nn.Sequential(nn.ConvTranspose3d(3, 4, 2), nn.BatchNorm3d(4), nn.Conv3d(4, 2, 1)),
        frozenset({"2"}),
        shape=(2, 3, 4, 4, 4),
    ),
]
