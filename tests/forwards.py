"""What small networks are put together from: modules with a forward that is given, and such forwards."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "After",
    "Written",
    "as_the_weight",
    "conv",
    "dense",
    "functional_frozen",
    "functional_norm",
    "gated",
    "pool_over_channels",
    "pool_over_space",
    "residual",
    "resize_over_channels",
    "shape_reader",
    "spatial_norm",
    "split",
    "to_tokens",
    "twice",
    "two_consumers",
    "with_position",
]


def conv(channels: int = 8, **options: bool) -> nn.Conv2d:
    return nn.Conv2d(3, channels, 3, padding=1, **options)


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


def residual(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(m.conv(x) + m.other(x))


def two_consumers(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y) + y


def dense(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(torch.cat([x, y], 1))


def twice(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(m.conv(x)) + torch.sigmoid(m.conv(x))


def split(m: nn.Module, x: Tensor) -> Tensor:
    left, right = m.conv(x).chunk(2, 1)
    return m.norm(left) + m.norm2(right)


def gated(m: nn.Module, x: Tensor) -> Tensor:
    left, right = m.conv(x).chunk(2, 1)
    return m.norm(left) * torch.sigmoid(right)


def shape_reader(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x)
    return m.norm(y).view(y.shape[0], -1)


def to_tokens(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(m.conv(x).flatten(2).transpose(1, 2))


def with_position(m: nn.Module, x: Tensor) -> Tensor:
    y = m.conv(x).flatten(2).transpose(1, 2)
    return m.norm(y + torch.ones(1, y.shape[1], 8))


def pool_over_channels(m: nn.Module, x: Tensor) -> Tensor:
    """Channels are last, where the pooling goes."""
    return m.norm(F.max_pool2d(m.conv(x).permute(0, 2, 3, 1), 3, 1, 1))


def pool_over_space(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(F.max_pool1d(m.conv(x).flatten(2), 2))


def resize_over_channels(m: nn.Module, x: Tensor) -> Tensor:
    return m.norm(F.interpolate(m.conv(x).permute(0, 2, 3, 1), size=(8, 8)))


def functional_norm(m: nn.Module, x: Tensor) -> Tensor:
    return F.batch_norm(m.conv(x), None, None, training=True)


def functional_frozen(m: nn.Module, x: Tensor) -> Tensor:
    return F.batch_norm(m.conv(x), torch.zeros(8), torch.ones(8), training=False)


def as_the_weight(m: nn.Module, x: Tensor) -> Tensor:
    """The convolution's output scales a norm; the norm does not normalize *it*."""
    scale = m.conv(x).mean((0, 2, 3))
    return F.batch_norm(x.repeat(1, 3, 1, 1)[:, :8], None, None, weight=scale, training=True)


def spatial_norm(m: nn.Module, x: Tensor) -> Tensor:
    return F.layer_norm(m.conv(x), (8, 8))
