"""Mini-ImageNet and ImageNet: where their image files lie, and which of them are for training.

Nothing is read here but lists of files. A set that is missing is a
:class:`~experiments.data.MissingDataError` that says what to place where.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from torchvision.datasets.folder import IMG_EXTENSIONS

from experiments.data import MissingDataError

__all__ = ["IMAGE_SETS", "ImageSet", "Sample", "find"]

Sample = tuple[Path, int]

RAVI_SPLITS = ("train.csv", "val.csv", "test.csv")


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Files of a data set, each with the number of its class.

    Args:
        train: Images to train on.
        test: Images to judge by.
        classes: Names of the classes, in the order of their numbers.
        squeezed: Whether test images are brought to a square whole; else their middle is cut out.
    """

    train: tuple[Sample, ...]
    test: tuple[Sample, ...]
    classes: tuple[str, ...]
    squeezed: bool


def find(name: str, folder: Path) -> ImageSet:
    """The files of the data set ``name`` of :data:`IMAGE_SETS` below the data folder.

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
    return _image_set(train, test, squeezed=False)


def _mini_imagenet(folder: Path) -> ImageSet | None:
    if all((folder / split).is_file() for split in RAVI_SPLITS):
        return _divided(_ravi(folder))
    parts = [_by_class(folder / part) for part in ("train", "val", "test")]
    train, test = parts[0], parts[2] or parts[1]
    if train and train.keys() == test.keys():
        return _image_set(train, test, squeezed=True)
    if all(parts):
        return _divided({name: files for part in parts for name, files in part.items()})
    return None


def _ravi(folder: Path) -> dict[str, list[Path]]:
    """The split of Ravi and Larochelle (2017): three csv files of ``filename,label``, the images beside them."""
    classes: dict[str, list[Path]] = {}
    for split in RAVI_SPLITS:
        with (folder / split).open(encoding="utf-8", newline="") as stream:
            for line in csv.DictReader(stream):
                classes.setdefault(line["label"], []).append(folder / "images" / line["filename"])
    return classes


def _by_class(folder: Path) -> dict[str, list[Path]]:
    """A folder for each class, as ``torchvision.datasets.ImageFolder`` has it."""
    if not folder.is_dir():
        return {}
    return {
        one.name: sorted(file for file in one.iterdir() if file.suffix.lower() in IMG_EXTENSIONS)
        for one in sorted(folder.iterdir())
        if one.is_dir()
    }


def _divided(classes: Mapping[str, Sequence[Path]]) -> ImageSet:
    """Classes that were divided into three for few-shot learning, each divided into 5/6 and 1/6 instead."""
    train = {name: files[: len(files) * 5 // 6] for name, files in classes.items()}
    test = {name: files[len(files) * 5 // 6 :] for name, files in classes.items()}
    return _image_set(train, test, squeezed=True)


def _image_set(
    train: Mapping[str, Iterable[Path]], test: Mapping[str, Iterable[Path]], squeezed: bool
) -> ImageSet:
    names = tuple(sorted(train))
    number = {name: k for k, name in enumerate(names)}

    def samples(half: Mapping[str, Iterable[Path]]) -> tuple[Sample, ...]:
        return tuple(chain.from_iterable(((file, number[name]) for file in half[name]) for name in names))

    return ImageSet(samples(train), samples(test), names, squeezed)


IMAGE_SETS: dict[str, Callable[[Path], ImageSet | None]] = {
    "mini-imagenet": _mini_imagenet,
    "imagenet": _imagenet,
}

WHAT = {
    "mini-imagenet": (
        "Place there the folder mini-imagenet, with either train.csv, val.csv and test.csv of Ravi and "
        "Larochelle (https://github.com/twitter-research/meta-learning-lstm) beside the folder images, or the "
        "folders train, val and test that hold a folder of images for each class."
    ),
    "imagenet": (
        "Place there the folder imagenet, with the folders train and val that hold a folder of images for each "
        "of the same classes (n01440764, ...); https://image-net.org has the images for those who register."
    ),
}
