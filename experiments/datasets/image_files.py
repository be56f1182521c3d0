"""Find the image files of Mini-ImageNet and ImageNet, and split them into training and test files.

This module reads only lists of files. Where a data set is missing, a
:class:`~experiments.datasets.load.MissingDataError` says what to place where.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from experiments.datasets.load import MissingDataError

__all__ = ["IMAGE_SETS", "ImageSet", "Sample", "find"]

Sample = tuple[Path, int]

RAVI_SPLITS = ("train.csv", "val.csv", "test.csv")


@dataclass(frozen=True, slots=True)
class ImageSet:
    """The files of a data set, each with the number of its class.

    Args:
        train: Images to train on.
        test: Images to evaluate on.
        classes: Names of the classes, in the order of their numbers.
        stretch_test: Whether a test image is resized to a square as a whole. If not, its centre is cropped.
    """

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    classes: tuple[str, ...]
    stretch_test: bool


def find(name: str, folder: Path) -> ImageSet:
    """Find the files of a data set below the data folder.

    Args:
        name: A key of :data:`IMAGE_SETS`.
        folder: The data folder.

    Raises:
        MissingDataError: if they are not there.
    """
    found = IMAGE_SETS[name](folder / name)
    if found is None:
        raise MissingDataError(f"{name} is not in {folder}. {WHAT[name]}")
    return found


def _imagenet(folder: Path) -> ImageSet | None:
    train, test = _by_class(folder / "train"), _by_class(folder / "val")
    if not train or train.keys() != test.keys():
        return None
    return _image_set(train, test, stretch_test=False)


def _mini_imagenet(folder: Path) -> ImageSet | None:
    if all((folder / split).is_file() for split in RAVI_SPLITS):
        return _split_classes(_ravi(folder))
    parts = [_by_class(folder / part) for part in ("train", "val", "test")]
    train, test = parts[0], parts[2] or parts[1]
    if train and train.keys() == test.keys():
        return _image_set(train, test, stretch_test=True)
    if all(parts):
        return _split_classes({name: files for part in parts for name, files in part.items()})
    return None


def _ravi(folder: Path) -> dict[str, list[Path]]:
    """Read the split of Ravi and Larochelle (2017): three CSV files of ``filename,label``, with the images beside."""
    classes: dict[str, list[Path]] = {}
    for split in RAVI_SPLITS:
        with (folder / split).open(encoding="utf-8", newline="") as stream:
            for line in csv.DictReader(stream):
                classes.setdefault(line["label"], []).append(folder / "images" / line["filename"])
    return classes


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """List a folder for each class, the layout of ``torchvision.datasets.ImageFolder``."""
    if not folder.is_dir():
        return {}
    return {
        one.name: sorted(file for file in one.iterdir() if file.suffix.lower() in IMG_EXTENSIONS)
        for one in sorted(folder.iterdir())
        if one.is_dir()
    }


def _split_classes(classes: Mapping[str, Sequence[Path]]) -> ImageSet:
    """Split each class into 5/6 and 1/6, in place of the few-shot split of the classes into three."""
    train = {name: files[: len(files) * 5 // 6] for name, files in classes.items()}
    test = {name: files[len(files) * 5 // 6 :] for name, files in classes.items()}
    return _image_set(train, test, stretch_test=True)


def _image_set(
    train: Mapping[str, Iterable[Path]], test: Mapping[str, Iterable[Path]], stretch_test: bool
) -> ImageSet:
    names = tuple(sorted(train))
    number = {name: k for k, name in enumerate(names)}

    def samples(half: Mapping[str, Iterable[Path]]) -> tuple[Sample, ...]:
        return tuple(chain.from_iterable(((file, number[name]) for file in half[name]) for name in names))

    return ImageSet(samples(train), samples(test), names, stretch_test)


IMAGE_SETS: dict[str, Callable[[Path], ImageSet | None]] = {
    "mini-imagenet": _mini_imagenet,
    "imagenet": _imagenet,
}

WHAT = {
    "mini-imagenet": (
        "Place the folder mini-imagenet there. It holds either train.csv, val.csv and test.csv of Ravi and "
        "Larochelle (https://github.com/twitter-research/meta-learning-lstm) beside the folder images, or the "
        "folders train, val and test with a folder of images for each class."
    ),
    "imagenet": (
        "Place the folder imagenet there. It holds the folders train and val, each with a folder of images for "
        "each of the same classes (n01440764, ...). You get the images at https://image-net.org after you register."
    ),
}
