"""Reshapes: the same factors, distributed over other dimensions."""

from __future__ import annotations

from collections.abc import Sequence

from sgdph_fx.rules.layout import Dim, Factor, Size

__all__ = ["Extent", "regrouped", "regrouped_by_name", "split_in_front"]

# The sizes that multiply to one dimension of the result; None for the -1 that takes what is left.
Extent = tuple[Size, ...] | None


def regrouped(factors: Sequence[Factor], sizes: Sequence[int]) -> tuple[Dim, ...] | None:
    """The dimensions of a reshape whose result has ``sizes``, of factors whose sizes are all numbers.

    Where a factor would have to be cut at a place that is no divisor of it, the dimensions that share it become one
    factor each, along which the channel may change if it may along any of the shared ones.

    >>> two, six = Factor(2), Factor(6, varies=True)
    >>> regrouped([two, six], [4, 3])
    ((Factor(size=2, varies=False), Factor(size=2, varies=True)), (Factor(size=3, varies=True),))
    >>> regrouped([Factor(3), six], [9, 2])
    ((Factor(size=3, varies=False), Factor(size=3, varies=True)), (Factor(size=2, varies=True),))
    >>> regrouped([six, Factor(4)], [8, 3])
    ((Factor(size=8, varies=True),), (Factor(size=3, varies=True),))

    Returns:
        None if the sizes do not multiply to the same number.
    """
    result: list[Dim] = []
    waiting = list(factors)[::-1]
    at = 0
    while at < len(sizes):
        group, span = _smallest_group(waiting, sizes[at:])
        if group is None:
            return None
        wanted = sizes[at : at + span]
        exact = _take_each(group, [(size,) for size in wanted])
        shared = any(factor.varies for factor in group)
        result += exact or [(Factor(size, shared),) if size != 1 else () for size in wanted]
        at += span
    return None if waiting else tuple(result)


def _smallest_group(waiting: list[Factor], sizes: Sequence[int]) -> tuple[list[Factor] | None, int]:
    """The fewest next factors and sizes with the same product; the factors are taken off the end of ``waiting``."""
    group: list[Factor] = []
    have, want, span = 1, sizes[0], 1
    while have != want:
        if have < want:
            if not waiting:
                return None, 0
            group.append(waiting.pop())
            have *= _number(group[-1])
        else:
            if span == len(sizes):
                return None, 0
            want *= sizes[span]
            span += 1
    return group, span


def _number(factor: Factor) -> int:
    assert isinstance(factor.size, int)
    return factor.size


def regrouped_by_name(factors: Sequence[Factor], extents: Sequence[Extent]) -> tuple[Dim, ...] | None:
    """The dimensions of a reshape where sizes are names: each extent is made of whole factors, or of a divisor of one.

    >>> n, c = Factor("n"), Factor(8, varies=True)
    >>> regrouped_by_name([n, c, Factor("h")], [("n",), (4,), None])[2]
    (Factor(size=2, varies=True), Factor(size='h', varies=False))

    Returns:
        None where the names do not tell.
    """
    if list(extents).count(None) > 1:
        return None
    rest = list(factors)
    if None not in extents:
        exact = _take_each(rest, extents)
        return None if exact is None or rest else tuple(exact)
    hole = list(extents).index(None)
    before = _take_each(rest, extents[:hole])
    mirrored = rest[::-1]
    after = _take_each(mirrored, [extent[::-1] for extent in extents[:hole:-1] if extent is not None])
    if before is None or after is None:
        return None
    middle = tuple(mirrored[::-1])
    return (*before, middle, *(dim[::-1] for dim in after[::-1]))


def _take_each(factors: list[Factor], extents: Sequence[Extent]) -> list[Dim] | None:
    """One dimension for each extent, taken off the front of ``factors``; None if they do not fit."""
    waiting = factors[::-1]
    dims: list[Dim] = []
    for extent in extents:
        dim: list[Factor] = []
        for size in extent or ():
            taken = _take(waiting, size)
            if taken is None:
                return None
            dim += taken
        dims.append(tuple(dim))
    factors[:] = waiting[::-1]
    return dims


def _take(waiting: list[Factor], size: Size) -> list[Factor] | None:
    """Factors off the end of ``waiting`` that multiply to ``size``; the last one is cut if need be."""
    if isinstance(size, str):
        return [waiting.pop()] if waiting and waiting[-1].size == size else None
    if size is None:
        return None
    taken: list[Factor] = []
    while size > 1:
        if not waiting or not isinstance(waiting[-1].size, int):
            return None
        factor = waiting.pop()
        have = _number(factor)
        if size % have == 0:
            taken.append(factor)
            size //= have
        elif have % size == 0:
            taken.append(Factor(size, factor.varies))
            waiting.append(Factor(have // size, factor.varies))
            size = 1
        else:
            return None
    return taken if size == 1 else None


def split_in_front(dim: Dim, count: int) -> tuple[Dim, Dim] | None:
    """A dimension cut into ``count`` blocks: what tells blocks apart, and what lies within one."""
    rest = list(dim)
    front = _take_each(rest, [(count,)])
    return None if front is None else (front[0], tuple(rest))
