"""The log of a set of runs: one JSON line for each epoch, appended, and read again when runs resume."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from dataclasses import MISSING, asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from experiments.files import append_line
from experiments.training.config import RunConfig
from experiments.training.metrics import EpochMetrics

__all__ = ["Run", "RunLog", "run_id"]

OLD_NAMES = {"method": "system", "eval_every": "judge_every", "evaluated_on": "judged_by"}
"""Names of today → those in logs and checkpoints from before they were renamed."""

# Fields that came later. At their defaults they leave a run's identity as it was before.
LATER = ("precision",)


@dataclass(frozen=True, slots=True)
class Run:
    """A run's settings and its epochs, in order."""

    config: RunConfig
    epochs: tuple[EpochMetrics, ...]

    @property
    def complete(self) -> bool:
        """Whether it has ended, or diverged."""
        return bool(self.epochs) and (len(self.epochs) == self.config.epochs or self.epochs[-1].diverged)


@dataclass(frozen=True, slots=True)
class RunLog:
    """A file of JSON lines. Each holds a run's settings, one epoch of it, and the data that it is about.

    Several processes may append to one file.

    Args:
        file: The file. Its folder must exist.
        data: What else decides the runs: the data set and how many of its samples. Lines about other data are
            skipped, so one file can hold several kinds.
    """

    file: Path
    data: dict[str, Any]

    def append(self, config: RunConfig, epoch: EpochMetrics) -> None:
        """Write one line. A number that is not finite becomes null."""
        record = {**self.data, **asdict(config), **asdict(epoch)}
        line = json.dumps({key: _finite_or_none(value) for key, value in record.items()})
        append_line(self.file, line)

    def run(self, config: RunConfig) -> Run:
        """Read what is logged of a run. If it was started again from the beginning, the last attempt counts."""
        epochs: list[EpochMetrics] = []
        for logged, line in self._lines():
            if logged == config and self.data.items() <= line.items():
                epoch = _epoch(line)
                epochs = [*epochs[: epoch.epoch - 1], epoch]
        return Run(config, tuple(epochs))

    def _lines(self) -> tuple[tuple[RunConfig, dict[str, Any]], ...]:
        if not self.file.exists():
            return ()
        stamp = self.file.stat()
        return _parsed(self.file, stamp.st_size, stamp.st_mtime_ns)


def run_id(data: dict[str, Any], config: RunConfig) -> str:
    """Give a run a name for its checkpoint. It stays the same over renamed and added settings.

    Args:
        data: What else decides the run, as in :class:`RunLog`.
        config: The run.
    """
    defaults = {field.name: field.default for field in fields(RunConfig) if field.default is not MISSING}
    settings = {
        OLD_NAMES.get(name, name): value
        for name, value in asdict(config).items()
        if name not in LATER or value != defaults[name]
    }
    described = {OLD_NAMES.get(name, name): value for name, value in data.items()}
    text = json.dumps([described, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@lru_cache(maxsize=4)
def _parsed(file: Path, size: int, modified: int) -> tuple[tuple[RunConfig, dict[str, Any]], ...]:
    """Parse the file once for each state of it: every run asks for it, and a long log takes seconds to read.

    Returns:
        The settings of each line's run, and the line.
    """
    new_names = {old: new for new, old in OLD_NAMES.items()}
    lines = []
    for text in file.read_text(encoding="utf-8").splitlines():
        # A killed run may have left half a line. Its epoch counts as not done.
        with contextlib.suppress(json.JSONDecodeError):
            line: dict[str, Any] = json.loads(text)
            renamed = {new_names.get(name, name): value for name, value in line.items()}
            lines.append((_config(renamed), renamed))
    return tuple(lines)


def _config(line: dict[str, Any]) -> RunConfig:
    """Read a run's settings. Fields that the line is too old to have get their defaults."""
    return RunConfig(**{field.name: line[field.name] for field in fields(RunConfig) if field.name in line})


def _epoch(line: dict[str, Any]) -> EpochMetrics:
    found: dict[str, Any] = {field.name: line.get(field.name) for field in fields(EpochMetrics)}
    numbers: dict[str, Any] = {name: math.nan if number is None else number for name, number in found.items()}
    return EpochMetrics(**numbers)


def _finite_or_none(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
