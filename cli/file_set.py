"""Several files in one folder that appear together.

They are written into a folder inside, which then gets the name :data:`DECIDED` in one rename: before it nothing has
happened, and after it all of them are valid. Then the old files go out of the way, all of them before the first new
one comes in, so that old and new never stand side by side. What a killed process left undone after the decision, the
next command that reads or writes there completes; what it left before, the next writer removes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sgdph_fx.report.files import BusyError, locked, sync_folder

from .errors import NotWrittenError

__all__ = ["finish_interrupted", "put_together", "reserved"]

BEGUN, DECIDED, REPLACED, LOCK = ".sgdph-begun", ".sgdph-decided", ".sgdph-replaced", ".sgdph-lock"
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextlib.contextmanager
def reserved(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Keep ``folder`` to this process until the block ends. It is made if need be, and removed again if it stays empty.

    Args:
        folder: The folder, by its whole path.
        names: The files that are going to be written.

    Raises:
        NotWrittenError: if another process is writing there, or it cannot be written, or something that is no file has
            one of the names.
    """
    with contextlib.ExitStack() as stack:
        with _explained(folder):
            stack.callback(_remove_empty, _make(folder))
            stack.enter_context(_alone(folder))
            _tidy(folder)
        _require_free(folder, names)
        yield


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except BusyError as error:
        raise NotWrittenError(
            f"Another sgdph-convert is writing to {folder}: wait until it has ended, or write elsewhere."
        ) from error
    except OSError as error:
        raise NotWrittenError(f"{folder} could not be written: {error.strerror or error}") from error


def _make(folder: Path) -> list[Path]:
    """Make it with the folders around it, and return those that were not there, from the innermost."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _remove_empty(folders: Sequence[Path]) -> None:
    for each in folders:
        with contextlib.suppress(OSError):
            each.rmdir()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = folder / LOCK
    with locked(lock):
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # a file that nobody holds locks nobody out
                lock.unlink()


def _require_free(folder: Path, names: Sequence[str]) -> None:
    taken = [name for name in names if (folder / name).exists() and not (folder / name).is_file()]
    if taken:
        raise NotWrittenError(
            f"{folder / taken[0]} is in the way: it is no file. Move it, or choose another --output."
        )


def put_together(folder: Path, write: Callable[[Path], None]) -> None:
    """Put the files that ``write`` writes into ``folder``, all of them or none.

    Args:
        folder: A folder that this process has :func:`reserved`.
        write: Writes them into the folder that it is passed.

    Raises:
        NotWrittenError: if they cannot be written; the folder is as it was.
    """
    begun = folder / BEGUN
    try:
        with _explained(folder):
            begun.mkdir()
            write(begun)
            _sync(begun)
            _require_free(folder, [file.name for file in begun.iterdir()])
            with _undisturbed():
                begun.replace(folder / DECIDED)
                _move_in(folder)
    finally:
        shutil.rmtree(begun, ignore_errors=True)


def _sync(folder: Path) -> None:
    for file in folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    sync_folder(folder)


def _move_in(folder: Path) -> None:
    """Replace the old files by those of the decided set, or put the old ones back."""
    new, old = folder / DECIDED, folder / REPLACED
    names = sorted(file.name for file in new.iterdir())
    try:
        old.mkdir(exist_ok=True)
        _move(names, folder, old)
        _move(names, new, folder)
    except BaseException:
        # In this order, a kill at any point leaves a set that is decided on and complete.
        _move([name for name in names if not os.path.lexists(new / name)], folder, new)
        _move(names, old, folder)
        new.replace(folder / BEGUN)
        raise
    sync_folder(folder)
    shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _move(names: Sequence[str], source: Path, target: Path) -> None:
    for name in names:
        if os.path.lexists(source / name):
            (source / name).replace(target / name)


def finish_interrupted(folder: Path) -> None:
    """Complete a set of files in ``folder`` that was decided on by a process which was killed then.

    Raises:
        NotWrittenError: if another process is writing there.
    """
    if (folder / DECIDED).is_dir():
        with _explained(folder), _alone(folder):
            _tidy(folder)


def _tidy(folder: Path) -> None:
    shutil.rmtree(folder / BEGUN, ignore_errors=True)
    if (folder / DECIDED).is_dir():
        with _undisturbed():
            _move_in(folder)
    shutil.rmtree(folder / REPLACED, ignore_errors=True)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Let signals wait: what is done inside takes no time."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
