"""Running recipes one after another: progress shown, every epoch logged, what is done not done again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from experiments.checkpoints import Checkpoint
from experiments.data import load, split
from experiments.records import Log, Run
from experiments.tasks import Feed, Task
from experiments.team import ALONE, Team
from experiments.training import Recipe, train

__all__ = ["Bench"]


class Bench:
    """Images on their device, and the log of what was trained on them.

    Args:
        task: The images.
        images: What to write of them into each line of the log; it decides a run as much as its recipe.
        out: Folder of the log ``epochs.jsonl`` and of the checkpoints; made if it is not there. Of a team all
            read it, and the leading process writes.
        team: The processes that train together.
    """

    def __init__(self, task: Feed, images: dict[str, object], out: Path, team: Team = ALONE) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.task = task
        self.team = team
        self.images = images
        self.log = Log(out / "epochs.jsonl", images)
        self._checkpoints = out / "checkpoints"

    @classmethod
    def in_memory(
        cls,
        dataset: str,
        data: Path,
        train_size: int | None,
        held_out: bool,
        out: Path,
        device: torch.device,
        test_size: int | None = None,
        team: Team = ALONE,
    ) -> Bench:
        """The bench of a data set that is held whole in memory.

        Args:
            dataset: A key of :data:`experiments.data.DATASETS`.
            data: The folder that holds it.
            train_size: Number of training images; None is all.
            held_out: Judge by training images set aside instead of the test images.
            out: As above.
            device: Where to train.
            test_size: Number of images to judge by, the first ones; None is all.
            team: As above.

        Raises:
            MissingDataError: if the data set is not there.
            DamagedDataError: if its files are not what they should be.
            ValueError: if it has not so many images.
        """
        whole = load(dataset, data)
        images, test = split(whole, train_size, held_out)
        test = test[:test_size]
        described = {
            "dataset": dataset,
            "train_size": len(images),
            "test_size": len(test),
            "judged_by": "held-out images" if held_out else "test images",
        }
        return cls(Task.of(images, test, whole.classes, device), described, out, team)

    def run(self, recipes: Sequence[Recipe], console: Console) -> list[Run]:
        """Run those recipes that the log does not hold whole; a broken-off one goes on after its last epoch.

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
        checkpoint = self._checkpoint(recipe)
        logged = len(self.log.run(recipe).epochs)
        if not logged and self.team.leads:
            # The log is what counts: where it was taken away, the training begins anew.
            checkpoint.remove()
        self.team.wait()
        steps = len(self.task) // recipe.batch_size
        name = f"{recipe.network} {recipe.system} seed {recipe.seed}"
        bar = progress.add_task(name, total=steps * recipe.epochs, completed=steps * logged)
        for epoch in train(recipe, self.task, lambda: progress.advance(bar), checkpoint, self.team):
            if self.team.leads:
                self.log.append(recipe, epoch)
            accuracy = f": {epoch.test_accuracy:.1f}%" if epoch.judged else ""
            progress.update(bar, completed=steps * epoch.epoch, description=f"{name}{accuracy}")
        if self.team.leads:
            checkpoint.remove()
        self.team.wait()

    def _checkpoint(self, recipe: Recipe) -> Checkpoint:
        what = json.dumps([self.images, asdict(recipe)], sort_keys=True)
        return Checkpoint(self._checkpoints / f"{hashlib.sha256(what.encode()).hexdigest()[:20]}.pt")
