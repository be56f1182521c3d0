"""What the documents promise is what is there."""

import os
import re
from pathlib import Path

import click
import pytest

from sgdph_fx.cli.errors import EXIT_CODES
from sgdph_fx.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def section(text: str, title: str) -> str:
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_two_commands_set_everything_up_and_the_checks_run_the_second() -> None:
    commands = re.findall(r"```sh\n(.*?)\n```", section(README, "Set up"), re.DOTALL)
    assert len(commands) == 2
    assert all("\n" not in command for command in commands)
    assert commands[1] in (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_table_of_exit_codes_is_complete() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", section(CLI, "Exit codes"), re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == EXIT_CODES


def test_the_table_of_options_is_complete() -> None:
    documented = set(re.findall(r"^\| `(--[a-z]+)", section(CLI, "Options"), re.MULTILINE))
    assert documented == options("convert")


def test_the_table_of_the_audits_own_options_is_complete_and_the_others_are_named() -> None:
    text = section(CLI, "Audit")
    documented = set(re.findall(r"^\| `(--[a-z]+)", text, re.MULTILINE))
    assert documented == options("audit") - (options("convert") - {"--json"})
    for shared in options("audit") - documented:
        assert f"`{shared}`" in text


def options(command: str) -> set[str]:
    return {p.opts[0] for p in main.commands[command].params if isinstance(p, click.Option)}


def test_each_promise_names_the_tests_that_hold_it() -> None:
    rows = re.findall(
        r"^\| (.*) \| (.*) \| (`.*`) \|$",
        (ROOT / "docs" / "promises.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) >= 17
    named = [file for *_, held in rows for file in re.findall(r"`(.*?)`", held)]
    assert [file for file in named if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_to_files_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []
