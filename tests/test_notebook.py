"""The example notebook runs from top to bottom, its own assertions hold, and it is stored with its outputs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "examples" / "first_look.ipynb"


@pytest.fixture(scope="module")
def stored() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def executed(stored: Any) -> Any:
    notebook = copy.deepcopy(stored)
    for cell in code(notebook):
        cell.outputs, cell.execution_count = [], None
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return notebook


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell: Any) -> list[tuple[str, list[str]]]:
    """The outputs of a cell: what each is, and in which formats."""
    return [(output.output_type, sorted(output.get("data", {}))) for output in cell.outputs]


def test_the_notebook_runs_from_top_to_bottom(executed: Any) -> None:
    outputs = [output for cell in code(executed) for output in cell.outputs]
    pages = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(pages) == 2, "the report and the audit show themselves as HTML"


def test_it_is_stored_with_the_outputs_of_a_run_in_order(stored: Any, executed: Any) -> None:
    assert [cell.execution_count for cell in code(stored)] == [*range(1, len(code(stored)) + 1)]
    for before, after in zip(code(stored), code(executed), strict=True):
        assert kinds(before) == kinds(after), before.source
    printed = [
        output.text for cell in code(stored) for output in cell.outputs if output.output_type == "stream"
    ]
    assert [text.split()[0] for text in printed] == ["loss", "100%", "same"]


def test_nothing_stored_names_a_machine(stored: Any) -> None:
    text = nbformat.writes(stored)
    assert str(Path.home()) not in text
    assert str(NOTEBOOK.parents[1]) not in text
    assert "site-packages" not in text
