"""Subcommands beside the command that was there first."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Convert = Callable[..., Result]
Write = Callable[..., Path]


def test_convert_is_meant_where_no_command_is_named(net: Path, convert: Convert) -> None:
    named, unnamed = convert("convert", net).stdout, convert(net).stdout
    assert "1 of 2 convolutions was decoupled" in named
    # The first line has the module's name, which is another each time that one process imports the file.
    assert named.splitlines()[1:] == unnamed.splitlines()[1:]
    assert json.loads(convert("--json", net).stdout)["summary"]["decoupled"] == 1


def test_a_model_named_as_a_command_is_reached_by_naming_the_command(
    write: Write, net: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "convert", raising=False)
    write(net.read_text(), "convert.py")
    assert "convert.Net: 1 of 2" in convert("convert", "convert").stdout


def test_help_names_the_commands_and_the_options_of_the_default(convert: Convert) -> None:
    text = convert("-h").stdout
    assert "Usage: sgdph-convert [OPTIONS] MODEL" in text
    assert "--policy" in text
    assert "  convert " in text


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("sgdph-convert con", {"convert"}),
        ("sgdph-convert --pol", {"--policy"}),
        ("sgdph-convert net.py --policy a", {"absorbing"}),
        ("sgdph-convert convert --traceb", {"--traceback"}),
    ],
)
def test_a_shell_can_complete(words: str, offered: set[str]) -> None:
    script = "from sgdph_fx.cli.main import main; main(prog_name='sgdph-convert')"
    environment = {
        **os.environ,
        "_SGDPH_CONVERT_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    items = [line.split(",", 1) for line in done.stdout.splitlines()]
    assert {value for kind, value in items if kind == "plain"} == offered
