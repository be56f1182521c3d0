"""Every error that the command line can end in is raised by the real command, where the page of messages says."""

from __future__ import annotations

import ast
import io
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sgdph_fx.cli.errors import EXIT_CODES
from sgdph_fx.cli.exit_codes import INTERRUPTED
from sgdph_fx.cli.main import main
from tests.cli.conftest import forget
from tests.cli.triggers import APART, COMMANDS, furnish
from tests.test_messages import DOCUMENTS, ROOT

# Where the program itself ends, by a code that one of these errors gave.
CAUGHT = ("explain", "OSError", "Interrupted", "ValueError", "TypeError")
ENDS = ("program.py", "group.py", "pull_request.py")
COMMAND = [m for m in DOCUMENTS.messages() if m.where.startswith("cli/")]


@dataclass(frozen=True)
class Ended:
    """How a command ended: by which code, with which words, as printed, and at which lines its errors were raised."""

    command: str
    exit_code: int
    message: str
    printed: str
    raised: frozenset[tuple[str, int]] | None

    def by(self, message: Any) -> bool:
        """Whether it was by this one. What `explain` returns is raised elsewhere, and told by its words alone."""
        words = re.compile(re.escape(message.text).replace("…", ".*"))
        there = (
            message.where == "cli/errors.py"
            or self.raised is None
            or any(
                where == message.where and message.line <= line <= message.end for where, line in self.raised
            )
        )
        return there and self.exit_code == message.exit_code and words.fullmatch(self.message) is not None


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Ended]]:
    folder = tmp_path_factory.mktemp("typed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.chdir(folder)
        furnish(folder)
        yield [*map(run, COMMANDS), *map(run_apart, APART)]
    forget(folder)


def run(command: str) -> Ended:
    result = CliRunner().invoke(main, shlex.split(command), prog_name="sgdph-convert", standalone_mode=False)
    error = result.exception
    assert isinstance(error, click.ClickException), command
    printed = io.StringIO()
    error.show(printed)
    return Ended(command, error.exit_code, error.message, printed.getvalue(), frozenset(places(error)))


def run_apart(command: str) -> Ended:
    """What a process of its own prints and ends with; it tells no line."""
    environment = {**os.environ, "PROGRAM": f"{sys.executable} -m sgdph_fx"}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=False)
    message = done.stderr.strip().removeprefix("Error: ")
    return Ended(command, done.returncode, message, done.stderr, None)


def places(error: BaseException | None) -> Iterator[tuple[str, int]]:
    """Where an error was raised, and those that it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        frames = traceback.extract_tb(error.__traceback__)
        if frames:
            name = Path(frames[-1].filename)
            yield f"{name.parent.name}/{name.name}", frames[-1].lineno or 0
        error = error.__cause__


def test_every_message_of_the_command_line_is_raised_by_a_command(ended: list[Ended]) -> None:
    missing = [f"{m.where}:{m.line} {m.error}: {m.text}" for m in COMMAND if not any(e.by(m) for e in ended)]
    assert missing == []


def test_every_command_ends_by_a_message_of_the_page(ended: list[Ended]) -> None:
    unknown = [(e.command, e.exit_code, e.message) for e in ended if not any(e.by(m) for m in COMMAND)]
    assert unknown == []
    assert {e.exit_code for e in ended} == EXIT_CODES.keys() - {0, INTERRUPTED}


def test_every_message_is_one_paragraph_after_the_usage_if_that_was_wrong(ended: list[Ended]) -> None:
    for end in ended:
        *usage, paragraph = end.printed.strip().split("\n")
        assert paragraph.startswith("Error: "), end.command
        assert end.message in paragraph
        assert bool(usage) == (end.exit_code == 2), end.printed


def test_no_error_of_the_command_line_goes_unlisted() -> None:
    """An error is raised as a call of a class that the page knows, by `explain`, or as it was caught."""
    listed = {(m.where, m.line) for m in COMMAND}
    for file in (ROOT / "cli").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            place = (file.relative_to(ROOT).as_posix(), getattr(node, "lineno", 0))
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                assert place in listed or getattr(node.exc.func, "id", "") in CAUGHT, place
            if isinstance(node, ast.Call) and file.name not in ENDS:
                assert getattr(node.func, "attr", "") not in {"fail", "exit", "abort", "_exit"}, place
