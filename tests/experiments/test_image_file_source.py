"""Image files in the published layouts, against the lists and pixels that they were made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from experiments.datasets.image_file_source import DEVIATION, MEAN, ImageFileSource
from experiments.datasets.image_files import find
from experiments.datasets.load import MissingDataError
from tests.experiments.dataset_files import write_image_folder, write_ravi_split

CPU = torch.device("cpu")


def _task(folder: Path, name: str, pixels: int = 16, workers: int = 0) -> ImageFileSource:
    return ImageFileSource(find(name, folder), pixels, workers, CPU)


def test_imagenet_is_what_torchvisions_image_folder_finds(tmp_path: Path) -> None:
    root = tmp_path / "imagenet"
    for part, count in (("train", 3), ("val", 2)):
        write_image_folder(root / part, ("n02", "n01", "n03"), count)
    found = find("imagenet", tmp_path)
    assert found.classes == ("n01", "n02", "n03")
    for part, samples in (("train", found.train), ("val", found.test)):
        assert [(str(file), label) for file, label in samples] == ImageFolder(root / part).samples


def test_each_class_of_ravis_split_is_split_five_to_one(tmp_path: Path) -> None:
    listed = write_ravi_split(tmp_path / "mini-imagenet", ("dog", "cat", "ant"), 6)
    found = find("mini-imagenet", tmp_path)
    assert found.classes == ("ant", "cat", "dog")
    train = [(file.name, label) for file, label in found.train]
    test = [(file.name, label) for file, label in found.test]
    expected = {name: [file for file, label in listed if label == name] for name in found.classes}
    assert train == [(file, k) for k, name in enumerate(found.classes) for file in expected[name][:5]]
    assert test == [(expected[name][5], k) for k, name in enumerate(found.classes)]


def test_each_class_of_disjoint_folders_is_split_too(tmp_path: Path) -> None:
    root = tmp_path / "mini-imagenet"
    for part, name in (("train", "a"), ("val", "b"), ("test", "c")):
        write_image_folder(root / part, (name,), 12)
    found = find("mini-imagenet", tmp_path)
    assert found.classes == ("a", "b", "c")
    assert (len(found.train), len(found.test)) == (30, 6)
    assert not {file for file, _ in found.train} & {file for file, _ in found.test}


@pytest.mark.parametrize("part", ["val", "test"])
def test_folders_of_the_same_classes_are_taken_as_they_are(part: str, tmp_path: Path) -> None:
    root = tmp_path / "mini-imagenet"
    write_image_folder(root / "train", ("a", "b"), 4)
    write_image_folder(root / part, ("a", "b"), 3)
    found = find("mini-imagenet", tmp_path)
    assert (len(found.train), len(found.test)) == (8, 6)
    assert all(file.is_relative_to(root / "train") for file, _ in found.train)


@pytest.mark.parametrize(
    ("name", "words"), [("imagenet", "train and val"), ("mini-imagenet", "train.csv, val.csv and test.csv")]
)
def test_the_error_for_missing_files_says_what_goes_where(name: str, words: str, tmp_path: Path) -> None:
    write_image_folder(tmp_path / name / "train", ("a",), 1)
    with pytest.raises(MissingDataError) as caught:
        find(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert words in str(caught.value)


def test_an_epoch_has_each_image_once_with_any_number_of_workers(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "imagenet" / "train", [f"n{k}" for k in range(12)], 1)
    write_image_folder(tmp_path / "imagenet" / "val", [f"n{k}" for k in range(12)], 1)
    task = _task(tmp_path, "imagenet")
    epochs = [list(task.train_batches(4, seed, epoch)) for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))]
    labels = [torch.cat([batch[1] for batch in batches]).tolist() for batches in epochs]
    assert all(sorted(order) == list(range(12)) for order in labels)
    assert labels[0] == labels[1]
    assert len({tuple(order) for order in labels}) == 3
    torch.manual_seed(3)
    read_elsewhere = list(_task(tmp_path, "imagenet", workers=1).train_batches(4, 0, 1))
    for (here, _), (again, _), (elsewhere, _) in zip(epochs[0], epochs[1], read_elsewhere, strict=True):
        assert torch.equal(here, again)
        assert torch.equal(here, elsewhere)
    assert not torch.equal(epochs[0][0][0], epochs[2][0][0])


def test_evaluation_crops_the_centre_or_stretches_the_whole(tmp_path: Path) -> None:
    # 32 by 16 pixels, left half black, right half white. Stretched or cropped, half of the columns are black.
    image = np.zeros((16, 32, 3), np.uint8)
    image[:, 16:] = 255
    image[:2] = image[-2:] = (255, 0, 0)
    for name, part in (("imagenet", "val"), ("mini-imagenet", "test")):
        for folder in ("train", part):
            (tmp_path / name / folder / "a").mkdir(parents=True)
            Image.fromarray(image).save(tmp_path / name / folder / "a" / "x.png")
    mean, deviation = (torch.tensor(each)[:, None, None] for each in (MEAN, DEVIATION))
    whole, middle = (
        (next(iter(_task(tmp_path, name, pixels=14).eval_batches()))[0][0] * deviation + mean)
        for name in ("mini-imagenet", "imagenet")
    )
    assert whole.shape == middle.shape == (3, 14, 14)
    # Two red rows at top and bottom. Stretching to 14 rows keeps them; cropping 16 to 14 rows cuts one off.
    assert whole[1, 0].max() < 0.3
    assert middle[1, 0].max() < 0.3
    assert middle[1, 1].max() > 0.5
    # Stretched to half the width, 7 columns are black. Of the middle 14 of 32 columns, also 7.
    assert whole[:, 7, :6].abs().max() < 0.1
    assert whole[:, 7, 8:].min() > 0.9
    assert middle[:, 7, :6].abs().max() < 0.1


def test_reduced_sets_are_of_all_classes_and_always_the_same(tmp_path: Path) -> None:
    write_ravi_split(tmp_path / "mini-imagenet", [f"c{k}" for k in range(9)], 12)
    task = _task(tmp_path, "mini-imagenet")
    few, again = task.reduced(40, 8), task.reduced(40, 8)
    assert (len(few), len(few.images.test)) == (40, 8)
    assert few.images.train == again.images.train
    assert {label for _, label in few.images.train} == set(range(9))
    assert task.reduced(None, None).images == task.images
    with pytest.raises(ValueError, match="90 images, but 91 were asked for"):
        task.reduced(91, None)
