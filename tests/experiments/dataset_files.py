"""Write small files in the published formats, byte by byte."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

Bytes = npt.NDArray[np.uint8]
Batches = list[tuple[Bytes, list[int]]]

CIFAR10_NAMES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


def some_images(count: int, shape: tuple[int, ...], seed: int) -> tuple[Bytes, list[int]]:
    """Make random pixels ``(count, *shape)``, and labels that run through all ten classes."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
    return pixels, [k % 10 for k in range(count)]


def smallest_training(root: Path) -> list[str]:
    """Write images, and give the options that train the narrowest ResNet-18 on them for two steps."""
    write_cifar10_binary(root, 8)
    folders = ["--data", str(root), "--out", str(root / "out")]
    return [*folders, "--network", "resnet18", "--width", "1", "--steps", "2"]


def write_cifar10_binary(root: Path, count: int) -> Batches:
    """Write six batches of ``count`` records in the layout of cifar-10-binary.tar.gz, and return their content."""
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    batches = [some_images(count, (3, 32, 32), seed) for seed in range(6)]
    for name, (pixels, labels) in zip(CIFAR10_NAMES, batches, strict=True):
        records = (bytes([label]) + image.tobytes() for image, label in zip(pixels, labels, strict=True))
        (folder / f"{name}.bin").write_bytes(b"".join(records))
    return batches


def write_cifar10_pickled(root: Path, count: int) -> Batches:
    """Write six batches in the layout of cifar-10-python.tar.gz, pickled as by Python 2."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batches = [some_images(count, (3, 32, 32), seed) for seed in range(6)]
    for name, (pixels, labels) in zip(CIFAR10_NAMES, batches, strict=True):
        (folder / name).write_bytes(python2_batch(pixels.reshape(count, 3072), labels))
    return batches


def python2_batch(data: Bytes, labels: list[int], key: bytes = b"labels") -> bytes:
    """Give what ``cPickle.dumps({"data": data, key: labels}, 2)`` of Python 2 gives: its strings are bytes."""
    rows, columns = data.shape
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    shape = b"M" + struct.pack("<H", rows) + b"M" + struct.pack("<H", columns) + b"\x86"
    content = b"T" + struct.pack("<I", data.size) + data.tobytes()
    array = empty + b"(K\x01" + shape + dtype + b"\x89" + content + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + b"U\x04data" + array + b"U" + bytes([len(key)]) + key + numbers + b"u."


def write_fashion_mnist(folder: Path, count: int, packed: bool = True) -> Batches:
    """Write the four IDX files, ``count`` images in each half, and return their content."""
    folder.mkdir(parents=True)
    halves = [some_images(count, (28, 28), seed) for seed in range(2)]
    for name, (pixels, labels) in zip(("train", "t10k"), halves, strict=True):
        images = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28) + pixels.tobytes()
        targets = struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(labels)
        for kind, content in ((f"{name}-images-idx3-ubyte", images), (f"{name}-labels-idx1-ubyte", targets)):
            if packed:
                (folder / f"{kind}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / kind).write_bytes(content)
    return halves


def write_cifar100(root: Path, count: int, pickled: bool) -> Batches:
    """Write both halves in the layout of cifar-100-binary.tar.gz or its Python version; fine labels start at 90."""
    folder = root / ("cifar-100-python" if pickled else "cifar-100-binary")
    folder.mkdir(parents=True)
    halves = [(pixels, [90 + k for k in labels]) for pixels, labels in _two_halves(count)]
    for name, (pixels, labels) in zip(("train", "test"), halves, strict=True):
        if pickled:
            batch = python2_batch(pixels.reshape(count, 3072), labels, b"fine_labels")
            (folder / name).write_bytes(batch)
        else:
            records = (bytes((3, k)) + image.tobytes() for image, k in zip(pixels, labels, strict=True))
            (folder / f"{name}.bin").write_bytes(b"".join(records))
    return halves


def write_image_folder(folder: Path, classes: Sequence[str], count: int) -> None:
    """Write ``count`` JPEG files of noise for each class, of different sizes."""
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for n in range(count):
            write_jpeg(folder / name / f"{name}_{n}.JPEG", seed=100 * k + n)


def write_ravi_split(folder: Path, classes: Sequence[str], count: int) -> list[tuple[str, str]]:
    """Write Mini-ImageNet as Ravi and Larochelle split it: each third of the classes has its own CSV file."""
    (folder / "images").mkdir(parents=True)
    listed: list[tuple[str, str]] = []
    for split, part in zip(("train", "val", "test"), np.array_split(np.array(classes), 3), strict=True):
        files = [(f"{name}{n:05d}.jpg", str(name)) for name in part for n in range(count)]
        lines = ["filename,label", *(",".join(line) for line in files)]
        (folder / f"{split}.csv").write_text("\n".join(lines) + "\n")
        listed += files
    for seed, (file, _) in enumerate(listed):
        write_jpeg(folder / "images" / file, seed)
    return listed


def write_jpeg(file: Path, seed: int) -> None:
    """Write noise of 20 to 29 pixels a side."""
    generator = np.random.default_rng(seed)
    height, width = generator.integers(20, 30, 2)
    Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file, "JPEG")


def _two_halves(count: int) -> Batches:
    return [some_images(count, (3, 32, 32), seed) for seed in range(2)]
