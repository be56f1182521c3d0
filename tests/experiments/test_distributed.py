"""Two processes under torchrun, against one: the same batches and gradients, and the same numbers but for rounding."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from experiments.datasets.image_file_source import ImageFileSource
from experiments.datasets.image_files import find
from experiments.datasets.sources import DataSource
from experiments.distributed import World
from experiments.training.config import RunConfig
from experiments.training.loop import train
from experiments.training.methods import METHODS
from sgdph_fx import SGDPH
from tests.experiments.dataset_files import write_cifar100, write_image_folder
from tests.experiments.test_training import tiny_task

ROOT = Path(__file__).parents[2]
TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "experiments"]

# Without batch norm, whose statistics would be those of each process's own part.
TOGETHER = ["vgg19/sgdm", "vgg19/sgdm-wn"]
if "process_group" in inspect.signature(SGDPH).parameters:
    TOGETHER.append("vgg19/sgd-ph-wn")


def _run(folder: Path, out: str, *module: str) -> list[dict[str, float]]:
    cells = [word for cell in TOGETHER for word in ("--only", cell)]
    options = ["--scale", "smoke", "--device", "cpu", "--threads", "1", "--data", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *module, "table4", *options, *cells, "--out", str(folder / out)]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in (folder / out / "epochs.jsonl").read_text().splitlines()]


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    write_cifar100(tmp_path, 64, pickled=False)
    alone, together = _run(tmp_path, "alone", "experiments"), _run(tmp_path, "together", *TORCHRUN)
    assert len(alone) == len(TOGETHER)
    for one, two in zip(alone, together, strict=True):
        assert two["train_accuracy"] == one["train_accuracy"]
        for loss in ("train_loss", "test_loss"):
            assert two[loss] == pytest.approx(one[loss], rel=1e-4)


def _parts(feed: DataSource, world: World) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(feed.train_batches(8, 3, 1, world))


def test_parts_of_a_batch_are_the_batch(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write_image_folder(tmp_path / "imagenet" / part, [f"n{k}" for k in range(10)], 2)
    files = ImageFileSource(find("imagenet", tmp_path), 16, 0, torch.device("cpu"))
    for feed in (tiny_task(), files):
        whole = _parts(feed, World())
        first, second = (_parts(feed, World(rank, 2)) for rank in range(2))
        assert len(whole) == len(first) == len(second) == len(feed) // 8
        for (inputs, labels), (a, a_labels), (b, b_labels) in zip(whole, first, second, strict=True):
            assert torch.equal(torch.stack([a, b], 1).flatten(0, 1), inputs)
            assert Counter(labels.tolist()) == Counter(a_labels.tolist() + b_labels.tolist())


@pytest.mark.parametrize(
    ("method", "batch", "words"), [("sgdm", 9, "batches of 9"), ("adahessian", 8, "AdaHessian")]
)
def test_work_that_processes_cannot_share_is_refused(method: str, batch: int, words: str) -> None:
    assert method in METHODS
    recipe = RunConfig("vgg11", 8, method, 0.1, 0.0, epochs=1, batch_size=batch)
    with pytest.raises(ValueError, match=words):
        next(train(recipe, tiny_task(), world=World(0, 2)))
