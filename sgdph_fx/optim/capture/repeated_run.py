"""Two runs of a forward pass, held side by side: what differs comes from what the host draws, counts or keeps."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from sgdph_fx.errors import CaptureError
from sgdph_fx.optim.capture.watched_reads import address, where

__all__ = ["Operations", "refuse_differences"]

_MADE_ELSEWHERE = ("aten::lift_fresh", "aten::lift_fresh_copy")
"""What a number of Python's becomes a tensor by, so that it lies at another place each time."""


class _Outside(NamedTuple):
    """A tensor that the run did not make: where it lies, and its numbers if the host may look at them."""

    place: object
    numbers: object

    def is_like(self, other: object) -> bool:
        if not isinstance(other, _Outside):
            return False
        same = self.place is not None and self.place == other.place
        return same or (self.numbers is not None and self.numbers == other.numbers)


class _Row(NamedTuple):
    name: str
    given: tuple[object, ...]
    line: str


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The operations of one run, and what each is given: results of others by their numbers, plain values as such.

    Args:
        own: Parameters and buffers, wherever they lie by now: whether they have moved is looked at elsewhere.
        before: Another run, which this one is to take nothing of.
    """

    def __init__(self, own: Iterable[Tensor], before: Operations | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: list[_Row] = []
        self._before = before
        self._made: dict[Any, tuple[int, int]] = {}
        self.carried: set[int | None] = set()
        """Where tensors lie that the run before has made."""
        self.outside: dict[int, Any] = {}
        """Memory that was there before, by where it lies."""
        self._kept: list[Any] = []  # so that an address stays that of one tensor
        for number, tensor in enumerate(own):
            self._made[address(tensor)] = 0, number
            self._keep(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, leaves = func.name(), pytree.tree_leaves((args, kwargs or {}))
        given = tuple(self._told(leaf, is_number=name in _MADE_ELSEWHERE) for leaf in leaves)
        self.rows.append(_Row(name, given, where()))
        result = func(*args, **(kwargs or {}))
        known = {address(leaf) for leaf in leaves if isinstance(leaf, Tensor)}
        for number, out in enumerate(pytree.tree_leaves(result)):
            if isinstance(out, Tensor) and (name in _MADE_ELSEWHERE or address(out) not in known):
                self._made[address(out)] = len(self.rows), number
                self._keep(out)
        return result

    def _told(self, leaf: Any, *, is_number: bool) -> object:
        if not isinstance(leaf, Tensor):
            return type(leaf) if isinstance(leaf, torch.Generator) else repr(leaf)
        layout = _layout(leaf)
        made = None if is_number else self._made.get(address(leaf))
        if made is not None:
            return made, layout
        if not is_number and self._before is not None and address(leaf) in self._before._made:
            self.carried.add(address(leaf))
            return "of the run before", len(self.rows)
        self._keep(leaf)
        lies = None if is_number else address(leaf)
        if lies is not None:
            self.outside[lies] = leaf.untyped_storage()
        place = None if lies is None else (lies, layout)
        return _Outside(place, (layout, _numbers(leaf)) if leaf.device.type == "cpu" else None)

    def _keep(self, tensor: Tensor) -> None:
        if address(tensor) is not None:
            self._kept.append(tensor.untyped_storage())


def _layout(tensor: Tensor) -> tuple[object, ...]:
    if tensor.is_nested:
        return str(tensor.dtype), "nested"
    strides = (tensor.stride(), tensor.storage_offset()) if tensor.layout is torch.strided else tensor.layout
    return str(tensor.dtype), tuple(tensor.shape), strides


def _numbers(tensor: Tensor) -> object:
    """What tells the numbers of a tensor of the CPU from others."""
    with _disable_current_modes(), torch.no_grad():
        if tensor.is_nested or tensor.layout is not torch.strided or tensor.is_quantized:
            return None
        held = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        return hash(held.view(torch.uint8).numpy().tobytes()) if held.numel() else 0


def refuse_differences(first: Operations, second: Operations) -> None:
    """Refuse a forward pass that does something else on the same batch.

    Raises:
        CaptureError: naming the first operation that differs, and where.
    """
    for one, other in zip_longest(first.rows, second.rows):
        if (
            one is not None
            and other is not None
            and one.name == other.name
            and _are_alike(one.given, other.given)
        ):
            continue
        row = other or one
        raise CaptureError(
            f"This step cannot be captured as a CUDA graph: two runs on the same batch differ, first in "
            f"{row.name} {row.line}. Something there comes from what Python draws, counts, takes from an iterator, or "
            "keeps from one step to the next, and a graph would repeat what it was once. Draw with torch on the "
            "model's device, hold tensors in buffers and write them in place, pass other numbers as tensors in the "
            "batch, or train this model without CapturedStep. Nothing has been changed."
        )


def _are_alike(one: Iterable[object], other: Iterable[object]) -> bool:
    return all(_is_alike(a, b) for a, b in zip_longest(one, other))


def _is_alike(one: object, other: object) -> bool:
    return one.is_like(other) if isinstance(one, _Outside) else one == other
