"""The steps and the norms that fit a tensor: each step with a name, drawn for the tensor's shape."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from timm.layers.filter_response_norm import FilterResponseNormTlu2d
from torch import Tensor, nn

__all__ = ["norms_for", "steps_for"]

Step = Callable[[Tensor], Tensor]


def steps_for(y: Tensor, choose: random.Random) -> Iterator[tuple[str, Step]]:
    """What can be done to ``y``, with arguments drawn for its shape; every step keeps at least 16 numbers."""
    yield from _views(y, choose)
    yield from _orders(y, choose)
    yield from _same(y, choose)
    if y.numel() >= 64:
        yield from _parts(y, choose)
        yield from _reductions(y, choose)
    if y.numel() <= 4000:
        yield from _joins(y, choose)
    yield from _spatial(y)


def _views(y: Tensor, choose: random.Random) -> Iterator[tuple[str, Step]]:
    shape = tuple(y.shape)
    at = choose.randrange(len(shape))
    parts = _divided(shape[at], choose)
    split = (*shape[:at], *parts, *shape[at + 1 :])
    if y.is_contiguous():
        yield f"view{split}", lambda t: t.view(split)
    yield f"unflatten({at}, {parts})", lambda t: t.unflatten(at, parts)
    anew = tuple(_factored(y.numel(), choose))
    yield f"reshape{anew}", lambda t: t.reshape(anew)
    yield f"reshape{anew} of a reordered one", lambda t: t.transpose(0, -1).reshape(*anew)
    if len(shape) > 1:
        end = choose.randrange(1, len(shape))
        start = choose.randrange(end)
        yield f"flatten({start}, {end})", lambda t: t.flatten(start, end)
        yield "view by its own sizes", lambda t: t.reshape(t.shape[0], t.shape[1], -1)
        yield "merge by its own sizes", lambda t: t.reshape(t.size(0) * t.size(1), -1)
    if len(shape) > 2:
        yield "reshape with a product of sizes", lambda t: t.reshape(t.shape[0], -1, t.shape[1] * t.shape[2])
    new = choose.randrange(len(shape) + 1)
    yield f"unsqueeze({new})", lambda t: t.unsqueeze(new)
    yield "squeeze", lambda t: t.squeeze()


def _orders(y: Tensor, choose: random.Random) -> Iterator[tuple[str, Step]]:
    rank = y.dim()
    order = tuple(choose.sample(range(rank), rank))
    one, other = choose.randrange(rank), choose.randrange(rank)
    yield f"permute{order}", lambda t: t.permute(order)
    yield f"transpose({one}, {other})", lambda t: t.transpose(one, other - rank)
    yield f"movedim({one}, {other})", lambda t: t.movedim(one, other)
    if rank > 1:
        yield "movedim((0, 1), (-1, 0))", lambda t: torch.movedim(t, (0, 1), (-1, 0))
        yield "mT", lambda t: t.mT


def _same(y: Tensor, choose: random.Random) -> Iterator[tuple[str, Step]]:
    at = choose.randrange(y.dim())
    yield "relu", torch.relu
    yield "leaky relu", lambda t: F.leaky_relu(t, 0.3)
    yield "contiguous", lambda t: t.contiguous()
    yield f"roll along {at}", lambda t: torch.roll(t, 1, at)
    yield f"flip along {at}", lambda t: t.flip(at)
    if y.dim() > 2 and y.shape[1] % 2 == 0:
        yield "channel shuffle", lambda t: F.channel_shuffle(t, 2)


def _parts(y: Tensor, choose: random.Random) -> Iterator[tuple[str, Step]]:
    at = choose.randrange(y.dim())
    size = y.shape[at]
    before = (slice(None),) * at
    if size > 1 and y.numel() // size >= 16:
        yield f"unbind({at})[0]", lambda t: t.unbind(at)[0]
        yield f"index 1 along {at}", lambda t: t[(*before, 1)]
        yield f"select({at}, 0)", lambda t: t.select(at, 0)
    if size > 3:
        yield f"chunk(2, {at})[1]", lambda t: t.chunk(2, at)[1]
        yield f"narrow({at}, 1, 2)", lambda t: t.narrow(at, 1, 2)
        yield f"every other along {at}", lambda t: t[(*before, slice(None, None, 2))]
        yield f"all but one along {at}", lambda t: t[(*before, slice(1, None), None)]


def _reductions(y: Tensor, choose: random.Random) -> Iterator[tuple[str, Step]]:
    at = choose.randrange(y.dim())
    if y.numel() // y.shape[at] < 16:
        return
    for name in ("amax", "mean", "sum"):
        yield f"{name} over {at}", partial(_reduced, name=name, at=at, keep=False)
        yield f"{name} over {at}, kept", partial(_reduced, name=name, at=at, keep=True)


def _reduced(t: Tensor, name: str, at: int, keep: bool) -> Tensor:
    reduced: Tensor = getattr(t, name)(at, keepdim=keep)
    return reduced


def _joins(y: Tensor, choose: random.Random) -> Iterator[tuple[str, Step]]:
    at = choose.randrange(y.dim())
    other = torch.randn(y.shape, dtype=torch.float64)
    yield f"cat with its relu along {at}", lambda t: torch.cat([t, torch.relu(t)], at)
    yield f"cat with another along {at}", lambda t: torch.cat([t, other], at)
    yield f"stack with another along {at}", lambda t: torch.stack([t, other], at)


def _spatial(y: Tensor) -> Iterator[tuple[str, Step]]:
    if y.dim() in (3, 4) and min(y.shape[-(y.dim() - 2) :]) >= 2 and y.numel() >= 128:
        pool = F.max_pool1d if y.dim() == 3 else F.max_pool2d
        average = F.avg_pool1d if y.dim() == 3 else F.avg_pool2d
        yield "max pool", lambda t: pool(t, 2)
        yield "average pool", lambda t: average(t, 2)
        yield "pad", lambda t: F.pad(t, (1, 1))
        yield "interpolate", lambda t: F.interpolate(t, scale_factor=2.0)
    if y.dim() >= 3 and y.shape[-1] % 2 == 0 and y.shape[-2] % 2 == 0:
        yield "pixel unshuffle", lambda t: F.pixel_unshuffle(t, 2)
    if y.dim() >= 3 and y.shape[-3] % 4 == 0:
        yield "pixel shuffle", lambda t: F.pixel_shuffle(t, 2)


def norms_for(y: Tensor) -> Iterator[nn.Module]:
    """Norms that take ``y``, with at least four numbers behind each statistic."""
    shape, rank = tuple(y.shape), y.dim()
    if rank < 2:
        return
    if y.numel() // shape[1] >= 4 and rank <= 5:
        yield getattr(nn, f"BatchNorm{max(rank - 2, 1)}d")(shape[1])
    inner = math.prod(shape[2:])
    if inner >= 4 and rank <= 5:
        yield getattr(nn, f"InstanceNorm{rank - 2}d")(shape[1])
    if rank == 4 and inner >= 4:
        yield FilterResponseNormTlu2d(shape[1])
    for groups in {1, 2, shape[1]}:
        if shape[1] % groups == 0 and shape[1] // groups * inner >= 4:
            yield nn.GroupNorm(groups, shape[1])
    for last in range(1, rank):
        if math.prod(shape[-last:]) >= 4:
            yield nn.LayerNorm(shape[-last:])
            yield nn.RMSNorm(shape[-last:])


def _divided(size: int, choose: random.Random) -> tuple[int, int]:
    first = choose.choice([d for d in range(1, size + 1) if size % d == 0])
    return first, size // first


def _factored(number: int, choose: random.Random) -> Sequence[int]:
    sizes = []
    for _ in range(choose.choice((1, 2, 3))):
        first, number = _divided(number, choose)
        sizes.append(first)
    return [*sizes, number]
