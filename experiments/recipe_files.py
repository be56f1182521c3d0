"""Recipe files (TOML) → the runs of one table or figure, each with its row, its column and the paper's number.

A file has ``title``, ``source``, ``notes`` and ``seeds``; ``[base]``, ``[[rows]]`` and ``[[columns]]`` give
the settings of a run (the fields of :class:`experiments.training.Recipe`, with ``dataset``, ``train_size``
and ``pixels``), a column over a row over the base, and a scale over all. Rows may hold ``paper``: column →
``[mean, deviation]``, the deviation left out where the paper prints none. ``[tuning]`` names a search, and
a column's ``grid`` what it goes through. ``same_runs_as`` names a file whose runs a figure draws.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

from experiments.training import Recipe

__all__ = ["SCALES", "Cell", "Experiment", "Images", "Tuning", "names", "read"]

FOLDER = Path(__file__).parent / "recipes"

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
"""What a scale puts in place of the paper's settings; ``[scales.NAME]`` in a file goes over it."""


@dataclass(frozen=True, slots=True)
class Images:
    """Which images a run is about.

    Args:
        dataset: A key of :data:`experiments.data.DATASETS` or :data:`experiments.image_files.IMAGE_SETS`.
        train_size: Number of training images; None is all.
        test_size: Number of images to judge by; None is all.
        pixels: Height and width that image files are brought to; data sets in memory have their own.
    """

    dataset: str
    train_size: int | None = None
    test_size: int | None = None
    pixels: int = 224


@dataclass(frozen=True, slots=True)
class Tuning:
    """A search over learning rate and weight decay, judged by training images that are held out.

    Args:
        epochs: Epochs of each trial.
        seed: Its seed; one that no run of the table has.
    """

    epochs: int
    seed: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the table: a column in a row.

    Args:
        row: The row's key.
        column: The column's key.
        images: The images of its runs.
        recipe: The run with seed 0; before tuning where there is a grid.
        paper: The paper's mean and deviation, in percent; empty where it has no number, one number where it
            prints no deviation.
        grid: Pairs of learning rate and weight decay to choose from; empty where they are given.
        tuned_as: The column of the same row whose choice it takes; empty for its own.
        priority: Cells with a lower number run first.
    """

    row: str
    column: str
    images: Images
    recipe: Recipe
    paper: tuple[float, ...]
    grid: tuple[tuple[float, float], ...]
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
        source: Where it stands in the paper.
        notes: What the paper leaves open, and what was chosen.
        seeds: Number of seeds.
        rows: Key → label.
        columns: Key → label.
        cells: All places of the table, row by row.
        tuning: The search, if learning rates are not given.
        curves: Names of the percentages to draw against epochs; empty for a table.
    """

    name: str
    title: str
    source: str
    notes: tuple[str, ...]
    seeds: int
    rows: Mapping[str, str]
    columns: Mapping[str, str]
    cells: tuple[Cell, ...]
    tuning: Tuning | None
    curves: tuple[str, ...]

    def cell(self, row: str, column: str) -> Cell:
        """The place of the table with these keys."""
        return next(cell for cell in self.cells if (cell.row, cell.column) == (row, column))


def names() -> list[str]:
    """The recipes that there are."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def read(name: str, scale: str = "full") -> Experiment:
    """Read the recipe ``name`` at a scale of :data:`SCALES`.

    Raises:
        KeyError: if there is no such scale.
        FileNotFoundError: if there is no such recipe.
        ValueError: if the file has a setting that no run knows.
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
        rows={row["key"]: row.get("label", row["key"]) for row in rows},
        columns={column["key"]: column.get("label", column["key"]) for column in columns},
        cells=tuple(_cell(runs["base"], row, column, over) for row, column in product(rows, columns)),
        tuning=Tuning(**runs["tuning"]) if "tuning" in runs else None,
        curves=tuple(text.get("curves", ())),
    )


def _runs(text: dict[str, Any]) -> dict[str, Any]:
    """The tables that describe runs, those of another file where this one draws them."""
    if "same_runs_as" not in text:
        return text
    runs = tomllib.loads((FOLDER / f"{text['same_runs_as']}.toml").read_text(encoding="utf-8"))
    wanted = text.get("only_columns")
    columns = [column for column in runs["columns"] if wanted is None or column["key"] in wanted]
    return {**runs, "columns": columns}


PUBLISHED_WIDTH = 64

RECIPE_FIELDS = {field.name for field in fields(Recipe)} - {"seed"}
IMAGE_FIELDS = {field.name for field in fields(Images)}
DESCRIPTION = {"key", "label", "paper", "grid", "tuned_as", "priority"}


def _cell(base: dict[str, Any], row: dict[str, Any], column: dict[str, Any], over: dict[str, Any]) -> Cell:
    # What a row says of one system goes over that system's column.
    own = row.get("columns", {}).get(column["key"], {})
    settings = {**base, **{k: v for k, v in row.items() if k != "columns"}, **column, **own, **over}
    unknown = settings.keys() - RECIPE_FIELDS - IMAGE_FIELDS - DESCRIPTION
    if unknown:
        raise ValueError(f"{row['key']}/{column['key']} has {sorted(unknown)}, which no run knows.")
    grid = settings.get("grid", {"lr": [], "weight_decay": []})
    recipe = {"width": PUBLISHED_WIDTH, "lr": 0.0, "weight_decay": 0.0, **_only(settings, RECIPE_FIELDS)}
    return Cell(
        row=row["key"],
        column=column["key"],
        images=Images(**_only(settings, IMAGE_FIELDS)),
        recipe=Recipe(**recipe),
        paper=tuple(row.get("paper", {}).get(column["key"], ())),
        grid=tuple(product(grid["lr"], grid["weight_decay"])),
        tuned_as=settings.get("tuned_as", ""),
        priority=row.get("priority", 0) + column.get("priority", 0),
    )


def _only(settings: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name in wanted}
