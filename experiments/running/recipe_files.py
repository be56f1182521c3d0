"""Read recipe files: TOML that describes the runs of one table or figure, with the paper's numbers.

A file has ``title``, ``source``, ``notes`` and ``seeds``. ``[base]``, ``[[rows]]`` and ``[[columns]]`` give the
settings of a run: the fields of :class:`experiments.training.config.RunConfig`, with ``dataset``, ``train_size``,
``test_size`` and ``pixels``. A column overrides its row, a row overrides the base, and a scale overrides all.

- ``[rows.columns.KEY]`` overrides the column KEY in one row.
- ``epochs_factor`` multiplies the epochs, for comparisons at equal time.
- Rows may hold ``paper``: column → ``[mean, deviation]``, or ``[mean]`` where the paper prints no deviation.
- ``[tuning]`` describes a search, and a column's ``grid`` what it searches: names of settings → values to try.
  ``grid_lr_scale`` multiplies the grid's learning rates, for a whole row; τ_SO is a factor and not multiplied.
- ``tuned_as`` names the column of the same row whose best settings a column takes.
- ``[comparisons]`` lists the pairs of columns whose difference is reported, by the part of the page.
- ``same_runs_as`` names the file whose runs a figure draws.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from experiments.training.config import RunConfig

__all__ = ["SCALES", "Cell", "DataConfig", "Experiment", "Tuning", "read_recipe", "recipe_names"]

FOLDER = Path(__file__).parents[1] / "recipes"

SMOKE = {
    "epochs": 1,
    "train_size": 64,
    "test_size": 64,
    "width": 8,
    "batch_size": 16,
    "decay_every": None,
    "seeds": 1,
}
SHORT = {"epochs": 30, "decay_every": None}

SCALES: dict[str, dict[str, Any]] = {"smoke": SMOKE, "short": SHORT, "full": {}}
"""What a scale puts in place of the recipe's settings. ``[scales.NAME]`` in a file overrides it."""


@dataclass(frozen=True, slots=True)
class DataConfig:
    """The data of a run.

    Args:
        dataset: A key of :data:`experiments.datasets.load.DATASETS` or
            :data:`experiments.datasets.image_files.IMAGE_SETS`, or ``"burgers"``.
        train_size: Number of training samples; None is all.
        test_size: Number of samples to evaluate on; None is all.
        pixels: Height and width of image files' images; data sets in memory have their own.
    """

    dataset: str
    train_size: int | None = None
    test_size: int | None = None
    pixels: int = 224


