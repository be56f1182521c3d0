"""Each program understands the commands that the pages show, and those on small models run."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

from sgdph_fx.cli.load import load_model
from sgdph_fx.cli.main import main
from tests.cli.conftest import forget
from tests.documents.arguments import options_of, program_of, read
from tests.documents.given import MODEL_FILE
from tests.documents.reading import PAGES, ROOT, Block, Command, commands, mentions, of_language

pytestmark = pytest.mark.usefixtures("one_thread")

# Commands that are parsed and not run, and why.
NOT_RUN = {
    r"sgdph-convert (audit )?torchvision\.models:": "networks of 11 to 144 million parameters, one with weights to get",
    r"python -m experiments\b": "minutes to days on data sets; tests/experiments runs them on small data",
    r"python -m benchmarks\.": "minutes to hours of measuring; tests/benchmarks and tests/zoo run them in small",
    r"torchrun .*-m experiments\b": "the experiments again, on several GPUs",
    r"(pip|python3? -m (pip|venv|pytest|sphinx))\b": "other people's programs: see arguments.py",
    r"(\.ci/(run|lowest)|eval|source)\b|= ": "the same, and the shell's own words",
}
SHELL = {page: [c for b in blocks for c in commands(b)] for page, blocks in of_language("sh").items()}


def examples_in_help() -> list[Command]:
    """Give the examples in the help of each command."""
    found = []
    for name, command in {"": main, **main.commands}.items():
        lines = re.findall(r"^ *(sgdph-convert .*)$", command.help or "", re.MULTILINE)
        block = Block(f"sgdph-convert {name} --help".replace("  ", " "), 0, "sh", "\n".join(lines))
        found += list(commands(block))
    return found


def is_whole(command: Command) -> bool:
    """Tell whether words in a sentence are a whole command, and not only the name of a program or an option."""
    words = command.words
    name = 3 if words[0] == "python" else 2 if words[1:2] and words[1] in main.commands else 1
    return len(words) > name and not words[-1].startswith("--")


MENTIONED = [
    m for page in PAGES for m in mentions(page.read_text("utf-8"), page.relative_to(ROOT).as_posix())
]

EVERY = [
    *(c for group in (*SHELL.values(), examples_in_help()) for c in group if program_of(c.words) != "dot"),
    *filter(is_whole, MENTIONED),
]


@pytest.mark.parametrize("command", EVERY, ids=str)
def test_a_command_on_a_page_is_understood(command: Command, folder: Path) -> None:
    read(command.words)


def test_options_in_a_sentence_exist() -> None:
    unknown = [
        (str(mention), word)
        for mention in MENTIONED
        if mention.words[0] != "torchrun"
        for word in mention.words
        if word.startswith("--") and word.partition("=")[0] not in options_of(mention.words)
    ]
    assert unknown == []


def write_files() -> None:
    """Write the files that the pages mention, for one small model."""
    Path("model.py").write_text(MODEL_FILE, encoding="utf-8")
    net = load_model("model.py")
    torch.save(net.state_dict(), "trained.pt")
    torch.save((torch.randn(8, 3, 6, 6), torch.arange(8) % 3), "batch.pt")


def is_on_our_model(command: Command) -> bool:
    return command.words[0] == "sgdph-convert" and any(w.startswith("model.py") for w in command.words)


RUN = {page: found for page, group in SHELL.items() if (found := [c for c in group if is_on_our_model(c)])}


@pytest.mark.parametrize("page", RUN)
def test_commands_on_a_model_of_ones_own_run_in_their_order(page: str, folder: Path) -> None:
    write_files()
    for command in RUN[page]:
        forget(folder)
        done = CliRunner().invoke(main, command.words[1:], prog_name="sgdph-convert")
        assert done.exit_code == 0, f"{command}\n{done.output}"
        for option, name in zip(command.words, command.words[1:], strict=False):
            assert option not in {"--output", "--json", "--plot"} or Path(name).exists(), command


def test_what_is_not_run_is_in_the_table() -> None:
    ran = {c for group in RUN.values() for c in group}
    left = [
        " ".join([program_of(c.words), *c.words[1:]])
        for group in SHELL.values()
        for c in group
        if c not in ran
    ]
    assert [text for text in left if not any(re.match(reason, text) for reason in NOT_RUN)] == []
    assert [reason for reason in NOT_RUN if not any(re.match(reason, text) for text in left)] == []


def test_a_wrong_option_is_found(folder: Path) -> None:
    """The checks themselves: one for click, one for argparse, one behind torchrun."""
    for text in (
        "sgdph-convert model.py --polcy direct",
        "sgdph-convert audit model.py --draws none",
        "python -m experiments table9",
        "python -m benchmarks.analyze --round 3 --nothing",
        "torchrun --nproc-per-node 2 -m experiments table1 --seed 3",
        "pip install '.[tests]'",
        "conda install torch",
    ):
        (command,) = commands(Block("none", 1, "sh", text))
        with pytest.raises(AssertionError):
            read(command.words)
    assert isinstance(main, click.Group)
