"""Small networks with verdicts derived by hand, near-misses that must *not* match among them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import ops

from tests.forwards import (
    After,
    Written,
    as_the_weight,
    conv,
    dense,
    functional_frozen,
    functional_norm,
    gated,
    pool_over_channels,
    pool_over_space,
    residual,
    resize_over_channels,
    shape_reader,
    spatial_norm,
    split,
    to_tokens,
    twice,
    two_consumers,
    with_position,
)

__all__ = ["CASES", "Case"]


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


NONE: frozenset[str] = frozenset()
CONV = frozenset({"conv"})


def _passes(
    name: str, between: Callable[[Tensor], Tensor] | nn.Module, direct: frozenset[str] = CONV
) -> Case:
    """An operation that is transparent: normalized, though not directly unless it is shape-only."""
    return Case(name, lambda: After(between), NONE, direct=direct, norm={"conv": "end"})


def _stops(name: str, between: Callable[[Tensor], Tensor] | nn.Module) -> Case:
    return Case(name, lambda: After(between), CONV)


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
    _passes("constant pad with 0", nn.ConstantPad2d(1, 0)),
    _passes("constant pad with 0.0", nn.ConstantPad2d(1, 0.0)),
    _passes("constant pad with -0.0", nn.ConstantPad2d((1, 0, 2, 0), -0.0)),
    _passes("pad function", lambda x: F.pad(x, (1, 1))),
    _passes("reflection pad", nn.ReflectionPad2d(1)),
    _passes("interpolate", lambda x: F.interpolate(x, scale_factor=2.0)),
    _passes("upsample", nn.Upsample(scale_factor=2)),
    _passes("channel shuffle", nn.ChannelShuffle(2), direct=NONE),
    _passes("contiguous", lambda x: x.contiguous(), direct=NONE),
    _passes("times a positive number", lambda x: 2 * x),
    _passes("times a negative number", lambda x: x * -2.0),
    _passes("the other sign", lambda x: -x),
    _passes("absolute value", torch.abs),
    _passes("both signs", lambda x: torch.cat([x, -x], 1)[:, :8]),
    _passes("clamp at zero", lambda x: x.clamp(min=0)),
    _passes("clamp to what is negative", lambda x: torch.clip(x, None, 0)),
    _passes("lower bound in place", lambda x: x.clamp_min_(0.0)),
    _passes("threshold at zero", nn.Threshold(0, 0)),
    _passes("threshold function", lambda x: F.threshold(x, 0.0, 0.0)),
    _passes("type", lambda x: x.type(torch.float32), direct=NONE),
    _passes("to the processor", lambda x: x.cpu(), direct=NONE),
    _passes("a flag that is set", lambda x: x.requires_grad_(), direct=NONE),
    _passes("operator relu", torch.ops.aten.relu.default),
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
    _stops("constant pad with little", nn.ConstantPad2d(1, 1e-30)),
    _stops("clamp at one", lambda x: x.clamp(min=1)),
    _stops("clamp from both sides", lambda x: x.clamp(0, 6)),
    _stops("threshold at one", nn.Threshold(1, 0)),
    _stops("threshold to one", nn.Threshold(0, 1)),
    _stops("times zero", lambda x: x * 0),
    _stops("division without rest", lambda x: torch.div(x, 2, rounding_mode="floor")),
    _stops("whole numbers", lambda x: x.to(torch.int32).float()),
    _stops("whole numbers by type", lambda x: x.type(torch.int64).type(torch.float32)),
    _stops("operator gelu", torch.ops.aten.gelu.default),
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
    Case("functional layer norm over space", lambda: Written(spatial_norm, conv=conv()), NONE),
    Case(
        "residual",
        lambda: Written(residual, conv=conv(), other=conv(), norm=nn.BatchNorm2d(8)),
        frozenset({"conv", "other"}),
    ),
    Case("two consumers", lambda: Written(two_consumers, conv=conv(), norm=nn.BatchNorm2d(8)), CONV),
    Case("concatenated", lambda: Written(dense, conv=conv(), norm=nn.BatchNorm2d(11)), NONE, direct=CONV),
    Case("called twice", lambda: Written(twice, conv=conv(), norm=nn.BatchNorm2d(8)), CONV),
    Case(
        "split, both halves normalized",
        lambda: Written(split, conv=conv(), norm=nn.BatchNorm2d(4), norm2=nn.BatchNorm2d(4)),
        NONE,
        direct=CONV,
    ),
    Case("split, one half gates", lambda: Written(gated, conv=conv(), norm=nn.BatchNorm2d(4)), CONV),
    Case(
        "reading a shape is no use", lambda: Written(shape_reader, conv=conv(), norm=nn.BatchNorm2d(8)), NONE
    ),
    Case(
        "tokens into layer norm",
        lambda: Written(to_tokens, conv=conv(), norm=nn.LayerNorm(8)),
        NONE,
        absorbing=CONV,
    ),
    Case(
        "tokens plus position into layer norm",
        lambda: Written(with_position, conv=conv(), norm=nn.LayerNorm(8)),
        CONV,
    ),
    Case(
        "pooling over the channels",
        lambda: Written(pool_over_channels, conv=conv(), norm=nn.LayerNorm(8)),
        CONV,
    ),
    Case(
        "pooling over flattened space",
        lambda: Written(pool_over_space, conv=conv(), norm=nn.BatchNorm1d(8)),
        NONE,
        direct=CONV,
    ),
    Case(
        "resizing over the channels",
        lambda: Written(resize_over_channels, conv=conv(), norm=nn.LayerNorm(8)),
        CONV,
    ),
    Case("functional norm", lambda: Written(functional_norm, conv=conv()), NONE),
    Case("functional norm that is frozen", lambda: Written(functional_frozen, conv=conv()), CONV),
    Case("a norm's weight, not its input", lambda: Written(as_the_weight, conv=conv()), CONV),
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
