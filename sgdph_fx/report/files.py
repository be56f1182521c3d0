"""Write a file beside its place and rename it there: readers find the old file or the new one, never half."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

if sys.platform != "win32":
    import fcntl

__all__ = ["BusyError", "locked", "replacing", "sync_folder", "write_text"]

PREFIX = ".sgdph-part-"
LONGEST = 255
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)


class BusyError(OSError):
    """Another process is writing there right now."""


@contextlib.contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Give a place to write to, which becomes ``path`` if the block ends without an error.

    After an error or a kill ``path`` is what it was. The next writer removes what a killed one left. Permissions
    are those that the umask gives a new file. Symbolic links are followed. What exists and is no file, such as a
    pipe or ``/dev/stdout``, is written to directly.

    Args:
        path: The file to write; its folder must be there.

    Yields:
        The path to write to, with the suffix of ``path``.

    Raises:
        BusyError: if another process is writing the same file.
        OSError: if the file cannot be written.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "numbers.txt")
        >>> with replacing(file) as part:
        ...     _ = part.write_text("1 2 3")
        ...     file.exists()
        False
        >>> file.read_text()
        '1 2 3'
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        yield target
        return
    part = target.with_name(_part_name(target))
    with locked(part) as mode:
        try:
            yield part
            _sync(part, mode)
            part.replace(target)
            sync_folder(target.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def write_text(path: Path | str, text: str) -> None:
    """Make ``text`` the whole of ``path`` in one step, in UTF-8; see :func:`replacing`."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def _part_name(target: Path) -> str:
    """A name of its own for each target, so that the next writer of the same file finds what is left of the last."""
    name = PREFIX + target.name
    if len(os.fsencode(name)) <= LONGEST:
        return name
    return PREFIX + hashlib.sha256(os.fsencode(target.name)).hexdigest() + target.suffix[:20]


@contextlib.contextmanager
def locked(file: Path) -> Iterator[int]:
    """Make ``file`` anew and hold it alone until the block ends; one that a dead process left is replaced.

    Args:
        file: A file that only programs which lock it write. It is the caller's to remove.

    Yields:
        The permissions that the umask gives it.

    Raises:
        BusyError: if a living process holds it.
    """
    with contextlib.ExitStack() as held:
        handle = _make(file, held)
        yield os.fstat(handle).st_mode & 0o777


def _make(file: Path, held: contextlib.ExitStack) -> int:
    while True:
        try:
            held.callback(os.close, handle := os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError:
            _remove_dead(file)
            continue
        if _lock(handle) and _is_at(handle, file):
            return handle
        held.close()  # another process took it for a dead one's, in the moment before it was locked


def _remove_dead(file: Path) -> None:
    try:
        handle = os.open(file, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        if not _lock(handle):
            raise BusyError(f"{file.parent} is being written to by another process")
        if _is_at(handle, file):
            file.unlink()
    finally:
        os.close(handle)


def _lock(handle: int) -> bool:
    """Take the lock, which ends with the process; False if another holds it. Windows has no such lock."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
    return True


def _is_at(handle: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False


def _sync(file: Path, mode: int) -> None:
    """All of it on the disk before it gets its name. Some writers make their files for the owner alone."""
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
    file.chmod(mode)


def sync_folder(folder: Path) -> None:
    """Put the names in ``folder`` on the disk, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
