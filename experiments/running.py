"""Running recipes one after another: progress shown, every epoch logged, what is done not done again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.data import load, split
from experiments.records import Log, Run
from experiments.tasks import Task
from experiments.training import Recipe, train

__all__ = ["Bench"]


class Bench:
    """The images on their device, and the log of what was trained on them.

    Args:
        dataset: A key of :data:`experiments.data.DATASETS`.
        data: The folder that holds it.
        train_size: Number of training images; None is all.
        held_out: Judge by training images set aside instead of the test images.
        out: Folder of the log ``epochs.jsonl``; made if it is not there.
        device: Where to train.

    Raises:
        MissingDataError: if the data set is not there.
        DamagedDataError: if its files are not what they should be.
        ValueError: if it has not so many images.
    """

    def __init__(
        self,
        dataset: str,
        data: Path,
        train_size: int | None,
        held_out: bool,
        out: Path,
        device: torch.device,
    ) -> None:
        whole = load(dataset, data)
        images, test = split(whole, train_size, held_out)
        self.task = Task.of(images, test, whole.classes, device)
        self.images = {
            "dataset": dataset,
            "train_size": len(images),
            "judged_by": "held-out images" if held_out else "test images",
        }
        out.mkdir(parents=True, exist_ok=True)
        self.log = Log(out / "epochs.jsonl", self.images)

    def run(self, recipes: Sequence[Recipe], console: Console) -> list[Run]:
        """Run those recipes that the log does not hold whole; a broken-off one starts anew.

        The bar is drawn only on a terminal; a pipe gets none.

        Returns:
            All of them, as logged.
        """
        progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        with progress:
            for recipe in recipes:
                if not self.log.run(recipe).complete:
                    self._run(recipe, progress)
        return [self.log.run(recipe) for recipe in recipes]

    def _run(self, recipe: Recipe, progress: Progress) -> None:
        steps = len(self.task.train) // recipe.batch_size * recipe.epochs
        name = f"{recipe.network} {recipe.system} seed {recipe.seed}"
        bar = progress.add_task(name, total=steps)
        for epoch in train(recipe, self.task, lambda: progress.advance(bar)):
            self.log.append(recipe, epoch)
            progress.update(bar, description=f"{name}: {epoch.test_accuracy:.1f}%")
