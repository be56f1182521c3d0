"""The Python on every page runs from top to bottom, and does what the page says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from sgdph_fx import Config
from tests.documents.given import AFTER, ELSEWHERE, GIVEN, Names
from tests.documents.reading import BLOCKS, PAGES, ROOT, Block, of_language

pytestmark = pytest.mark.usefixtures("one_thread")
PYTHON = of_language("python")
# Those beside python, sh and text are read by Sphinx, which continuous integration runs with warnings as errors.
# YAML is run by tests/cli/test_reviews.py.
LANGUAGES = {"python", "sh", "text", "toml", "yaml", "{toctree}", "{eval-rst}"}


@pytest.mark.parametrize("page", [page for page in PYTHON if page not in ELSEWHERE])
def test_the_python_of_a_page_runs_from_top_to_bottom(page: str, folder: Path) -> None:
    before: Callable[[], contextlib.AbstractContextManager[Names]] = GIVEN.get(page, contextlib.nullcontext)
    with before() as given:
        names: Names = {"__name__": page, **(given or {})}
        for block in PYTHON[page]:
            # Lines are those of the page, for whoever reads the traceback.
            code = compile("\n" * (block.line - 1) + block.text, ROOT / page, "exec")
            exec(code, names)
        if page in AFTER:
            AFTER[page](names)


@pytest.mark.parametrize("block", [b for blocks in of_language("toml").values() for b in blocks])
def test_a_configuration_file_is_read(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "sgdph.toml"
    file.write_text(block.text)
    assert Config.from_file(file) != Config()


def test_what_runs_elsewhere_runs_there() -> None:
    for page, (test, _) in ELSEWHERE.items():
        assert page in PYTHON
        assert Path(page).name in (ROOT / test).read_text(encoding="utf-8")
    assert {*GIVEN, *AFTER} <= {*PYTHON}


def test_no_block_escapes_the_reader() -> None:
    """Each fence on each page belongs to a block, and each block's language has tests."""
    for page in PAGES:
        fences = sum(line.lstrip(" >").startswith(("```", "~~~")) for line in page.read_text().splitlines())
        assert fences == 2 * sum(b.fenced and ROOT / b.page == page for b in BLOCKS), page
    assert {b.language for b in BLOCKS} == LANGUAGES | {""}
    assert {b.page for b in BLOCKS if not b.language} == {"CONTRIBUTING.md"}, (
        "only the map of the house is no code"
    )


def test_every_notebook_and_example_has_its_test() -> None:
    notebooks = {path.name for path in (ROOT / "examples").rglob("*.ipynb")}
    text = (ROOT / "tests" / "test_notebook.py").read_text(encoding="utf-8")
    assert notebooks == {name for name in notebooks if f'"{name}"' in text}
    modules = {path.stem for path in (ROOT / "examples").glob("with_*.py")}
    text = (ROOT / "tests" / "examples" / "test_examples.py").read_text(encoding="utf-8")
    assert modules == {name for name in modules if f"{name}.train" in text}
    for name in notebooks:
        nbformat.validate(nbformat.read(ROOT / "examples" / name, as_version=4))
