"""CIFAR-10 and a text, packed without loss, so that they are small enough to carry to a machine without a network.

``python -m experiments.datasets.packed --data data --out packed`` writes two folders of similar size, so that each can
travel by itself. :func:`experiments.datasets.load.load` finds the images where both are copied into one folder
``cifar-10-packed``.
"""

from __future__ import annotations

import hashlib
import lzma
import math
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from experiments.datasets.formats import DamagedDataError, Images, read_binary

__all__ = ["FOLDER", "TEXT_FILES", "main", "pack_images", "read_mosaics", "read_text", "standard_library"]

FOLDER = "cifar-10-packed"
TEXT_FILES = ("train.txt.xz", "validation.txt.xz")
PARTS = {
    "a": ("data_batch_1", "data_batch_2", "data_batch_3"),
    "b": ("data_batch_4", "data_batch_5", "test_batch"),
}
SIDE = 32
VALIDATION_SHARE = 20


def pack_images(images: Images, file: Path) -> None:
    """Write images as one lossless WebP mosaic, and their labels beside it as ``.npy``.

    Args:
        images: ``(N, 3, 32, 32)``, on the CPU.
        file: The mosaic's file, ending in ``.webp``.
    """
    count = len(images)
    across = math.isqrt(count - 1) + 1
    tiles = np.zeros((across * across, SIDE, SIDE, 3), np.uint8)
    tiles[:count] = images.pixels.permute(0, 2, 3, 1).numpy()
    mosaic = (
        tiles.reshape(across, across, SIDE, SIDE, 3).swapaxes(1, 2).reshape(across * SIDE, across * SIDE, 3)
    )
    Image.fromarray(mosaic).save(file, lossless=True, quality=60, method=4)
    np.save(file.with_suffix(".npy"), images.labels.numpy().astype(np.uint8))


def read_mosaics(files: Sequence[Path]) -> Images:
    """Read what :func:`pack_images` wrote, bit for bit.

    Raises:
        DamagedDataError: if a mosaic is not square, or too small for its labels.
    """
    parts = [_read_mosaic(file) for file in files]
    return Images(torch.cat([p.pixels for p in parts]), torch.cat([p.labels for p in parts]))


def _read_mosaic(file: Path) -> Images:
    labels = torch.from_numpy(np.load(file.with_suffix(".npy")).astype(np.int64))
    with Image.open(file) as opened:
        mosaic = np.asarray(opened.convert("RGB"))
    across = mosaic.shape[0] // SIDE
    if mosaic.shape[:2] != (across * SIDE, across * SIDE) or across * across < len(labels):
        raise DamagedDataError(f"{file} is {mosaic.shape[1]}×{mosaic.shape[0]}, for {len(labels)} images.")
    tiles = mosaic.reshape(across, SIDE, across, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    pixels = torch.from_numpy(tiles[: len(labels)].copy()).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, labels)


def standard_library() -> tuple[bytes, bytes]:
    """Give the sources of this Python's standard library as text, under the PSF licence.

    Returns:
        Text to train on, and text to evaluate on: about one file of twenty, chosen by a hash of its name.
    """
    root = Path(sysconfig.get_path("stdlib"))
    texts: tuple[list[bytes], list[bytes]] = [], []
    for file in sorted(root.rglob("*.py")):
        name = file.relative_to(root)
        if not {"site-packages", "dist-packages", "test", "tests", "idle_test"} & set(name.parts):
            chosen = hashlib.sha256(name.as_posix().encode()).digest()[0] * VALIDATION_SHARE < 256
            texts[chosen].append(file.read_bytes())
    return b"\n".join(texts[0]), b"\n".join(texts[1])


def read_text(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Read the packed text.

    Returns:
        Bytes to train on and bytes to evaluate on, ``(N,)`` uint8.
    """
    train, validation = (lzma.decompress((folder / name).read_bytes()) for name in TEXT_FILES)
    return _bytes(train), _bytes(validation)


def _bytes(text: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


@click.command(help="Pack CIFAR-10 and the standard library's text without loss, in two folders.")
@click.option("--data", type=click.Path(path_type=Path), default=Path("data"), show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(data: Path, out: Path) -> None:
    """Write the folders ``a`` and ``b``."""
    for part, batches in PARTS.items():
        (out / part).mkdir(parents=True, exist_ok=True)
        for batch in batches:
            images = read_binary([data / "cifar-10-batches-bin" / f"{batch}.bin"])
            pack_images(images, out / part / f"{batch}.webp")
    for name, text in zip(TEXT_FILES, standard_library(), strict=True):
        (out / "b" / name).write_bytes(lzma.compress(text, preset=9))
    for file in sorted(out.rglob("*.*")):
        click.echo(f"{file} {file.stat().st_size}")


if __name__ == "__main__":
    main()
