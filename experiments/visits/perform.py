"""Do one job on one device: a trial, a run that counts, a measurement of alignment, or of time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from experiments.alignment import Alignment, measure
from experiments.datasets.batches import plain_batches
from experiments.datasets.burgers import BurgersSource
from experiments.datasets.load import Dataset, load, split
from experiments.datasets.packed import read_text
from experiments.datasets.sources import Batch
from experiments.training.methods import METHODS, Setup
from experiments.visits.captured import Step, make_step
from experiments.visits.contenders import CONTENDERS, TRIALS, Contender
from experiments.visits.equation import equation_batches, equation_step, train_equation
from experiments.visits.images import ImageData, epoch_batches, network, train_images
from experiments.visits.jobs import Job
from experiments.visits.tasks import Task
from experiments.visits.text import TextData, language_model, next_byte, text_batches, train_text
from sgdph_fx import Prepared

__all__ = ["Laboratory"]

TRIAL_SEED = 1000
ALIGNMENT_STEPS = (0, 10, 30, 100, 300, 1000)
ALIGNMENT_IMAGES = 128
TIMED_STEPS = 50
TIMED_BATCHES = 4


class Laboratory:
    """Data on one device, read when first needed, and the jobs done with it.

    Args:
        data: Folder with ``cifar-10-packed``, or another form of CIFAR-10, and the packed text.
        device: The device.
    """

    def __init__(self, data: Path, device: torch.device) -> None:
        self._folder, self._device = data, device
        self._dataset: Dataset | None = None
        self._cache: dict[tuple[int | None, bool], ImageData] = {}
        self._texts: dict[bool, TextData] = {}

    def perform(self, job: Job, task: Task, settings: dict[str, float]) -> dict[str, Any]:
        """Do the job, and give the numbers of its row."""
        started = time.perf_counter()
        actions: dict[str, Callable[[Job, Task, dict[str, float]], dict[str, Any]]] = {
            "trial": self._train,
            "seed": self._train,
            "alignment": self._alignment,
            "timing": self._timing,
        }
        with warnings.catch_warnings():
            # Muon steps views of the weights, so SGDPH cannot see that they are held.
            warnings.filterwarnings("ignore", "The loss reaches trainable parameters")
            warnings.filterwarnings("ignore", "This instance was constructed with capturable")
            found = actions[job.phase](job, task, settings)
        return {**found, "seconds": time.perf_counter() - started, "length": task.length}

    def images(self, task: Task, held_out: bool) -> ImageData:
        """Give the images of a task on the device."""
        key = task.train_size, held_out
        if key not in self._cache:
            if self._dataset is None:
                self._dataset = load("cifar10", self._folder)
            self._cache[key] = ImageData(*split(self._dataset, task.train_size, held_out), self._device)
        return self._cache[key]

    def text(self, held_out: bool) -> TextData:
        """Give the text on the device."""
        if held_out not in self._texts:
            self._texts[held_out] = TextData(*read_text(self._folder), held_out, self._device)
        return self._texts[held_out]

    def equation(self, task: Task, held_out: bool) -> BurgersSource:
        """Give the points of an equation on the device; an epoch of them is one batch."""
        return BurgersSource(task.batch_size, None, held_out, self._device)

    def _train(self, job: Job, task: Task, settings: dict[str, float]) -> dict[str, Any]:
        contender, trial = CONTENDERS[job.contender], job.phase == "trial"
        seed = TRIAL_SEED + job.number // TRIALS if trial else job.number
        length = task.trial_length if trial else task.length
        if contender.equal_time:
            length = round(length * task.time_ratio)
        options = dict(contender.options)
        if task.is_text:
            return train_text(task, contender.method, settings, options, self.text(trial), seed, length)
        if task.is_equation:
            return train_equation(
                task, contender.method, settings, options, self.equation(task, trial), seed, length
            )
        return train_images(task, contender.method, settings, options, self.images(task, trial), seed, length)

    def _alignment(self, job: Job, task: Task, settings: dict[str, float]) -> dict[str, Any]:
        """Train by SGD-PH, and compare H·1 with −g on the way, for the task's network in its published width."""
        data = self.images(task, held_out=False)
        inputs, labels = next(plain_batches(data.train, ALIGNMENT_IMAGES, data.standardizer))
        found: list[Alignment] = []

        def look(step: int, setup: Setup) -> None:
            if step in ALIGNMENT_STEPS:
                prepared = Prepared(setup.model, setup.optimizer.param_groups, None)  # type: ignore[arg-type]
                found.extend(measure(prepared, inputs, labels, step))

        wide = replace(task, width=max(64, task.width) if task.width >= 16 else task.width)
        trained = train_images(wide, "sgd-ph", settings, {}, data, job.number, task.length, look)
        return {**trained, "alignment": [asdict(each) for each in found]}

    def _timing(self, job: Job, task: Task, settings: dict[str, float]) -> dict[str, Any]:
        """Measure a step once all graphs are recorded. Batches are made beforehand."""
        batches, setup, step = self._timed(CONTENDERS[job.contender], task, settings)
        due = sum(len(g["params"]) for g in setup.optimizer.param_groups if g.get("order") == 2)
        for number in range(2 * due + 6):
            step(*batches[number % len(batches)])
        started = self._now()
        for number in range(TIMED_STEPS):
            step(*batches[number % len(batches)])
        return {"milliseconds": 1000 * (self._now() - started) / TIMED_STEPS}

    def _timed(
        self, contender: Contender, task: Task, settings: dict[str, float]
    ) -> tuple[list[Batch], Setup, Step]:
        """Give batches, the network with its optimizer, and the step."""
        make, options = METHODS[contender.method], dict(contender.options)
        if task.is_equation:
            points = self.equation(task, held_out=False)
            setup, step = equation_step(task, contender.method, settings, options, points, 0)
            return equation_batches(points, 0, TIMED_BATCHES), setup, step
        if task.is_text:
            text = self.text(held_out=False)
            batches = list(text_batches(task, text, 0, TIMED_BATCHES))
            setup = make(language_model(task, text, 0), batches[0][0], **settings, **options)
            return batches, setup, make_step(setup, next_byte, text.autocast)
        images = self.images(task, held_out=False)
        example = images.standardizer(images.train.pixels[:8])
        setup = make(network(task, images, 0), example, **settings, **options)
        batches = list(islice(epoch_batches(task, images, 0, 1), TIMED_BATCHES))
        return batches, setup, make_step(setup, cross_entropy, images.autocast)

    def _now(self) -> float:
        """Give the time: on a processor its own, which leaves out other programs."""
        if self._device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(self._device)
        return time.perf_counter()
