"""Moves of operations that keep every number and arrange the dimensions anew."""

from __future__ import annotations

from collections.abc import Sequence

from sgdph_fx.rules.layout import UNKNOWN, Call, Dim, Factor, Layout, merged, varies
from sgdph_fx.rules.moves import ints, known, position
from sgdph_fx.rules.regroup import Extent, regrouped, regrouped_by_name

__all__ = [
    "channel_shuffle",
    "flatten",
    "movedim",
    "permute",
    "pixel_unshuffle",
    "ravel",
    "reshape",
    "reshape_as",
    "reverse",
    "space_to_depth",
    "squeeze",
    "swap_last",
    "transpose",
    "unflatten",
    "unsqueeze",
]


@known
def permute(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.permute(dims)``."""
    return _ordered(dims, ints(call.arg(1, "dims", None)))


@known
def transpose(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.transpose(dim0, dim1)``, also as ``swapaxes`` and ``swapdims``."""
    first = call.arg(1, "dim0", call.arg(1, "axis0", None))
    second = call.arg(2, "dim1", call.arg(2, "axis1", None))
    return _swapped(dims, first, second)


@known
def swap_last(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.mT``."""
    return _swapped(dims, -1, -2)


@known
def reverse(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.T``, and ``x.t()`` of a matrix."""
    return Layout(dims[::-1])


@known
def movedim(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.movedim(source, destination)``; dimensions that are not named keep their order."""
    source, destination = ints(call.arg(1, "source", None)), ints(call.arg(2, "destination", None))
    if source is None or destination is None or len(source) != len(destination):
        return UNKNOWN
    places = {
        position(to, len(dims)): position(of, len(dims)) for of, to in zip(source, destination, strict=True)
    }
    if None in places or None in places.values() or len(places) != len(source):
        return UNKNOWN
    others = iter(at for at in range(len(dims)) if at not in places.values())
    return Layout(tuple(dims[places[at] if at in places else next(others)] for at in range(len(dims))))  # type: ignore[index]


@known
def unsqueeze(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.unsqueeze(dim)``."""
    at = position(call.arg(1, "dim", None), len(dims) + 1)
    return UNKNOWN if at is None else Layout((*dims[:at], (), *dims[at:]))


@known
def squeeze(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.squeeze()``, ``x.squeeze(dim)``: gone is what has size 1, which only numbers tell."""
    asked = call.arg(1, "dim", None)
    over = range(len(dims)) if asked is None else [position(dim, len(dims)) for dim in ints(asked) or [None]]
    if any(at is None or not _has_known_size(dims[at]) for at in over):
        return UNKNOWN
    return Layout(tuple(dim for at, dim in enumerate(dims) if dim or at not in over))


def _has_known_size(dim: Dim) -> bool:
    return all(isinstance(factor.size, int) for factor in dim)


@known
def flatten(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.flatten(start_dim, end_dim)``."""
    start = position(call.arg(1, "start_dim", 0), len(dims))
    end = position(call.arg(2, "end_dim", -1), len(dims))
    if start is None or end is None or start > end:
        return UNKNOWN
    together = tuple(factor for dim in dims[start : end + 1] for factor in dim)
    return Layout((*dims[:start], together, *dims[end + 1 :]))


@known
def ravel(dims: tuple[Dim, ...], call: Call) -> Layout:
    """All dimensions as one."""
    return Layout((tuple(factor for dim in dims for factor in dim),))


@known
def unflatten(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.unflatten(dim, sizes)``."""
    at = position(call.arg(1, "dim", None), len(dims))
    sizes = call.arg(2, "sizes", call.arg(2, "unflattened_size", None))
    if at is None or not isinstance(sizes, Sequence):
        return UNKNOWN
    parts = _distributed(dims[at], sizes, call)
    return UNKNOWN if parts is None else Layout((*dims[:at], *parts, *dims[at + 1 :]))


@known
def reshape(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.view(sizes)`` and ``x.reshape(sizes)``."""
    factors = [factor for dim in dims for factor in dim]
    if call.shape is not None:
        parts = regrouped(factors, call.shape) if _has_known_size(tuple(factors)) else None
    else:
        sizes = call.arg(1, "shape", call.arg(1, "size", None))
        parts = _distributed(factors, sizes if isinstance(sizes, Sequence) else (sizes,), call)
    return UNKNOWN if parts is None else Layout(parts)


@known
def reshape_as(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.view_as(other)`` and ``x.reshape_as(other)``, whose result only a recorded run shows."""
    return reshape(Layout(dims), call) or UNKNOWN if call.shape is not None else UNKNOWN


def _distributed(factors: Sequence[Factor], sizes: Sequence[object], call: Call) -> tuple[Dim, ...] | None:
    """The factors over dimensions of ``sizes``, which may hold a -1, and sizes that were read off a tensor."""
    extents: list[Extent] = []
    for size in sizes:
        if isinstance(size, bool):
            return None
        extent = None if size == -1 else (size,) if isinstance(size, int) else call.extent(size)
        if extent is None and size != -1:
            return None
        extents.append(extent)
    return regrouped_by_name(factors, extents)


@known
def channel_shuffle(dims: tuple[Dim, ...], call: Call) -> Layout:
    """Dimension 1 is dealt out anew."""
    return Layout((dims[0], merged(dims[1]), *dims[2:])) if len(dims) > 1 else UNKNOWN


@known
def pixel_unshuffle(dims: tuple[Dim, ...], call: Call) -> Layout:
    """(C, H·r, W·r) → (C·r·r, H, W), in the last three dimensions."""
    return _blocks_into_channels(dims, call.arg(1, "downscale_factor", None), blocks_first=False)


@known
def space_to_depth(dims: tuple[Dim, ...], call: Call) -> Layout:
    """The reshape of timm's ``SpaceToDepth``: (C, H·r, W·r) → (r·r·C, H, W)."""
    return _blocks_into_channels(dims, call.arg(1, "bs", None), blocks_first=True)


def _blocks_into_channels(dims: tuple[Dim, ...], size: object, blocks_first: bool) -> Layout:
    if len(dims) < 3:
        return UNKNOWN
    *before, channels, height, width = dims
    if varies(height) or varies(width) or not isinstance(size, int):
        return Layout((*before, merged(channels, also=True), merged(height), merged(width)))
    block = (Factor(size), Factor(size)) if size > 1 else ()
    parts = (*block, *channels) if blocks_first else (*channels, *block)
    return Layout((*before, parts, merged(height), merged(width)))


def _ordered(dims: tuple[Dim, ...], order: Sequence[int] | None) -> Layout:
    places = [position(at, len(dims)) for at in order or ()]
    if sorted(at for at in places if at is not None) != list(range(len(dims))):
        return UNKNOWN
    return Layout(tuple(dims[at] for at in places if at is not None))


def _swapped(dims: tuple[Dim, ...], first: object, second: object) -> Layout:
    one, other = position(first, len(dims)), position(second, len(dims))
    if one is None or other is None:
        return UNKNOWN
    order = list(range(len(dims)))
    order[one], order[other] = other, one
    return _ordered(dims, order)
