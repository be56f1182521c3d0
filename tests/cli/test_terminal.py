"""What a terminal gets: no escape codes where they are not wanted, and a pager for what is long."""

import os
import pty
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, ENVIRONMENT


def test_a_dumb_terminal_and_no_color_get_no_escape_codes(net: Path) -> None:
    for environment in ({"TERM": "dumb"}, {"TERM": "xterm-256color", "NO_COLOR": "1"}):
        shown = on_a_terminal(net.parent, environment, "net.py")
        assert "1 of 2 convolutions was decoupled" in shown
        assert "\x1b" not in shown
    assert "\x1b[" in on_a_terminal(net.parent, {"TERM": "xterm-256color"}, "net.py")


@pytest.mark.parametrize(
    ("pager", "lines", "shown"),
    [
        ("head -n 3", "10", 3),
        ("head -n 3", "200", None),
        ("cat", "10", None),
        ("no-such-pager", "10", None),
        ("less '", "10", None),
        ("", "10", None),
    ],
)
def test_a_long_report_goes_through_the_pager(pager: str, lines: str, shown: int | None, net: Path) -> None:
    environment = {"TERM": "xterm-256color", "NO_COLOR": "1", "PAGER": pager, "LINES": lines}
    text = on_a_terminal(net.parent, environment, "net.py", "--full")
    if shown is None:
        assert "Parameters with SGD and momentum" in text
        return
    report = text[text.index("net.Net: 1 of 2 convolutions was decoupled") :]
    assert len(report.splitlines()) == shown


def on_a_terminal(folder: Path, environment: dict[str, str], *arguments: str) -> str:
    """What the program writes to a terminal of 80 by 24."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs,
        env={**ENVIRONMENT, "COLUMNS": "80", "LINES": "24", "PAGER": "cat", **environment},
    )  # fmt: skip
    os.close(theirs)
    pieces = []
    while True:
        try:
            piece = os.read(ours, 10000)
        except OSError:  # how Linux says that the other side has gone
            break
        if not piece:
            break
        pieces.append(piece)
    assert process.wait(timeout=60) == 0
    os.close(ours)
    return b"".join(pieces).decode()
