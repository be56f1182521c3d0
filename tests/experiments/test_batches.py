"""Batches: crops and mirrors are found again by search; order and standardization follow their definitions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from experiments.datasets.batches import Standardizer, augmented_batches, crop_and_flip, plain_batches
from experiments.datasets.formats import Images


def _random_images(count: int, channels: int = 3, size: int = 8) -> Images:
    generator = torch.Generator().manual_seed(7)
    pixels = torch.randint(256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    return Images(pixels, torch.arange(count))


def _window(image: Tensor, top: int, left: int, mirrored: bool) -> Tensor:
    padded = np.pad(image.numpy(), ((0, 0), (4, 4), (4, 4)))
    crop = padded[:, top : top + image.shape[1], left : left + image.shape[2]]
    return torch.from_numpy(crop[:, :, ::-1].copy() if mirrored else crop.copy())


def test_each_output_is_a_window_of_its_own_padded_image_and_all_windows_occur() -> None:
    images = _random_images(1).pixels.expand(3_000, -1, -1, -1)
    outputs = crop_and_flip(images, torch.Generator().manual_seed(0))
    windows = {
        _window(images[0], top, left, mirrored).numpy().tobytes(): (top, left, mirrored)
        for top in range(9)
        for left in range(9)
        for mirrored in (False, True)
    }
    found = [windows[output.numpy().tobytes()] for output in outputs]
    assert {(top, left) for top, left, _ in found} == {(top, left) for top in range(9) for left in range(9)}
    # Five standard deviations of 3,000 tosses of a fair coin.
    assert abs(sum(mirrored for *_, mirrored in found) - 1_500) < 5 * (3_000 / 4) ** 0.5


def test_images_of_a_batch_are_not_mixed() -> None:
    images = _random_images(50).pixels
    for image, output in zip(images, crop_and_flip(images, torch.Generator().manual_seed(1)), strict=True):
        assert any(
            torch.equal(output, _window(image, top, left, mirrored))
            for top in range(9)
            for left in range(9)
            for mirrored in (False, True)
        )


def test_an_epoch_takes_each_image_once_in_an_order_of_its_own() -> None:
    images = _random_images(40)
    standardizer = Standardizer.from_images(images)
    orders = [
        torch.cat([labels for _, labels in augmented_batches(images, 10, standardizer, seed, epoch)]).tolist()
        for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
    ]
    assert all(sorted(order) == list(range(40)) for order in orders)
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


def test_batches_do_not_depend_on_the_global_random_state() -> None:
    images = _random_images(20)
    standardizer = Standardizer.from_images(images)
    torch.manual_seed(1)
    once = [inputs for inputs, _ in augmented_batches(images, 8, standardizer, 3, 4)]
    torch.manual_seed(2)
    again = [inputs for inputs, _ in augmented_batches(images, 8, standardizer, 3, 4)]
    assert len(once) == 2
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def test_standardized_pixels_have_mean_0_and_deviation_1() -> None:
    images = _random_images(64)
    batches = list(plain_batches(images, 24, Standardizer.from_images(images)))
    assert [len(labels) for _, labels in batches] == [24, 24, 16]
    channels = torch.cat([inputs for inputs, _ in batches]).double().numpy()
    assert np.abs(channels.mean(axis=(0, 2, 3))).max() < 1e-6
    assert np.abs(channels.std(axis=(0, 2, 3)) - 1).max() < 1e-6
