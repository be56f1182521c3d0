"""Load CIFAR-10, CIFAR-100 and Fashion-MNIST into memory.

Nothing is downloaded, and the repository holds no data. Where a data set is missing, a
:class:`MissingDataError` says what to place where, and who publishes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from experiments.datasets.formats import Images, read_binary, read_idx_pair, read_pickled
from experiments.datasets.packed import FOLDER, read_mosaics

__all__ = ["DATASETS", "HELD_OUT", "Dataset", "MissingDataError", "load", "split"]

HELD_OUT = 5_000
SPLIT_SEED = 0


class MissingDataError(FileNotFoundError):
    """The files of a data set are not in the data folder."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set with its official split.

    Args:
        name: Its key in :data:`DATASETS`.
        train: The training images.
        test: The test images.
        classes: Number of classes.
    """

    name: str
    train: Images
    test: Images
    classes: int = 10


@dataclass(frozen=True, slots=True)
class Layout:
    """One layout of a data set's files.

    Args:
        folder: The folder, relative to the data folder.
        train: Names of the training files. Each may also be there with ``.gz``.
        test: Names of the test files, likewise.
        read: Reads the training files, or the test files.
    """

    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    read: Callable[[Sequence[Path]], Images]


@dataclass(frozen=True, slots=True)
class Source:
    """Where to look for a data set, and what to tell you if it is missing.

    Args:
        layouts: The layouts to try, in this order. The first complete one is read.
        what: What to place in the data folder.
        published: Where it is published.
        classes: Number of classes.
    """

    layouts: tuple[Layout, ...]
    what: str
    published: str
    classes: int = 10


CIFAR10_BATCHES = tuple(f"data_batch_{k}" for k in range(1, 6))
IDX_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
IDX_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

DATASETS: dict[str, Source] = {
    "cifar10": Source(
        layouts=(
            Layout(
                "cifar-10-batches-bin",
                tuple(f"{batch}.bin" for batch in CIFAR10_BATCHES),
                ("test_batch.bin",),
                read_binary,
            ),
            Layout("cifar-10-batches-py", CIFAR10_BATCHES, ("test_batch",), read_pickled),
            Layout(
                FOLDER,
                tuple(f"{batch}.webp" for batch in CIFAR10_BATCHES),
                ("test_batch.webp",),
                read_mosaics,
            ),
        ),
        what="the folder cifar-10-batches-bin (binary version) or cifar-10-batches-py (Python version)",
        published="https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    "cifar100": Source(
        layouts=(
            Layout(
                "cifar-100-binary",
                ("train.bin",),
                ("test.bin",),
                partial(read_binary, classes=100, label_bytes=2),
            ),
            Layout(
                "cifar-100-python",
                ("train",),
                ("test",),
                partial(read_pickled, classes=100, labels="fine_labels"),
            ),
        ),
        what="the folder cifar-100-binary (binary version) or cifar-100-python (Python version)",
        published="https://www.cs.toronto.edu/~kriz/cifar.html",
        classes=100,
    ),
    "fashion-mnist": Source(
        layouts=tuple(
            Layout(folder, IDX_TRAIN, IDX_TEST, read_idx_pair)
            for folder in ("fashion-mnist", "FashionMNIST/raw", "", "/usr/share/datasets/fashion-mnist")
        ),
        what=f"the folder fashion-mnist with {', '.join(f'{file}.gz' for file in IDX_TRAIN + IDX_TEST)}",
        published="https://github.com/zalandoresearch/fashion-mnist; Debian has it as dataset-fashion-mnist",
    ),
}


def load(name: str, folder: Path) -> Dataset:
    """Read a data set. Fashion-MNIST is also found where Debian installs it.

    Args:
        name: A key of :data:`DATASETS`.
        folder: The data folder.

    Returns:
        The whole set, 32×32 pixels, uint8, on the CPU.

    Raises:
        MissingDataError: if its files are not there.
        DamagedDataError: if the content of a file does not fit its format.
    """
    source = DATASETS[name]
    for layout in source.layouts:
        train = [_find(folder / layout.folder / file) for file in layout.train]
        test = [_find(folder / layout.folder / file) for file in layout.test]
        if all(file.is_file() for file in train + test):
            return Dataset(name, layout.read(train), layout.read(test), source.classes)
    raise MissingDataError(
        f"{name} is not in {folder}. Place {source.what} there. It is published at {source.published}."
    )


def split(dataset: Dataset, train_size: int | None, held_out: bool) -> tuple[Images, Images]:
    """Split a data set into images to train on and images to evaluate on.

    Args:
        dataset: The whole set.
        train_size: How many training images to use, always the same ones. None uses all of them, without
            the held-out ones if ``held_out``.
        held_out: Evaluate on 5,000 training images that are set aside, as you should while tuning, instead
            of on the test images.

    Raises:
        ValueError: if the set has fewer images.
    """
    total = len(dataset.train)
    available = total - HELD_OUT * held_out
    size = available if train_size is None else train_size
    if not 0 < size <= available:
        raise ValueError(f"{dataset.name} has {available} images to train on, but {size} were asked for.")
    order = torch.randperm(total, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return dataset.train[order[:size]], dataset.train[order[-HELD_OUT:]] if held_out else dataset.test


def _find(file: Path) -> Path:
    packed = file.with_name(f"{file.name}.gz")
    return packed if packed.is_file() else file
