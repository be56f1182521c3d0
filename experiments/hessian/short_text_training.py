"""Train the small byte language model for a few hundred steps of AdamW, so that its Hessian can be measured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from experiments.datasets.packed import read_text
from experiments.training.muon_channelwise import prepare_linears
from experiments.visits.scales import CORE_TASKS
from experiments.visits.text import TextData, language_model, next_byte, text_batches
from sgdph_fx import Prepared

__all__ = ["ShortTextTraining"]

SEED, NEW_SEED = 0, 1
LR = 3e-3
MANY = 1000


class ShortTextTraining:
    """The language model of the visit to one core, its linear layers decoupled, trained by AdamW while you iterate.

    Args:
        folder: Folder of the packed text.
    """

    def __init__(self, folder: Path) -> None:
        self._task = CORE_TASKS["language"]
        self._data = TextData(*read_text(folder), held_out=True, device=torch.device("cpu"))
        example = self._data.train[: 2 * self._task.context].view(2, self._task.context).long()
        model, groups = prepare_linears(language_model(self._task, self._data, SEED), example)
        self.prepared = Prepared(model, groups, None)  # type: ignore[arg-type]  # nothing here reads the plan
        self.loss_fn = next_byte

    def steps(self, count: int) -> Iterator[float]:
        """Take ``count`` steps; yield the loss of each."""
        optimizer = torch.optim.AdamW(self.prepared.model.parameters(), lr=LR)
        for inputs, targets in text_batches(self._task, self._data, SEED, count):
            optimizer.zero_grad()
            loss = next_byte(self.prepared.model(inputs), targets)
            torch.autograd.backward(loss)
            optimizer.step()
            yield loss.item()

    def new_batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Give batches of ``size`` sequences of the training text that are not the training's own."""
        return text_batches(replace(self._task, batch_size=size), self._data, NEW_SEED, MANY)
