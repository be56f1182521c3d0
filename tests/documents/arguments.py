"""Check a command on a page by its own program's parser. Nothing else of the program runs."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import click
from click.testing import CliRunner
from torch.distributed.run import parse_args

from sgdph_fx.cli.main import main as convert
from tests.documents.reading import ROOT

__all__ = ["PROGRAMS", "options_of", "program_of", "read"]

OURS = ("experiments", "benchmarks")
# Other people's programs are not parsed here. For each: why the pages can be trusted.
OTHERS = {
    "venv": "continuous integration runs the README's second command word for word",
    "pytest": "the same",
    "sphinx": "continuous integration builds the site",
}


class ParsedError(Exception):
    """Raised to stop a program once its arguments are read."""


def read(words: Sequence[str]) -> None:
    """Read a command as its program would, in the current folder. An AssertionError says what is wrong with it."""
    name = program_of(words)
    if name == "=":
        _assigned(words[1:], words[0])
        return
    assert name in PROGRAMS, f"no test knows how to read {name!r}: give it a line in {Path(__file__).name}"
    PROGRAMS[name](words[1:])


def program_of(words: Sequence[str]) -> str:
    """Give the program without its folder; "=" for a word that sets a variable."""
    return "=" if re.match(r"\w+=", words[0]) else words[0].removeprefix(".venv/bin/")


def options_of(words: Sequence[str]) -> set[str]:
    """Give all options of the program of a mentioned command."""
    command = convert if words[0] == "sgdph-convert" else _main(words[2])
    if not isinstance(command, click.Command):
        return set()
    named = (
        command.commands.get(words[1] if len(words) > 1 else "")
        if isinstance(command, click.Group)
        else command
    )
    every = [named] if named is not None else [*convert.commands.values()]
    return {name for each in every for p in each.params for name in (*p.opts, *p.secondary_opts)} | {"--help"}


def _convert(arguments: Sequence[str]) -> None:
    _parse(convert, arguments)


def _python(arguments: Sequence[str]) -> None:
    assert arguments[0] == "-m", "a page runs modules"
    name, rest = arguments[1], arguments[2:]
    if name.partition(".")[0] in OURS:
        _parse(_main(name), rest)
    elif name == "pip":
        _pip(rest)
    else:
        assert name in OTHERS, f"no test knows how to read python -m {name}"


def _main(name: str) -> click.Command | Callable[[Sequence[str]], object]:
    """Find what ``python -m NAME`` calls."""
    module = importlib.import_module(name)
    if hasattr(module, "__path__"):
        module = importlib.import_module(f"{name}.__main__")
    found: click.Command | Callable[[Sequence[str]], object] = module.main
    return found


def _parse(command: click.Command | Callable[[Sequence[str]], object], arguments: Sequence[str]) -> None:
    _make_files(arguments)
    if not isinstance(command, click.Command):
        _parse_by_argparse(command, arguments)
        return
    with ExitStack() as stack:
        inner = command.commands.values() if isinstance(command, click.Group) else ()
        for each in (command, *inner):
            stack.enter_context(mock.patch.object(each, "callback", return_value=None))
        done = CliRunner().invoke(command, [*arguments])
    assert done.exit_code == 0, done.output


def _parse_by_argparse(main: Callable[[Sequence[str]], object], arguments: Sequence[str]) -> None:
    real = argparse.ArgumentParser.parse_args

    def parse(parser: argparse.ArgumentParser, given: Sequence[str]) -> None:
        real(parser, given)
        raise ParsedError

    with mock.patch.object(argparse.ArgumentParser, "parse_args", parse):
        try:
            main(arguments)
        except ParsedError:
            return
        except SystemExit as error:
            raise AssertionError(f"not understood: {arguments}") from error


def _make_files(arguments: Sequence[str]) -> None:
    """Make the files that options read, and the folders of files that they write."""
    for word in arguments:
        is_file = Path(word).suffix or word == "CHECKPOINT"
        if is_file and not word.startswith("-") and ":" not in word:
            Path(word).parent.mkdir(parents=True, exist_ok=True)
            Path(word).touch()


def _pip(arguments: Sequence[str]) -> None:
    assert arguments[0] == "install"
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"\[(\w+)\]", " ".join(arguments)):
        assert named in extras, f"pyproject.toml has no extra {named!r}"


def _torchrun(arguments: Sequence[str]) -> None:
    understood = parse_args([*arguments])
    if understood.module:
        _python(["-m", understood.training_script, *understood.training_script_args])


def _eval(arguments: Sequence[str]) -> None:
    inner = re.fullmatch(r"\$\((.*)\)", arguments[0])
    assert inner is not None
    variable, *words = inner[1].split()
    _assigned([*words], variable)


def _assigned(words: Sequence[str], variable: str) -> None:
    """Check the way in which a shell asks the command for its completion."""
    name, _, value = variable.partition("=")
    assert [*words] == ["sgdph-convert"]
    done = CliRunner().invoke(convert, [], prog_name="sgdph-convert", env={name: value})
    assert done.exit_code == 0
    assert "_SGDPH_CONVERT_COMPLETE" in done.output


def _ci(name: str) -> Callable[[Sequence[str]], None]:
    def read(arguments: Sequence[str]) -> None:
        assert not arguments
        assert os.access(ROOT / ".ci" / name, os.X_OK)

    return read


PROGRAMS: Mapping[str, Callable[[Sequence[str]], None]] = {
    "sgdph-convert": _convert,
    "python": _python,
    "python3": _python,
    "pip": _pip,
    "torchrun": _torchrun,
    "eval": _eval,
    ".ci/run": _ci("run"),
    ".ci/lowest": _ci("lowest"),
    "source": lambda arguments: None,
}
