"""The memory behind tensors, kept as bytes: one way for every dtype, layout, view and NaN.

A small model's memory is copied before a look. A large model's is copied only where something is about to write into
it, which a dispatch mode sees; a checksum tells of writes that pass by the dispatcher.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Memory", "WriteWatch", "components", "keep_all", "storage_of"]

COPIED_AT_ONCE = 256 * 2**20
"""Bytes that are copied before a look. A model that holds more is copied where it is written to."""

_SMALL = 2**20
_START = 2**16
_CHUNK = 2**18

# These operators write into running statistics, and their schemas do not say so: positions of what they write.
_UNDECLARED: Mapping[str, tuple[int, ...]] = {
    "aten::native_batch_norm": (3, 4),
    "aten::cudnn_batch_norm": (3, 4),
    "aten::miopen_batch_norm": (3, 4),
}


def components(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors with a storage that ``tensor`` consists of: itself, or the parts of a sparse tensor."""
    if tensor.layout is torch.sparse_coo:
        yield from (tensor._indices(), tensor._values())
    elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        yield from (tensor.crow_indices(), tensor.col_indices(), tensor.values())
    elif tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        yield from (tensor.ccol_indices(), tensor.row_indices(), tensor.values())
    else:
        yield tensor


def storage_of(tensor: Tensor) -> torch.UntypedStorage | None:
    """The storage of a tensor; None for an opaque layout."""
    try:
        return tensor.untyped_storage()
    except (NotImplementedError, RuntimeError):
        return None


class Memory:
    """One storage, and what it held.

    Args:
        storage: The storage, on any device but meta.
    """

    __slots__ = ("_checksum", "_now", "_saved", "_start", "_wrong", "missed", "nbytes", "storage")

    def __init__(self, storage: torch.UntypedStorage) -> None:
        self.storage, self.nbytes = storage, storage.nbytes()
        self._now = self._start = self._saved = self._checksum = None  # type: Any
        self._wrong = False
        self.missed = False
        """Whether :meth:`put_back` found a change that glances could have missed."""

    def keep(self) -> None:
        """Copy it now, unless that was done before."""
        if self._now is None:
            self._now = _words(self.storage)
        if self._saved is None and self.storage.nbytes() >= self.nbytes:
            self._saved = _copy(self._now)
            # Code that PyTorch does not see may have come before the write that is about to happen.
            self._wrong = self._checksum is not None and _checksum(self._saved) != self._checksum
            if self._start is None:
                self._start = self._saved[: _START // self._saved.itemsize]

    def watch(self) -> None:
        """Only remember a checksum for now: :class:`WriteWatch` copies it before a write."""
        self._now = _words(self.storage)
        self._checksum = _checksum(self._now)
        self._start = _copy(self._now[: _START // self._now.itemsize])

    def glance(self) -> None:
        """Put it back if its first 64 KiB show a change.

        Raises:
            ValueError: as :meth:`put_back`.
        """
        self._resize()
        if not _equal(self._now[: len(self._start)], self._start):
            self._write()

    def put_back(self) -> None:
        """Write the bytes of before where others stand now.

        Raises:
            ValueError: if it changed and was never copied.
        """
        self._resize()
        if self._saved is None:
            if _checksum(self._now) != self._checksum:
                self._write()
        elif self._wrong or not _equal(self._now, self._saved):
            self._write()
            self.missed = True

    def _resize(self) -> None:
        # A storage that has grown stays so: somebody may hold a tensor that reads all of it.
        if self.storage.nbytes() < self.nbytes:
            self.storage.resize_(self.nbytes)

    def _write(self) -> None:
        if self._saved is None or self._wrong:
            raise ValueError("it was written to by code that PyTorch does not see")
        self._now.copy_(self._saved)


def keep_all(memories: Iterable[Memory]) -> dict[int, Memory]:
    """Copy the memories, or those that are small if there is much of it.

    Returns:
        The others, by address of the storage: :class:`WriteWatch` copies them when they are written to.
    """
    found = list(memories)
    much = sum(memory.nbytes for memory in found) > COPIED_AT_ONCE
    later: dict[int, Memory] = {}
    for memory in found:
        if much and memory.nbytes > _SMALL:
            memory.watch()
            later[memory.storage._cdata] = memory
        else:
            memory.keep()
    return later


class WriteWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Copies a memory right before an operation writes into it.

    Args:
        memories: The memories to watch, by address of the storage.
    """

    def __init__(self, memories: Mapping[int, Memory]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._memories = memories

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        positions, names = _written(func)
        for place in positions:
            if place < len(args):
                self._keep(args[place])
        for name in names:
            self._keep(kwargs.get(name))
        return func(*args, **kwargs)

    def _keep(self, value: Any) -> None:
        for tensor in value if isinstance(value, list | tuple) else [value]:
            if isinstance(tensor, Tensor):
                for part in components(tensor):
                    storage = storage_of(part)
                    memory = None if storage is None else self._memories.get(storage._cdata)
                    if memory is not None:
                        memory.keep()


@functools.cache
def _written(func: Any) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The positions and the names of the arguments that an operator writes into."""
    schema = getattr(func, "_schema", None)
    if schema is None:
        return (), ()
    written = [
        (place, argument.name)
        for place, argument in enumerate(schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]
    undeclared = _UNDECLARED.get(schema.name, ())
    return (*(place for place, _ in written), *undeclared), tuple(name for _, name in written)


def _words(storage: torch.UntypedStorage) -> Tensor:
    """All of a storage, in words that are as long as fits: bytes take three times as long to compare."""
    words = (torch.int64, torch.int32, torch.uint8)
    word = next(word for word in words if storage.nbytes() % word.itemsize == 0)
    return torch.empty(0, dtype=word, device=storage.device).set_(storage)


def _copy(numbers: Tensor) -> Tensor:
    try:
        return numbers.clone()
    except torch.OutOfMemoryError:
        return numbers.cpu()


def _equal(now: Tensor, saved: Tensor) -> bool:
    return torch.equal(now.to(saved.device), saved)


def _checksum(numbers: Tensor) -> int:
    """One number for all bytes, which depends on their places, too; it takes 1 MiB of memory.

    Each word of four bytes counts by a factor of its place. Products are added up in pairs, which takes half as long
    as to widen each.
    """
    numbers = numbers.view(torch.uint8)
    factors = _factors(numbers.device)
    products = torch.empty_like(factors)
    total = 0
    for start in range(0, len(numbers), 4 * _CHUNK):
        chunk = numbers[start : start + 4 * _CHUNK]
        rest = len(chunk) % 8
        words = chunk[: len(chunk) - rest].view(torch.int32)
        weighted = torch.mul(words, factors[: len(words)], out=products[: len(words)])
        total = hash((total, int(weighted.view(torch.int64).sum()), *chunk[len(chunk) - rest :].tolist()))
    return total


@functools.cache
def _factors(device: torch.device) -> Tensor:
    """A constant for each place of a chunk.

    All are odd, so that no change of one word is lost. They are drawn, because in a series that grows evenly a 1.0 that
    moves by 256 places is.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    drawn = torch.randint(-(2**30), 2**30, (_CHUNK,), dtype=torch.int32, generator=generator)
    return drawn.mul_(2).add_(1).to(device)
