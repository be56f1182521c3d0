"""The speedrun's network and augmentation, the language model, and the packed data."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from experiments.datasets.batches import translate_and_alternate
from experiments.datasets.formats import DamagedDataError, Images
from experiments.datasets.load import load
from experiments.datasets.packed import (
    FOLDER,
    TEXT_FILES,
    main,
    pack_images,
    read_mosaics,
    read_text,
)
from experiments.language_model import LanguageModel
from experiments.speedrun_network import SpeedrunNetwork
from tests.experiments.dataset_files import write_cifar10_binary

FILES = 200


def images(count: int = 40) -> torch.Tensor:
    """Make images whose neighbours are alike, so that there is something to whiten."""
    noise = torch.randn(count, 3, 34, 34, generator=torch.Generator().manual_seed(0))
    return F.avg_pool2d(noise, 3, 1) * 2 + 0.3 * noise[:, :1, 1:-1, 1:-1]


def test_the_first_convolution_whitens_patches() -> None:
    x = images(200)
    net = SpeedrunNetwork(2, 10, x)
    out = net.whiten(x)
    assert out.shape == (200, 24, 31, 31)
    flat = out[:, :12].detach().double().transpose(0, 1).flatten(1)
    covariance = flat @ flat.T / flat.shape[1]
    torch.testing.assert_close(covariance, torch.eye(12, dtype=torch.float64), atol=0.06, rtol=0)
    torch.testing.assert_close(out[:, 12:], -out[:, :12])
    assert not net.whiten.weight.requires_grad


def test_hidden_convolutions_begin_as_partial_identities() -> None:
    net = SpeedrunNetwork(32, 10, images())
    convolutions = [m for m in net.blocks if isinstance(m, torch.nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [32, 32, 128, 128, 128, 128]
    for convolution in convolutions:
        x = torch.randn(1, convolution.in_channels, 5, 5)
        same = min(convolution.in_channels, convolution.out_channels)
        torch.testing.assert_close(convolution(x)[:, :same], x[:, :same])


def test_each_image_is_shifted_and_seen_both_ways_in_two_epochs() -> None:
    pixels = torch.arange(6 * 3 * 8 * 8, dtype=torch.int64).view(6, 3, 8, 8).remainder(251).to(torch.uint8)
    padded = F.pad(pixels.float(), (2, 2, 2, 2), mode="reflect").to(torch.uint8)
    seen = []
    for epoch in (1, 2):
        ways = []
        for image, wide in zip(translate_and_alternate(pixels, 5, epoch), padded, strict=True):
            windows = [wide[:, i : i + 8, j : j + 8] for i in range(5) for j in range(5)]
            straight = any(torch.equal(image, window) for window in windows)
            mirrored = any(torch.equal(image, window.flip(-1)) for window in windows)
            assert straight != mirrored
            ways.append(mirrored)
        seen.append(ways)
    assert [not way for way in seen[0]] == seen[1]
    assert len(set(seen[0])) == 2


def test_the_language_model_sees_the_past_alone() -> None:
    model = LanguageModel(16, 2, 12)
    tokens = torch.randint(256, (3, 12), generator=torch.Generator().manual_seed(2))
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 256
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A standard library of short files, which takes no time to compress, with packages and tests in it."""
    root = tmp_path / "library"
    for name in ("inner", "site-packages", "test", "inner/tests"):
        (root / name).mkdir(parents=True)
        (root / name / "left_out.py").write_text("left_out\n")
    (root / "inner" / "left_out.py").rename(root / "inner" / "left_out.txt")
    for number in range(FILES):
        folder = root / "inner" if number < FILES // 2 else root
        (folder / f"number_{number:03}.py").write_text(f"number_{number:03}\n")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(root))


@pytest.mark.usefixtures("library")
def test_packed_images_and_text_come_back_bit_for_bit(tmp_path: Path) -> None:
    write_cifar10_binary(tmp_path, 7)
    done = CliRunner().invoke(main, ["--data", str(tmp_path), "--out", str(tmp_path / "packed")])
    assert done.exit_code == 0, done.output
    expected = load("cifar10", tmp_path)
    both = tmp_path / "carried" / FOLDER
    both.mkdir(parents=True)
    for file in (tmp_path / "packed").rglob("*_batch*"):
        file.rename(both / file.name)
    found = load("cifar10", tmp_path / "carried")
    for name in ("train", "test"):
        assert torch.equal(getattr(found, name).pixels, getattr(expected, name).pixels)
        assert torch.equal(getattr(found, name).labels, getattr(expected, name).labels)
    assert sorted(file.name for file in (tmp_path / "packed" / "b").iterdir()) == sorted(TEXT_FILES)
    texts = [bytes(text.tolist()).decode().split() for text in read_text(tmp_path / "packed" / "b")]
    assert sorted(texts[0] + texts[1]) == [f"number_{n:03}" for n in range(FILES)]
    assert texts == [sorted(text) for text in texts]
    # About one file of twenty is chosen, which ones by their names: 10 of 200, give or take three deviations of 3.1.
    assert 1 <= len(texts[1]) <= 19


def test_a_mosaic_that_is_too_small_for_its_labels_is_refused(tmp_path: Path) -> None:
    some = Images(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64))
    more = Images(torch.zeros(9, 3, 32, 32, dtype=torch.uint8), torch.zeros(9, dtype=torch.int64))
    pack_images(more, tmp_path / "a.webp")
    labels = (tmp_path / "a.npy").read_bytes()
    pack_images(some, tmp_path / "a.webp")
    (tmp_path / "a.npy").write_bytes(labels)
    with pytest.raises(DamagedDataError, match="64×64, for 9 images"):
        read_mosaics([tmp_path / "a.webp"])
