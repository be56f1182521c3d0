"""Read the code on the pages: fenced blocks, and commands in them or in a line of text."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "BLOCKS",
    "PAGES",
    "ROOT",
    "Block",
    "Command",
    "Needs",
    "commands",
    "mentions",
    "needs_of",
    "of_language",
]

ROOT = Path(__file__).parents[2]
FOLDERS = ("docs", "examples", "experiments", "benchmarks", "sgdph_fx", "cli", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])

FENCED = re.compile(r"^```(?P<language>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (?P<text>(?:python|sgdph-convert|torchrun) .*)$", re.MULTILINE)
INLINE = re.compile(r"`(?P<text>(?:sgdph-convert|python -m (?:experiments|benchmarks)|torchrun)\b[^`]*)`")
CONTINUES = re.compile(r"# Continues the blocks? above\.$")
FRAGMENT = re.compile(r"# Fragment: (?P<names>[\w, ]+?) (?:is|are) your own\.$")
# What separates the commands of one line.
BETWEEN = {"&&", "||", "|", ";"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, or an indented line that is a command."""

    page: str
    line: int
    language: str
    text: str
    fenced: bool = True


@dataclass(frozen=True)
class Needs:
    """What a Python block needs that is not in it, by the mark in its first line."""

    blocks_above: bool = False
    your_own: tuple[str, ...] = ()


def needs_of(block: Block) -> Needs:
    """Read the mark of a block. A block without a mark needs nothing."""
    first = block.text.splitlines()[0]
    if CONTINUES.match(first):
        return Needs(blocks_above=True)
    found = FRAGMENT.match(first)
    return Needs(your_own=tuple(re.split(r", | and ", found["names"]))) if found else Needs()


@dataclass(frozen=True)
class Command:
    """One program with its arguments."""

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {shlex.join(self.words)}"


def _blocks(page: Path) -> Iterator[Block]:
    text, name = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
    for found in FENCED.finditer(text):
        yield Block(name, _line(text, found), found["language"], found["text"])
    outside = FENCED.sub(lambda fence: "\n" * fence[0].count("\n"), text)
    for found in INDENTED.finditer(outside):
        yield Block(name, _line(outside, found), "sh", found["text"] + "\n", fenced=False)


def _line(text: str, found: re.Match[str]) -> int:
    return text.count("\n", 0, found.start("text")) + 1


BLOCKS = [block for page in PAGES for block in _blocks(page)]


def of_language(language: str) -> dict[str, list[Block]]:
    """Give the blocks of each page that has any, in their order."""
    pages = {block.page for block in BLOCKS if block.language == language}
    return {page: [b for b in BLOCKS if (b.page, b.language) == (page, language)] for page in sorted(pages)}


def commands(block: Block) -> Iterator[Command]:
    """Give all commands of a block of sh: joined lines, without comments and redirections."""
    for number, line in enumerate(block.text.replace("\\\n", "  ").splitlines()):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, ";"]:
            if word not in BETWEEN:
                words.append(word)
            elif words:
                kept = words[: words.index(">")] if ">" in words else words
                yield Command(block.page, block.line + number, tuple(kept))
                words = []


def mentions(text: str, page: str) -> Iterator[Command]:
    """Give the commands inside sentences, which may be no more than a program's name and an option."""
    for found in INLINE.finditer(FENCED.sub("", text)):
        block = Block(page, 0, "sh", " ".join(found["text"].split()))
        yield next(commands(block))