@dataclass(frozen=True, slots=True)
class Tuning:
    """A search over settings, evaluated on training data that is held out.

    Args:
        epochs: Epochs of each trial.
        seed: Seed of each trial. No run of the table may have it.
    """

    epochs: int
    seed: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the table: a column in a row.

    Args:
        row: The row's key.
        column: The column's key.
        data: The data of its runs.
        config: The run with seed 0, before tuning if there is a grid.
        paper: The paper's mean and deviation in percent. Empty if it has no number; one number if it prints no
            deviation.
        grid: The settings to try, each a mapping of names to values. Empty if the settings are given.
        tuned_as: The column of the same row whose best settings it takes; empty for its own.
        priority: Cells with a lower number run first.
    """

    row: str
    column: str
    data: DataConfig
    config: RunConfig
    paper: tuple[float, ...]
    grid: tuple[Mapping[str, float], ...]
    tuned_as: str
    priority: int

    @property
    def name(self) -> str:
        """``row/column``."""
        return f"{self.row}/{self.column}"


@dataclass(frozen=True, slots=True)
class Experiment:
    """One table or figure.

    Args:
        name: Its file's name.
        title: What it shows.
        source: Where the paper has it.
        notes: What the paper leaves open, and what we chose.
        seeds: Number of seeds.
        score: What the score on the test set is.
        rows: Key → label.
        columns: Key → label.
        cells: All cells of the table, row by row.
        tuning: The search, if there is one.
        curves: Names of the metrics to draw against epochs; empty for a table.
        comparisons: Part of the page → pairs of columns, whose difference is first minus second.
    """

    name: str
    title: str
    source: str
    notes: tuple[str, ...]
    seeds: int
    score: str
    rows: Mapping[str, str]
    columns: Mapping[str, str]
    cells: tuple[Cell, ...]
    tuning: Tuning | None
    curves: tuple[str, ...]
    comparisons: Mapping[str, tuple[tuple[str, str], ...]]

    def cell(self, row: str, column: str) -> Cell:
        """Find the cell with these keys."""
        return next(cell for cell in self.cells if (cell.row, cell.column) == (row, column))


def recipe_names() -> list[str]:
    """List the recipes."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def read_recipe(name: str, scale: str = "full") -> Experiment:
    """Read a recipe at a scale.

    Args:
        name: One of :func:`recipe_names`.
        scale: A key of :data:`SCALES`.

    Raises:
        KeyError: if there is no such scale.
        FileNotFoundError: if there is no such recipe.
        ValueError: if the file has a setting that no run has.
    """
    text = tomllib.loads((FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
    runs = _runs(text)
    over = {**SCALES[scale], **runs.get("scales", {}).get(scale, {})}
    rows, columns = runs["rows"], runs["columns"]
    return Experiment(
        name=name,
        title=text["title"],
        source=text["source"],
        notes=(*runs.get("notes", ()), *(text["notes"] if "same_runs_as" in text else ())),
        seeds=over.pop("seeds", runs["seeds"]),
        score=text.get("score", "test accuracy in percent"),
        rows={row["key"]: row.get("label", row["key"]) for row in rows},
        columns={column["key"]: column.get("label", column["key"]) for column in columns},
        cells=tuple(_cell(runs["base"], row, column, over) for row, column in product(rows, columns)),
        tuning=Tuning(**runs["tuning"]) if "tuning" in runs else None,
        curves=tuple(text.get("curves", ())),
        comparisons={
            part: tuple((first, second) for first, second in pairs)
            for part, pairs in runs.get("comparisons", {}).items()
        },
    )


def _runs(text: dict[str, Any]) -> dict[str, Any]:
    """Give the tables that describe runs: the file's own, or those of the file whose runs it draws."""
    if "same_runs_as" not in text:
        return text
    runs = tomllib.loads((FOLDER / f"{text['same_runs_as']}.toml").read_text(encoding="utf-8"))
    wanted = text.get("only_columns")
    columns = [column for column in runs["columns"] if wanted is None or column["key"] in wanted]
    return {**runs, "columns": columns}


PUBLISHED_WIDTH = 64

CONFIG_FIELDS = {field.name for field in fields(RunConfig)} - {"seed"}
DATA_FIELDS = {field.name for field in fields(DataConfig)}
CELL_FIELDS = {"key", "label", "paper", "grid", "grid_lr_scale", "tuned_as", "priority", "epochs_factor"}
LEARNING_RATES = {"lr", "channelwise_lr", "adamw_lr"}


def _cell(base: dict[str, Any], row: dict[str, Any], column: dict[str, Any], over: dict[str, Any]) -> Cell:
    own = row.get("columns", {}).get(column["key"], {})
    settings = {**base, **{k: v for k, v in row.items() if k != "columns"}, **column, **own, **over}
    unknown = settings.keys() - CONFIG_FIELDS - DATA_FIELDS - CELL_FIELDS
    if unknown:
        raise ValueError(f"{row['key']}/{column['key']} has {sorted(unknown)}, which no run has.")
    config = {"width": PUBLISHED_WIDTH, "lr": 0.0, "weight_decay": 0.0, **_only(settings, CONFIG_FIELDS)}
    config["epochs"] = int(config["epochs"] * settings.get("epochs_factor", 1))
    return Cell(
        row=row["key"],
        column=column["key"],
        data=DataConfig(**_only(settings, DATA_FIELDS)),
        config=RunConfig(**config),
        paper=tuple(row.get("paper", {}).get(column["key"], ())),
        grid=_points(settings.get("grid", {}), settings.get("grid_lr_scale", 1.0)),
        tuned_as=settings.get("tuned_as", ""),
        priority=row.get("priority", 0) + column.get("priority", 0),
    )


def _points(grid: Mapping[str, list[float]], lr_scale: float) -> tuple[Mapping[str, float], ...]:
    """List all combinations of the values; none for an empty grid."""
    if not grid:
        return ()
    scaled = {
        name: [value * lr_scale if name in LEARNING_RATES else value for value in values]
        for name, values in grid.items()
    }
    return tuple(dict(zip(scaled, values, strict=True)) for values in product(*scaled.values()))


def _only(settings: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in wanted}
