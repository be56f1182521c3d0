"""A configuration file is read by the command line as by the library, and an error in it names its line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Convert = Callable[..., Result]
Write = Callable[..., Path]

KEEP = '[rules]\n"head" = "keep"\n'


@pytest.fixture
def folder(net: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(net.parent)
    return net.parent


def decoupled(result: Result) -> int:
    assert result.exit_code == 0, result.output
    count: int = json.loads(result.stdout)["summary"]["decoupled"]
    return count


@pytest.mark.parametrize(
    ("name", "text"),
    [("sgdph.toml", KEEP), ("pyproject.toml", KEEP.replace("[rules]", "[tool.sgdph.rules]"))],
)
def test_the_file_of_the_folder_counts(
    folder: Path, net: Path, convert: Convert, name: str, text: str
) -> None:
    assert decoupled(convert(net, "--json")) == 1
    (folder / name).write_text(text)
    assert decoupled(convert(net, "--json")) == 0


def test_so_does_one_in_a_folder_around_it_and_one_that_is_named(
    folder: Path, net: Path, convert: Convert, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sgdph.toml").write_text(KEEP)
    inner = folder / "inner"
    inner.mkdir()
    (inner / "other.toml").write_text('policy = "direct"\n')
    monkeypatch.chdir(inner)
    assert decoupled(convert(net, "--json")) == 0
    # By `direct`, the ReLU behind it does not matter: stem has its norm as the next operation.
    assert decoupled(convert(net, "--json", "--config", "other.toml")) == 1


def test_options_go_before_the_file(folder: Path, net: Path, convert: Convert) -> None:
    (folder / "sgdph.toml").write_text('policy = "absorbing"\n' + KEEP)
    assert decoupled(convert(net, "--json", "--rule", "head=decouple")) == 1
    report = json.loads(convert(net, "--json", "--policy", "direct").stdout)
    assert report["plan"]["policy"] == "direct"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[rules]\n"head" = "keep"\n"re:(" = "keep"\n', 3),
        ('policy = "sideways"\n', 1),
        ("silence = [\n  'no-such'\n]\n", 1),
    ],
)
def test_an_error_names_the_line(folder: Path, net: Path, convert: Convert, text: str, line: int) -> None:
    (folder / "sgdph.toml").write_text(text)
    result = convert(net)
    assert result.exit_code == 6
    assert f"sgdph.toml:{line}: " in result.stderr


def test_a_file_that_is_not_there_is_named(folder: Path, net: Path, convert: Convert) -> None:
    result = convert(net, "--config", "absent.toml")
    assert result.exit_code == 6
    assert "absent.toml cannot be read" in result.stderr
