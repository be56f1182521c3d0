"""Forward passes that are run to be looked at: what they write and draw is put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from sgdph_fx.optim.capture.watched_reads import address, written_by

__all__ = ["WritesPutBack"]


class WritesPutBack(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Remembers, at the first write, what a tensor held that was there before, and the state of each generator.

    A loss function adds to a tensor of its own, a layer draws from a generator of its own: neither is a module's, so
    only the operations tell.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._made: set[int | None] = set()  # an address that is free again goes to what the step makes next
        self._kept: dict[int, tuple[Any, Any]] = {}
        self._generators: dict[torch.Generator, Tensor] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Generator) and value not in self._generators:
                self._generators[value] = value.get_state()
        for tensor in written_by(func, args, kwargs):
            self._keep(tensor)
        result = func(*args, **kwargs)
        given = {address(t) for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, Tensor) and address(tensor) not in given:
                self._made.add(address(tensor))
        return result

    def _keep(self, tensor: Tensor) -> None:
        place = address(tensor)
        if place is not None and place not in self._made and place not in self._kept:
            storage = tensor.untyped_storage()
            self._kept[place] = storage, storage.clone()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for storage, numbers in self._kept.values():
            if storage.nbytes() == numbers.nbytes():
                storage.copy_(numbers)
        for generator, state in self._generators.items():
            generator.set_state(state)
