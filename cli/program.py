"""The process around a command.

A model's code can end the process that runs it, by ``os._exit(0)`` for example, and no handler sees that. So the
command runs in a child process, which says at its very end how it ended. Without that word the exit code is never 0.
This module imports nothing heavy, and the parent nothing else.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from .exit_codes import UNEXPECTED

__all__ = ["Interrupted", "main"]

PROGRAM = "sgdph-convert"
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
# A terminal sends Ctrl-C to parent and child, and the parent hands it on: what comes so soon is the same one.
SAME_SIGNAL = 0.5


class Interrupted(KeyboardInterrupt):
    """A signal asked the program to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main() -> NoReturn:
    """Run ``sgdph-convert`` with the arguments of this process, and end it."""
    if not hasattr(os, "fork"):  # Windows: a model that ends the process itself decides the exit code
        sys.exit(_work())
    output_is_open = _fill_closed_descriptors()
    word_in, word_out = os.pipe()
    parent_alive, alive = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    child = os.fork()
    if child == 0:
        os.close(word_in)
        os.close(alive)
        _be_the_child(word_out, parent_alive, output_is_open)
    os.close(word_out)
    os.close(parent_alive)
    sys.exit(_wait(child, word_in))


def _fill_closed_descriptors() -> bool:
    """Open /dev/null in place of closed standard streams, before a pipe gets their numbers; False without an output."""
    is_open = [_is_open(number) for number in range(3)]
    while not all(map(_is_open, range(3))):
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    return is_open[1]


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _be_the_child(word: int, parent_alive: int, output_is_open: bool) -> NoReturn:
    me = os.getpid()
    code = UNEXPECTED
    try:
        received = _handle_signals()
        threading.Thread(target=_end_with_parent, args=(parent_alive,), daemon=True).start()
        from .streams import keep_standard_output

        keep_standard_output(output_is_open)
        code = _work()
        if code and received:  # an import that was interrupted may fail in another way, and swallow why
            code = 128 + received[0]
    except Interrupted as interrupted:
        code = 128 + interrupted.number
    if os.getpid() != me:  # a copy that the model's own code made by os.fork
        os._exit(code)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError):  # the model's own code closed it: the parent knows what that means
        os.write(word, bytes([code]))
    sys.exit(code)


def _end_with_parent(parent_alive: int) -> None:
    os.read(parent_alive, 1)  # returns when the parent is gone, even by SIGKILL
    os._exit(UNEXPECTED)


def _handle_signals() -> list[int]:
    """Raise :class:`Interrupted` for each signal; the list that is returned holds those that came."""
    last = -SAME_SIGNAL
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last > SAME_SIGNAL:
            last = now
            received.append(number)
            raise Interrupted(number)

    _on_signals(interrupt)
    return received


def _on_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """Handle the signals, but for those that were ignored when the program started, as by ``nohup``."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _wait(child: int, word: int) -> int:
    """The exit code that the child gave, or one that says that it gave none."""
    _on_signals(lambda number, frame: _hand_on(child, number))
    _, status = os.waitpid(child, 0)
    os.set_blocking(word, False)  # a process that the child left behind may hold the other end
    try:
        said = os.read(word, 1)
    except BlockingIOError:
        said = b""
    return said[0] if said else _explain(os.waitstatus_to_exitcode(status))


def _hand_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _explain(status: int) -> int:
    from .errors import ended_early

    if -status in SIGNALS:
        return 128 - status
    error = ended_early(status)
    error.show()
    return error.exit_code


def _work() -> int:
    """Run the command in this process."""
    from .main import main as command

    try:
        command.main(prog_name=PROGRAM)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0
