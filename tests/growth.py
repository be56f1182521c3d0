"""Whether time grows in proportion to size, on a machine that has other work."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["grows_in_proportion"]

_ROUNDS = 4


def grows_in_proportion(seconds: Callable[[int], float], small: int, large: int) -> bool:
    """Whether a larger size takes at most twice as much time as in proportion to a smaller one.

    Other work can make one round look worse than it is. Quadratic growth makes all of them look bad.
    """
    bound = 2 * large / small
    return any(seconds(large) < bound * seconds(small) for _ in range(_ROUNDS))
