"""Read the file formats in which CIFAR-10, CIFAR-100 and Fashion-MNIST are published."""

from __future__ import annotations

import gzip
import math
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["DamagedDataError", "Images", "read_binary", "read_idx_pair", "read_pickled"]

PIXELS = 3 * 32 * 32
UNSIGNED_BYTE = 8


class DamagedDataError(ValueError):
    """A file exists, but its content does not fit its format."""


@dataclass(frozen=True, slots=True)
class Images:
    """Images and their labels.

    Args:
        pixels: ``(N, C, H, W)``, uint8.
        labels: ``(N,)``, int64.
    """

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, which: Tensor | slice) -> Images:
        return Images(self.pixels[which], self.labels[which])

    def to(self, device: torch.device) -> Images:
        """The same images on ``device``."""
        return Images(self.pixels.to(device), self.labels.to(device))


def read_binary(files: Sequence[Path], classes: int = 10, label_bytes: int = 1) -> Images:
    """Read CIFAR's binary version: records of a label and 3072 pixel bytes (channel, row, column).

    Args:
        files: The files, in order.
        classes: Number of classes.
        label_bytes: Bytes before the pixels. CIFAR-100 has two, the coarse and the fine label; the last one counts.

    Raises:
        DamagedDataError: if a file does not hold whole records with labels below ``classes``.
    """
    return _concatenate([_records(file, classes, label_bytes) for file in files])


def read_pickled(files: Sequence[Path], classes: int = 10, labels: str = "labels") -> Images:
    """Read CIFAR's Python version, the layout that ``torchvision.datasets`` reads.

    Args:
        files: Pickled dictionaries with ``data``, ``(N, 3072)`` uint8, and the labels.
        classes: Number of classes.
        labels: The key of the labels.

    Raises:
        DamagedDataError: if a file holds anything else, or would run code.
    """
    return _concatenate([_pickle(file, classes, labels) for file in files])


def read_idx_pair(files: Sequence[Path]) -> Images:
    """Read MNIST's format, and pad the images with zeros to 32×32, so that networks for CIFAR take them.

    Args:
        files: An IDX file of 28×28 images and one of labels.

    Raises:
        DamagedDataError: if a file is not an IDX file of bytes, or the two differ in length.
    """
    images, labels = files
    return _checked(F.pad(_idx(images, 3)[:, None], (2, 2, 2, 2)), _idx(labels, 1), images, 10)


def _records(file: Path, classes: int, label_bytes: int) -> Images:
    data = np.fromfile(file, dtype=np.uint8)
    record = label_bytes + PIXELS
    if not data.size or data.size % record:
        raise DamagedDataError(
            f"{file} holds {data.size} bytes, which is not a multiple of the {record} bytes of a CIFAR-{classes} "
            "record (label and 3×32×32 pixels). It was cut short, or it is another file. Unpack the archive again."
        )
    records = torch.from_numpy(data).view(-1, record)
    pixels = records[:, label_bytes:].reshape(-1, 3, 32, 32)
    return _checked(pixels, records[:, label_bytes - 1], file, classes)


def _pickle(file: Path, classes: int, names: str) -> Images:
    with file.open("rb") as stream:
        try:
            batch = _ArrayUnpickler(stream, encoding="latin1").load()
            pixels = torch.from_numpy(np.array(batch["data"], dtype=np.uint8)).view(-1, 3, 32, 32)
            labels = torch.tensor(batch[names])
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DamagedDataError(
                f"{file} is not a batch of the Python version of CIFAR-{classes} ({error}). "
                "Unpack the archive again."
            ) from error
    return _checked(pixels, labels, file, classes)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads NumPy arrays and built-in containers, and refuses a pickle that names anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return np.empty(0).__reduce__()[0]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which an array does not need")


def _idx(file: Path, dimensions: int) -> Tensor:
    """Read two zero bytes, the type, the number of dimensions, each size as big-endian uint32, then the data."""
    data = _read(file)
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(data[at : at + 4], "big") for at in range(4, start, 4)]
    if data[:4] != bytes((0, 0, UNSIGNED_BYTE, dimensions)) or len(data) != start + math.prod(shape):
        raise DamagedDataError(
            f"{file} is not an IDX file of unsigned bytes in {dimensions} dimension(s), or it was cut short. "
            "Download it again."
        )
    return torch.frombuffer(bytearray(data), dtype=torch.uint8, offset=start).view(shape)


def _read(file: Path) -> bytes:
    try:
        return gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DamagedDataError(f"{file} cannot be unpacked ({error}). Download it again.") from error


def _checked(pixels: Tensor, labels: Tensor, file: Path, classes: int) -> Images:
    if len(pixels) != len(labels):
        raise DamagedDataError(f"{file} holds {len(pixels)} images, but there are {len(labels)} labels.")
    if labels.max() >= classes:
        raise DamagedDataError(
            f"{file} has the label {labels.max()}, but its {classes} classes are 0 to {classes - 1}."
        )
    return Images(pixels.contiguous(), labels.long())


def _concatenate(parts: Sequence[Images]) -> Images:
    return Images(torch.cat([part.pixels for part in parts]), torch.cat([part.labels for part in parts]))
