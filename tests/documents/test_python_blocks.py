"""The Python on every page runs as it stands, or says in its first line what it needs, and does what the page says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest

from sgdph_fx import Config
from tests.documents.given import AFTER, ELSEWHERE, GIVEN, YOUR_OWN, Names
from tests.documents.reading import BLOCKS, PAGES, ROOT, Block, Needs, needs_of, of_language

pytestmark = pytest.mark.usefixtures("one_thread")
PYTHON = of_language("python")
# Sphinx reads the blocks that are not python, sh or text, and continuous integration runs it with warnings as errors.
# tests/cli/test_reviews.py runs the YAML.
LANGUAGES = {"python", "sh", "text", "toml", "yaml", "{toctree}", "{eval-rst}"}


@pytest.mark.parametrize("page", [page for page in PYTHON if page not in ELSEWHERE])
def test_the_python_of_a_page_runs(page: str, folder: Path) -> None:
    before: Callable[[], contextlib.AbstractContextManager[Names]] = GIVEN.get(page, contextlib.nullcontext)
    with before() as given:
        names: Names = {**(given or {})}
        for block in PYTHON[page]:
            run(block, names, given or {})
        if page in AFTER:
            AFTER[page](names)


def run(block: Block, names: Names, given: Names) -> None:
    """Run a block with what it says it needs, and add what it defines to ``names``."""
    needs = needs_of(block)
    own = {name: YOUR_OWN[name]() for name in needs.your_own}
    space: Names = {"__name__": block.page, **(names if needs.blocks_above else given), **own}
    # Line numbers are the page's, for the traceback.
    code = compile("\n" * (block.line - 1) + block.text, ROOT / block.page, "exec")
    try:
        exec(code, space)
    except NameError as error:
        error.add_note(
            f"{block.page}:{block.line}: a block must run as it stands. If it needs the blocks before it, "
            'let its first line be "# Continues the blocks above."; if it needs something of the reader\'s, '
            '"# Fragment: net and loader are your own."'
        )
        raise
    names |= space


@pytest.mark.parametrize(
    ("first_line", "expected"),
    [
        ("import torch", Needs()),
        ("# Continues the block above.", Needs(blocks_above=True)),
        ("# Continues the blocks above.", Needs(blocks_above=True)),
        ("# Fragment: net is your own.", Needs(your_own=("net",))),
        ("# Fragment: net, loader and loss are your own.", Needs(your_own=("net", "loader", "loss"))),
    ],
)
def test_a_block_says_in_its_first_line_what_it_needs(first_line: str, expected: Needs) -> None:
    assert needs_of(Block("none", 1, "python", f"{first_line}\npass\n")) == expected


def test_a_block_that_hides_what_it_needs_is_found() -> None:
    """The test itself: a block without a mark does not see the blocks above it."""
    names: Names = {}
    run(Block("none", 1, "python", "x = 1\n"), names, {})
    run(Block("none", 1, "python", "# Continues the block above.\ny = x + 1\n"), names, {})
    assert names["y"] == 2
    with pytest.raises(NameError, match="x"):
        run(Block("none", 1, "python", "y = x + 1\n"), names, {})


def test_every_mark_is_one_that_the_tests_know() -> None:
    for page in PYTHON:
        for block in PYTHON[page]:
            first = block.text.splitlines()[0]
            if first.startswith(("# Continues", "# Fragment")):
                assert needs_of(block) != Needs(), f"{page}:{block.line}: {first}"
            assert set(needs_of(block).your_own) <= YOUR_OWN.keys(), f"{page}:{block.line}: {first}"


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
        "only the map of the folders is not code"
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
