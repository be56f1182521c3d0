"""Commands print what the pages say they print."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from click.testing import CliRunner

from experiments.networks import build
from sgdph_fx import prepare
from sgdph_fx.cli.main import main
from tests.documents.reading import Block, of_language

TEXT = [(block, number) for blocks in of_language("text").values() for number, block in enumerate(blocks)]


def of_vgg11() -> str:
    done = CliRunner().invoke(main, ["torchvision.models:vgg11"])
    assert done.exit_code == 0, done.output
    return done.stdout


def of(network: str, width: int) -> Callable[[], str]:
    return lambda: str(prepare(build(network, width=width)).report)


PRINTED: Mapping[tuple[str, int], Callable[[], str]] = {
    ("README.md", 0): of_vgg11,
    ("docs/quickstart.md", 0): of("vgg11", 16),
    ("docs/quickstart.md", 1): of("resnet18", 8),
}
"""Page and number of its text block → what prints the text."""


def test_every_printed_block_has_its_maker() -> None:
    assert {(block.page, number) for block, number in TEXT} == PRINTED.keys()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("block", "number"), TEXT, ids=lambda value: getattr(value, "page", value))
def test_a_printed_block_is_how_the_output_begins(block: Block, number: int) -> None:
    lines = block.text.removesuffix("…\n").splitlines()
    assert PRINTED[block.page, number]().splitlines()[: len(lines)] == lines
