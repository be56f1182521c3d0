"""Undoing many things, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable

__all__ = ["Steps", "undo_all"]

_ROUNDS = 3

Steps = Callable[[], Iterable[Callable[[], None]]]


def undo_all(steps: Steps) -> list[Exception]:
    """Run all steps, each of which may be repeated.

    An error of one step does not keep the others from running. After an error all run again, so that a passing one
    loses nothing. Ctrl-C waits until all is done.

    Args:
        steps: Gives the steps, in order.

    Returns:
        The errors of the last round.

    Raises:
        KeyboardInterrupt, SystemExit: what came in between, once all is done.
    """
    interruption: BaseException | None = None
    errors: list[Exception] = []
    for _ in range(_ROUNDS):
        try:
            errors = _round(steps)
        except BaseException as new:
            interruption = interruption or new
        else:
            if not errors:
                break
    if interruption is not None:
        raise interruption
    return errors


def _round(steps: Steps) -> list[Exception]:
    errors: list[Exception] = []
    for step in steps():
        try:
            step()
        except Exception as error:
            errors.append(error)
    return errors
