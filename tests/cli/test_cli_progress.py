"""What takes long is announced on a terminal, and nowhere else."""

import io
import time

import pytest

from sgdph_fx.cli import progress as module
from sgdph_fx.cli.progress import progress

# Written over with spaces, as an escape code is not what every terminal understands.
WIPED = f"\r{' ' * len('Preparing … 0 s')}\r"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_AFTER", 0.05)
    monkeypatch.setattr(module, "EVERY", 0.02)


def test_a_terminal_is_told_and_wiped_clean() -> None:
    stream = Terminal()
    with progress("Preparing", stream):
        time.sleep(0.3)
    assert stream.getvalue().startswith("\rPreparing … ")
    assert stream.getvalue().endswith(WIPED)


def test_what_is_quick_and_what_goes_to_a_pipe_stays_quiet() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    with progress("Preparing", terminal):
        pass
    with progress("Preparing", pipe):
        time.sleep(0.2)
    assert terminal.getvalue() == pipe.getvalue() == ""


def fail_slowly(stream: Terminal) -> None:
    with progress("Preparing", stream):
        time.sleep(0.2)
        raise ZeroDivisionError


def test_an_error_passes_through() -> None:
    stream = Terminal()
    with pytest.raises(ZeroDivisionError):
        fail_slowly(stream)
    assert stream.getvalue().endswith(WIPED)
