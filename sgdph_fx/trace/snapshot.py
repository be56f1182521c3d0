"""All that running a model may change, remembered, so that it can be put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from sgdph_fx.errors import ModelChangedError, ModelError
from sgdph_fx.plan.wording import first_few
from sgdph_fx.trace.memory import WriteWatch, keep_all
from sgdph_fx.trace.reachable import Found, follow

__all__ = ["Snapshot"]

_ROUNDS = 3


class Snapshot:
    """What some objects hold now, with the numbers of their tensors.

    Args:
        found: The objects.
    """

    def __init__(self, found: Found) -> None:
        self._found = found
        with _plainly():
            self._later = keep_all(found.memories.values())

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        """A snapshot of everything that ``model`` leads to.

        Raises:
            ModelError: if something cannot be remembered; nothing has run then.
        """
        try:
            with _plainly():
                return cls(follow([model]))
        except Exception as error:
            raise ModelError(
                f"The state of this {type(model).__name__} cannot be kept ({type(error).__name__}: {error}), "
                "so running it could change it for good. Take what cannot be copied out of the model, then try again."
            ) from error

    def watch(self) -> AbstractContextManager[Any]:
        """Has to be on while the model runs: it copies what is too large to be copied beforehand."""
        return WriteWatch(self._later) if self._later else nullcontext()

    def put_back(self) -> None:
        """Make everything what it was.

        An error at one object does not keep the others from being put back. After an error all is tried again, so
        that a passing one, such as Ctrl-C, loses nothing; Ctrl-C goes on afterwards.

        Raises:
            ModelChangedError: if something could not be put back.
        """
        interruption: BaseException | None = None
        errors: list[Exception] = []
        for _ in range(_ROUNDS):
            errors, new = _put_back(self._found)
            interruption = interruption or new
            if not errors and new is None:
                break
        if errors:
            told = sorted({f"{type(e).__name__}: {e}" for e in errors})
            raise ModelChangedError(
                f"Running the model changed it, and {len(errors)} of the changes could not be undone "
                f"({first_few(told)}). Load its weights again before you go on."
            ) from errors[0]
        if interruption is not None:
            raise interruption


@contextmanager
def _plainly() -> Iterator[None]:
    """No graph, and no function of the person's own in the place of PyTorch's."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        yield


def _put_back(found: Found) -> tuple[list[Exception], BaseException | None]:
    """One round over all: its errors, and an interruption."""
    errors: list[Exception] = []
    interruption: BaseException | None = None
    try:
        with _plainly():
            for step in found.steps():
                try:
                    step()
                except Exception as error:
                    errors.append(error)
    except BaseException as error:
        interruption = error
    return errors, interruption
