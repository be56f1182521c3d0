"""Where operations move a convolution's channels.

A move takes the layout before an operation and the :class:`Call`, and returns the layout after it: ``UNKNOWN`` where
that cannot be told, or None where the operation combines numbers of different channels, such as a mean over them.
Sizes that the move does not know are None; the walk fills them in.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from sgdph_fx.rules.layout import UNKNOWN, Call, Dim, Factor, Layout, merged, varies

__all__ = [
    "Move",
    "concatenate",
    "cut",
    "index",
    "ints",
    "known",
    "narrow",
    "over_last",
    "pad",
    "position",
    "reduce",
    "resize",
    "roll",
    "same",
    "select",
    "stack",
    "unbind",
]

Move = Callable[[Layout, Call], Layout | None]
_Known = Callable[[tuple[Dim, ...], Call], Layout | None]


def known(move: _Known) -> Move:
    """A move that is only asked where the dimensions are known."""

    @functools.wraps(move)
    def asked(layout: Layout, call: Call) -> Layout | None:
        return UNKNOWN if layout.dims is None else move(layout.dims, call)

    return asked


def same(layout: Layout, call: Call) -> Layout:
    """Elementwise operations: channels stay where they are."""
    return layout


def position(dim: object, rank: int) -> int | None:
    """A dimension counted from the front; None if ``dim`` is no number, or none of these dimensions."""
    if not isinstance(dim, int) or isinstance(dim, bool) or not -rank <= dim < rank:
        return None
    return dim % rank


@known
def resize(dims: tuple[Dim, ...], call: Call) -> Layout | None:
    """Resizing, which goes over all dimensions but the first two."""
    if any(map(varies, dims[2:])):
        return None
    return Layout((*dims[:2], *(merged(dim) for dim in dims[2:])))


def over_last(count: int) -> Move:
    """Pooling over the last ``count`` dimensions, which combines channels where they lie there."""

    @known
    def move(dims: tuple[Dim, ...], call: Call) -> Layout | None:
        if any(map(varies, dims[-count:])):
            return None
        return Layout((*dims[:-count], *(merged(dim) for dim in dims[-count:])))

    return move


@known
def pad(dims: tuple[Dim, ...], call: Call) -> Layout:
    """Padding, whose argument has two numbers for each dimension, the last one first."""
    widths = call.arg(1, "pad", call.arg(1, "padding", None))
    count = len(widths) // 2 if isinstance(widths, Sequence) else len(dims)
    kept = max(len(dims) - count, 0)
    return Layout((*dims[:kept], *(merged(dim) for dim in dims[kept:])))


@known
def reduce_known(dims: tuple[Dim, ...], call: Call) -> Layout | None:
    """Means, sums and maxima over dimensions in which the channel does not change."""
    over = ints(call.arg(1, "dim", None))
    gone = {position(dim, len(dims)) for dim in over or ()}
    if not gone or None in gone:
        return None
    if any(varies(dims[at]) for at in gone if at is not None):
        return None
    if call.arg(2, "keepdim", False):
        return Layout(tuple(() if at in gone else dim for at, dim in enumerate(dims)))
    return Layout(tuple(dim for at, dim in enumerate(dims) if at not in gone))


def reduce(layout: Layout, call: Call) -> Layout | None:
    """Means, sums and maxima. Unknown dimensions are assumed to be those of space, as they usually are."""
    if layout.dims is None:
        over = call.arg(1, "dim", None)
        return None if ints(over) is None else UNKNOWN
    return reduce_known(layout, call)


@known
def cut(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``chunk``, ``split``, ``narrow``: a dimension gets shorter."""
    at = position(call.arg(2, "dim", 0), len(dims))
    return UNKNOWN if at is None else _with(dims, at, merged(dims[at]))


@known
def narrow(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.narrow(dim, start, length)``."""
    at = position(call.arg(1, "dim", 0), len(dims))
    return UNKNOWN if at is None else _with(dims, at, merged(dims[at]))


@known
def select(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x.select(dim, index)``: one place along a dimension, which is gone afterwards."""
    at = position(call.arg(1, "dim", 0), len(dims))
    return UNKNOWN if at is None else Layout((*dims[:at], *dims[at + 1 :]))


unbind = select  # each of its results is one place along the dimension


@known
def stack(dims: tuple[Dim, ...], call: Call) -> Layout:
    """Beside other tensors along a new dimension, along which one is ours and the others are not."""
    dim = call.arg(1, "dim", 0)
    at = position(dim, len(dims) + 1)
    return UNKNOWN if at is None else Layout((*dims[:at], (Factor(None, True),), *dims[at:]))


@known
def concatenate(dims: tuple[Dim, ...], call: Call) -> Layout:
    """Beside other tensors along a dimension, along which some numbers are ours and others are not."""
    at = position(call.arg(1, "dim", 0), len(dims))
    return UNKNOWN if at is None else _with(dims, at, merged(dims[at], also=True))


@known
def roll(dims: tuple[Dim, ...], call: Call) -> Layout:
    """Numbers move along some dimensions; without a word which, along all as if they were one."""
    over = ints(call.arg(2, "dims", None))
    if over is None:
        return UNKNOWN
    moved = {position(dim, len(dims)) for dim in over}
    return Layout(tuple(merged(dim) if at in moved else dim for at, dim in enumerate(dims)))


@known
def index(dims: tuple[Dim, ...], call: Call) -> Layout:
    """``x[...]``: slices keep a dimension, integers remove it, None adds one."""
    items: Any = call.arg(1, "idx", None)
    items = items if isinstance(items, tuple) else (items,)
    if not all(_is_plain(item) for item in items):
        return UNKNOWN
    consumed = sum(isinstance(item, int | slice) for item in items)
    if consumed > len(dims):
        return UNKNOWN
    rest = (slice(None),) * (len(dims) - consumed)
    at = next((n for n, item in enumerate(items) if item is Ellipsis), len(items))
    left = list(dims)[::-1]
    result: list[Dim] = []
    for item in (*items[:at], *rest, *items[at + 1 :]):
        if item is None:
            result.append(())
        elif isinstance(item, slice):
            dim = left.pop()
            result.append(dim if item == slice(None) else merged(dim))
        else:
            left.pop()
    return Layout(tuple(result))


def _is_plain(item: object) -> bool:
    return (isinstance(item, int | slice | None) and not isinstance(item, bool)) or item is Ellipsis


def _with(dims: tuple[Dim, ...], at: int, dim: Dim) -> Layout:
    return Layout((*dims[:at], dim, *dims[at + 1 :]))


def ints(value: object) -> tuple[int, ...] | None:
    """One number or a sequence of them as a tuple; None for anything else, and for none at all."""
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(v, int) for v in value):
        return tuple(value)
    return None
