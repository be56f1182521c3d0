"""The loaders, against files written byte by byte in the published formats."""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, CIFAR100

from experiments.datasets.formats import DamagedDataError, Images
from experiments.datasets.load import DATASETS, Dataset, MissingDataError, load, split
from tests.experiments.dataset_files import (
    Batches,
    python2_batch,
    write_cifar10_binary,
    write_cifar10_pickled,
    write_cifar100,
    write_fashion_mnist,
)


@pytest.mark.parametrize("write", [write_cifar10_binary, write_cifar10_pickled])
def test_cifar10_is_read_in_order(write: Callable[[Path, int], Batches], tmp_path: Path) -> None:
    batches = write(tmp_path, 3)
    dataset = load("cifar10", tmp_path)
    assert np.array_equal(dataset.train.pixels.numpy(), np.concatenate([pixels for pixels, _ in batches[:5]]))
    assert dataset.train.labels.tolist() == [0, 1, 2] * 5
    assert np.array_equal(dataset.test.pixels.numpy(), batches[5][0])
    assert dataset.train.pixels.dtype == torch.uint8
    assert dataset.train.labels.dtype == torch.int64


@pytest.mark.parametrize("pickled", [True, False])
def test_cifar100_has_fine_labels(pickled: bool, tmp_path: Path) -> None:
    halves = write_cifar100(tmp_path, 4, pickled)
    dataset = load("cifar100", tmp_path)
    assert dataset.classes == 100
    for images, (pixels, labels) in zip((dataset.train, dataset.test), halves, strict=True):
        assert np.array_equal(images.pixels.numpy(), pixels)
        assert images.labels.tolist() == labels == [90, 91, 92, 93]


@pytest.mark.parametrize(("name", "official"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_files_are_read_as_torchvision_reads_them(
    name: str, official: type[CIFAR10], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10_pickled(tmp_path, 3)
    write_cifar100(tmp_path, 3, pickled=True)
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": []}))
    (tmp_path / "cifar-100-python" / "meta").write_bytes(pickle.dumps({"fine_label_names": []}))
    # The files made here have no published checksum.
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *arguments: True)
    dataset = load(name, tmp_path)
    for images, train in ((dataset.train, True), (dataset.test, False)):
        theirs = official(str(tmp_path), train=train)
        assert np.array_equal(images.pixels.permute(0, 2, 3, 1).numpy(), theirs.data)
        assert images.labels.tolist() == theirs.targets


@pytest.mark.parametrize("place", ["fashion-mnist", "FashionMNIST/raw", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_padded_to_32(place: str, packed: bool, tmp_path: Path) -> None:
    root = tmp_path / "root"
    halves = write_fashion_mnist(root / place, 12, packed)
    dataset = load("fashion-mnist", root)
    for images, (pixels, labels) in zip((dataset.train, dataset.test), halves, strict=True):
        assert images.pixels.shape == (12, 1, 32, 32)
        assert np.array_equal(images.pixels[:, 0, 2:30, 2:30].numpy(), pixels)
        assert images.pixels.sum() == pixels.sum(dtype=np.int64)
        assert images.labels.tolist() == labels


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar10", ["cifar-10-batches-bin", "cifar-10-batches-py", "cs.toronto.edu/~kriz/cifar.html"]),
        ("cifar100", ["cifar-100-binary", "cifar-100-python", "cs.toronto.edu/~kriz/cifar.html"]),
        ("fashion-mnist", ["train-images-idx3-ubyte.gz", "zalandoresearch/fashion-mnist"]),
    ],
)
def test_the_error_for_missing_data_says_what_goes_where(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_folder = tuple(layout for layout in DATASETS[name].layouts if not layout.folder.startswith("/"))
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], layouts=in_folder))
    with pytest.raises(MissingDataError) as caught:
        load(name, tmp_path)
    for word in [str(tmp_path), *words]:
        assert word in str(caught.value)


def test_a_batch_that_lacks_one_file_counts_as_missing(tmp_path: Path) -> None:
    write_cifar10_binary(tmp_path, 1)
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(MissingDataError):
        load("cifar10", tmp_path)


def test_a_file_cut_short_is_named(tmp_path: Path) -> None:
    write_cifar10_binary(tmp_path, 2)
    file = tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DamagedDataError, match=r"data_batch_2\.bin holds 6145 bytes"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize(
    "content", [b"\x00\x00\x08\x01\x00\x00\x00\x05abc", b"\x00\x00\x0d\x01\x00\x00\x00\x01a", b""]
)
def test_a_file_that_is_not_idx_is_refused(content: bytes, tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "fashion-mnist", 2)
    file = tmp_path / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(gzip.compress(content))
    with pytest.raises(DamagedDataError, match="t10k-labels"):
        load("fashion-mnist", tmp_path)


def test_a_broken_gzip_is_refused(tmp_path: Path) -> None:
    write_fashion_mnist(tmp_path / "fashion-mnist", 2)
    file = tmp_path / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DamagedDataError, match="train-images"):
        load("fashion-mnist", tmp_path)


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    write_cifar10_pickled(tmp_path, 1)
    pixels = np.zeros((1, 3072), np.uint8)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(python2_batch(pixels, [10]))
    with pytest.raises(DamagedDataError, match="label 10"):
        load("cifar10", tmp_path)


class _Harm:
    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("harm-was-done", "w")


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_cifar10_pickled(tmp_path, 1)
    (tmp_path / "cifar-10-batches-py" / "data_batch_1").write_bytes(pickle.dumps({"data": _Harm()}))
    with pytest.raises(DamagedDataError, match="data_batch_1"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "harm-was-done").exists()


def _numbered(count: int) -> Images:
    return Images(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.arange(count))


def test_held_out_images_are_never_trained_on() -> None:
    dataset = Dataset("numbered", _numbered(6_000), _numbered(7))
    train, held_out = split(dataset, None, held_out=True)
    assert sorted(train.labels.tolist() + held_out.labels.tolist()) == list(range(6_000))
    assert len(held_out) == 5_000
    few, test = split(dataset, 100, held_out=False)
    assert torch.equal(few.labels, train.labels[:100])
    assert test is dataset.test


@pytest.mark.parametrize(("size", "held_out"), [(0, False), (6_001, False), (1_001, True)])
def test_more_images_than_there_are_is_an_error(size: int, held_out: bool) -> None:
    with pytest.raises(ValueError, match=f"{size} were asked for"):
        split(Dataset("numbered", _numbered(6_000), _numbered(7)), size, held_out)
