"""Train runs on one data set: show progress, log every epoch, and skip what is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress

from experiments.datasets.load import load, split
from experiments.datasets.sources import DataSource, InMemorySource
from experiments.distributed import SINGLE_PROCESS, World
from experiments.progress import make_progress
from experiments.running.run_log import Run, RunLog, run_id
from experiments.training.checkpoints import Checkpoint
from experiments.training.config import RunConfig
from experiments.training.loop import train

__all__ = ["Runner"]


class Runner:
    """A data set on its device, and the log of what was trained on it.

    Args:
        source: The data.
        data: What to write about it into each line of the log. It decides a run as much as its settings do.
        out: Folder of the log ``epochs.jsonl`` and of the checkpoints, made if needed. All processes of ``world``
            read it, and the main process writes it.
        world: The processes that train together.
    """

    def __init__(
        self, source: DataSource, data: dict[str, object], out: Path, world: World = SINGLE_PROCESS
    ) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.source = source
        self.world = world
        self.data = data
        self.log = RunLog(out / "epochs.jsonl", data)
        self._checkpoints = out / "checkpoints"

    @classmethod
    def in_memory(
        cls,
        dataset: str,
        folder: Path,
        train_size: int | None,
        held_out: bool,
        out: Path,
        device: torch.device,
        test_size: int | None = None,
        world: World = SINGLE_PROCESS,
    ) -> Runner:
        """Make the runner of a data set that fits into memory.

        Args:
            dataset: A key of :data:`experiments.datasets.load.DATASETS`.
            folder: The data folder.
            train_size: Number of training images; None is all.
            held_out: Evaluate on training images that are set aside, instead of on the test images.
            out: As above.
            device: Device to train on.
            test_size: Number of images to evaluate on, the first ones; None is all.
            world: As above.

        Raises:
            MissingDataError: if the data set is not there.
            DamagedDataError: if the content of its files does not fit their format.
            ValueError: if it has fewer images.
        """
        whole = load(dataset, folder)
        images, test = split(whole, train_size, held_out)
        test = test[:test_size]
        data = {
            "dataset": dataset,
            "train_size": len(images),
            "test_size": len(test),
            "evaluated_on": "held-out images" if held_out else "test images",
        }
        return cls(InMemorySource.on_device(images, test, whole.classes, device), data, out, world)

    def run(self, configs: Sequence[RunConfig], console: Console) -> list[Run]:
        """Train the runs that the log does not hold completely. An interrupted run resumes after its last epoch.

        A progress bar is drawn on a terminal only.

        Returns:
            All of them, as logged.
        """
        with make_progress(console, unit="steps") as progress:
            for config in configs:
                if not self.log.run(config).complete:
                    self._run(config, progress)
        return [self.log.run(config) for config in configs]

    def _run(self, config: RunConfig, progress: Progress) -> None:
        checkpoint = Checkpoint(self._checkpoints / f"{run_id(self.data, config)}.pt")
        logged = len(self.log.run(config).epochs)
        if not logged and self.world.is_main:
            # The log is what counts. Where it was deleted, the training starts again.
            checkpoint.remove()
        self.world.barrier()
        steps = len(self.source) // config.batch_size
        name = f"{config.network} {config.method} seed {config.seed}"
        bar = progress.add_task(name, total=steps * config.epochs, completed=steps * logged)
        for epoch in train(config, self.source, lambda: progress.advance(bar), checkpoint, self.world):
            if self.world.is_main:
                self.log.append(config, epoch)
            score = f": {epoch.test_accuracy:.1f}" if epoch.evaluated else ""
            progress.update(bar, completed=steps * epoch.epoch, description=f"{name}{score}")
        if self.world.is_main:
            checkpoint.remove()
        self.world.barrier()
