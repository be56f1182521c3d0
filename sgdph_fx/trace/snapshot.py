"""All that running a model may change, remembered, so that it can be put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from sgdph_fx.errors import ModelChangedError, ModelError
from sgdph_fx.plan.wording import counted, first_few
from sgdph_fx.trace.memory import WriteWatch, keep_all
from sgdph_fx.trace.reachable import Found, follow
from sgdph_fx.trace.undo import Steps, undo_all

__all__ = ["Snapshot"]


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
        """Make everything what it was; may be called again, as long as the watch is on.

        Raises:
            ModelChangedError: if something could not be put back.
        """
        self._undo(self._found.steps)

    def glance(self) -> None:
        """Put back all but changes of numbers behind the first 64 KiB of a memory, without looking for those.

        Raises:
            ModelChangedError: if something could not be put back.
        """
        self._undo(self._found.glances)

    @property
    def has_missed(self) -> bool:
        """Whether :meth:`put_back` found numbers changed that :meth:`glance` may not have seen before."""
        return any(memory.missed for memory in self._found.memories.values())

    def _undo(self, steps: Steps) -> None:
        with _plainly():
            errors = undo_all(steps)
        if errors:
            told = sorted({f"{type(error).__name__}: {error}" for error in errors})
            raise ModelChangedError(
                f"Running the model changed it, and {counted(len(errors), 'change')} could not be undone "
                f"({first_few(told)}). Load its weights again before you go on."
            ) from errors[0]


@contextmanager
def _plainly() -> Iterator[None]:
    """No graph, and no function of the person's own in the place of PyTorch's."""
    with torch.no_grad(), torch._C.DisableTorchFunction():
        yield
