"""Where a convolution's channels stand in a tensor: which dimensions, or which parts of them, tell channels apart.

A dimension is a sequence of factors, the slowest first, whose sizes multiply to its own. After
``y.view(n, 4, 2 * 25)``, with 8 channels of 5 by 5, dimension 1 is one factor of 4 and dimension 2 is the factors
2 and 25; the channel changes along the factors 4 and 2, and along no other. Numbers that agree in all such factors
belong to one channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

__all__ = [
    "UNKNOWN",
    "Argument",
    "Call",
    "Dim",
    "Factor",
    "Layout",
    "Size",
    "channels_at",
    "merged",
    "one_channel",
    "settled",
    "varies",
]

# A number, or a name for one that is not known; None until it gets a name.
Size = int | str | None
# Reads one argument of an operation, wherever it stands: position, name and default in, value out.
Argument = Callable[[int, str, Any], Any]


class Factor(NamedTuple):
    """A part of a dimension: how long it is, and whether the channel may change along it."""

    size: Size
    varies: bool = False


Dim = tuple[Factor, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The factors of each dimension; None where that is unknown. Factors of size 1 are left out."""

    dims: tuple[Dim, ...] | None

    @property
    def rank(self) -> int | None:
        """Number of dimensions, if known."""
        return None if self.dims is None else len(self.dims)


UNKNOWN = Layout(None)


@dataclass(frozen=True, slots=True)
class Call:
    """What a move may read of the operation that it describes.

    Args:
        arg: Reads an argument.
        shape: The result's shape, of a recorded run.
        extent: The sizes that multiply to an argument such as ``x.shape[1]``, or None if they are not known.
    """

    arg: Argument
    shape: tuple[int, ...] | None
    extent: Callable[[object], tuple[Size, ...] | None]


def channels_at(rank: int, channel: int, channels: int | None) -> Layout:
    """The layout of a convolution's own output, before its sizes are known."""
    sizes: list[Dim] = [(Factor(None),)] * rank
    sizes[channel] = () if channels == 1 else (Factor(channels, True),)
    return Layout(tuple(sizes))


def varies(dim: Dim) -> bool:
    """Whether the channel may change along a dimension."""
    return any(factor.varies for factor in dim)


def merged(dim: Dim, size: Size = None, also: bool = False) -> Dim:
    """A dimension as one factor of another size, for operations that cut it, extend it or move numbers along it."""
    return (Factor(size, also or varies(dim)),) if size != 1 else ()


def one_channel(layout: Layout, kept: Iterable[int]) -> bool:
    """Whether statistics that keep the dimensions ``kept`` apart never mix two channels.

    >>> eight = Factor(8, varies=True)
    >>> one_channel(Layout(((Factor(2),), (eight,), (Factor(25),))), kept=[1])
    True
    >>> one_channel(Layout(((Factor(2),), (Factor(25),), (eight,))), kept=[1])
    False
    """
    if layout.dims is None:
        return False
    separate = set(kept)
    return not any(varies(dim) for at, dim in enumerate(layout.dims) if at not in separate)


def settled(layout: Layout, name: str, shape: Sequence[int] | None) -> Layout:
    """The layout with every size filled in: from the shape of a recorded run, else named after the operation."""
    if layout.dims is None:
        return layout
    if shape is None:
        return Layout(tuple(_named(dim, f"{name}:{at}") for at, dim in enumerate(layout.dims)))
    if len(shape) != len(layout.dims) or 0 in shape:
        return UNKNOWN
    return Layout(tuple(map(_fitted, layout.dims, shape)))


def _named(dim: Dim, name: str) -> Dim:
    if all(factor.size is not None for factor in dim):
        return dim
    return tuple(f if f.size is not None else Factor(f"{name}.{at}", f.varies) for at, f in enumerate(dim))


def _fitted(dim: Dim, size: int) -> Dim:
    product = 1
    for factor in dim:
        if not _is_int(factor.size):
            return merged(dim, size)
        product *= factor.size
    if product != size:
        return merged(dim, size)
    return tuple(factor for factor in dim if factor.size != 1)


def _is_int(size: Size) -> TypeGuard[int]:
    return isinstance(size, int)
