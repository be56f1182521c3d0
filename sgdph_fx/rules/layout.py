"""Where a convolution's channels stand in a tensor, and where operations move them.

A move takes the layout before and a reader of the operation's arguments, ``arg(position, name, default)``,
and returns the layout after it, or None where channels lose their identity (an average over the channels, say).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "UNKNOWN",
    "Argument",
    "Layout",
    "Move",
    "concatenate",
    "flatten",
    "index",
    "over_last",
    "permute",
    "reduce",
    "reshaped",
    "resize",
    "same",
    "somewhere",
    "squeeze",
    "stack",
    "swap_last",
    "transpose",
    "unbind",
    "unsqueeze",
]


@dataclass(frozen=True, slots=True)
class Layout:
    """Number of dimensions, and the one along which the channels lie; None where unknown."""

    rank: int | None
    channel: int | None

    @property
    def known(self) -> bool:
        return self.rank is not None and self.channel is not None

    def dim(self, dim: int) -> int:
        """A dimension counted from the front."""
        return dim + (self.rank or 0) if dim < 0 else dim


UNKNOWN = Layout(None, None)

# Reads one argument of an operation, wherever it stands: position, name and default in, value out.
Argument = Callable[[int, str, Any], Any]
# Where the channels are after an operation; None if they no longer are channels.
Move = Callable[[Layout, Argument], Layout | None]


def same(layout: Layout, arg: Argument) -> Layout:
    """Elementwise operations, padding: channels stay where they are."""
    return layout


def resize(layout: Layout, arg: Argument) -> Layout | None:
    """Resizing, which goes over all dimensions but the first two."""
    return layout if layout.channel in (0, 1, None) else None


def over_last(dims: int) -> Move:
    """Pooling over the last ``dims`` dimensions, which combines channels where they lie there."""

    def move(layout: Layout, arg: Argument) -> Layout | None:
        outside = layout.channel is None or layout.channel < layout.dim(-dims)
        return layout if outside else None

    return move


def somewhere(layout: Layout, arg: Argument) -> Layout:
    """Reshapes whose shapes are not known: channels are there, it is not known where."""
    return UNKNOWN


def permute(layout: Layout, arg: Argument) -> Layout:
    dims = _ints(arg(1, "dims", None))
    if not layout.known or dims is None:
        return UNKNOWN
    order = [layout.dim(d) for d in dims]
    return Layout(len(order), order.index(layout.channel)) if layout.channel in order else UNKNOWN


def transpose(layout: Layout, arg: Argument) -> Layout:
    first, second = arg(1, "dim0", None), arg(2, "dim1", None)
    if not (layout.known and isinstance(first, int) and isinstance(second, int)):
        return UNKNOWN
    swap = {layout.dim(first): layout.dim(second), layout.dim(second): layout.dim(first)}
    assert layout.channel is not None
    return Layout(layout.rank, swap.get(layout.channel, layout.channel))


def swap_last(layout: Layout, arg: Argument) -> Layout:
    """``x.mT``, and ``x.T`` or ``x.t()`` of a matrix."""
    return transpose(layout, lambda position, *_: -position)


def flatten(layout: Layout, arg: Argument) -> Layout:
    start, end = arg(1, "start_dim", 0), arg(2, "end_dim", -1)
    if not (layout.known and isinstance(start, int) and isinstance(end, int)):
        return UNKNOWN
    assert layout.rank is not None
    assert layout.channel is not None
    start, end = layout.dim(start), layout.dim(end)
    rank = layout.rank - (end - start)
    if layout.channel <= start:
        # Merged with what follows it, a channel becomes several neighbouring features, all of them its own.
        return Layout(rank, layout.channel)
    return Layout(rank, layout.channel - (end - start)) if layout.channel > end else Layout(rank, None)


def reduce(layout: Layout, arg: Argument) -> Layout | None:
    """Means, sums and maxima over dimensions other than the channels'."""
    dims = _ints(arg(1, "dim", None))
    if dims is None:
        return None
    if not layout.known:
        # Without shapes the usual case is assumed: pooling over the last, spatial dimensions.
        return UNKNOWN
    assert layout.rank is not None
    assert layout.channel is not None
    gone = {layout.dim(d) for d in dims}
    if layout.channel in gone:
        return None
    if arg(2, "keepdim", False):
        return layout
    return Layout(layout.rank - len(gone), layout.channel - sum(d < layout.channel for d in gone))


def squeeze(layout: Layout, arg: Argument) -> Layout:
    dims = _ints(arg(1, "dim", None))
    if dims is None or not layout.known:
        return UNKNOWN
    return reduce(layout, arg) or UNKNOWN


def unsqueeze(layout: Layout, arg: Argument) -> Layout:
    dim = arg(1, "dim", None)
    if not (layout.known and isinstance(dim, int)):
        return UNKNOWN
    assert layout.rank is not None
    assert layout.channel is not None
    dim = dim + layout.rank + 1 if dim < 0 else dim
    return Layout(layout.rank + 1, layout.channel + (dim <= layout.channel))


def stack(layout: Layout, arg: Argument) -> Layout:
    return unsqueeze(layout, lambda position, name, default: arg(1, "dim", 0))


def unbind(layout: Layout, arg: Argument) -> Layout | None:
    dim = arg(1, "dim", 0)
    if not isinstance(dim, int):
        return UNKNOWN
    if layout.known and layout.dim(dim) == layout.channel:
        return Layout((layout.rank or 1) - 1, None)
    return reduce(layout, lambda position, name, default: dim if name == "dim" else default)


def concatenate(layout: Layout, arg: Argument) -> Layout:
    """Side by side with other tensors, along the channels or not, each channel stays its own."""
    return layout


def index(layout: Layout, arg: Argument) -> Layout:
    """``x[...]``: slices keep a dimension, integers remove it, None adds one."""
    items = arg(1, "idx", None)
    items = items if isinstance(items, tuple) else (items,)
    if not layout.known or not all(isinstance(i, int | slice | None) or i is Ellipsis for i in items):
        return UNKNOWN
    assert layout.rank is not None
    assert layout.channel is not None
    consumed = sum(isinstance(i, int | slice) for i in items)
    fill = (slice(None),) * (layout.rank - consumed)
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    full = items[:at] + fill + items[at + 1 :]
    before, channel, rank = 0, None, 0
    for item in full:
        if item is None:
            rank += 1
            continue
        if isinstance(item, slice):
            channel = rank if before == layout.channel else channel
            rank += 1
        before += 1
    return Layout(rank, channel)


def reshaped(layout: Layout, before: Sequence[int], after: Sequence[int]) -> Layout:
    """A reshape between known shapes.

    >>> reshaped(Layout(4, 1), (2, 8, 5, 5), (2, 8, 25))
    Layout(rank=3, channel=1)
    """
    if not layout.known or layout.rank != len(before):
        return Layout(len(after), None)
    assert layout.channel is not None
    ahead = _product(before[: layout.channel])
    size = before[layout.channel]
    for position in range(len(after)):
        if _product(after[:position]) == ahead and after[position] % max(size, 1) == 0:
            return Layout(len(after), position)
    return Layout(len(after), None)


def _ints(value: Any) -> tuple[int, ...] | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return (value,)
    if isinstance(value, list | tuple) and value and all(isinstance(v, int) for v in value):
        return tuple(value)
    return None


def _product(sizes: Sequence[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result
