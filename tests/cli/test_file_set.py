"""Files that appear together: an error, a signal and a kill at every single step of it."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgdph_fx.cli.errors import NotWrittenError
from sgdph_fx.cli.file_set import finish_interrupted, put_together, reserved

NAMES = ("a.json", "b.bin", "c.html")
# Every call by which the folder changes; a real disk can fail, and a process end, at each.
CHANGES = (
    (Path, "mkdir"),
    (Path, "replace"),
    (Path, "write_text"),
    (Path, "unlink"),
    (os, "rmdir"),
    (os, "unlink"),
)


def write(text: str) -> Callable[[Path], None]:
    def write_all(folder: Path) -> None:
        for name in NAMES:
            (folder / name).write_text(text)

    return write_all


def replace_all(folder: Path, text: str) -> None:
    with reserved(folder, NAMES):
        put_together(folder, write(text))


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file() and path.name in NAMES}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an old set, and a file of somebody else."""
    folder = tmp_path / "out"
    replace_all(folder, "old")
    (folder / "notes.txt").write_text("mine")
    return folder


def is_whole(folder: Path) -> bool:
    """The old set or the new one, and nothing of how it came there."""
    names = {path.name for path in folder.iterdir()}
    return names == {*NAMES, "notes.txt"} and len({*contents(folder).values()}) == 1


def failing(monkeypatch: pytest.MonkeyPatch, step: int, fail: Callable[[], None]) -> list[int]:
    """Let the change number ``step`` fail, before or after it is made."""
    calls = [0]

    def patched(real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            if calls[0] == step:
                fail()
            return real(*args, **kwargs)

        return change

    for owner, name in CHANGES:
        monkeypatch.setattr(owner, name, patched(getattr(owner, name)))
    return calls


def steps(tmp_path: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        calls = failing(patch, 0, lambda: None)
        replace_all(tmp_path / "counted", "old")
        first = calls[0]
        replace_all(tmp_path / "counted", "new")
    return calls[0] - first


def test_the_files_are_replaced_together_and_others_left_alone(folder: Path) -> None:
    replace_all(folder, "new")
    assert is_whole(folder)
    assert {*contents(folder).values()} == {"new"}
    assert (folder / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_at_any_step_leaves_one_whole_set(
    folder: Path, tmp_path: Path, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    for step in range(1, steps(tmp_path) + 1):
        with pytest.MonkeyPatch.context() as patch:
            failing(patch, step, fail)
            with contextlib.suppress(NotWrittenError, KeyboardInterrupt):
                replace_all(folder, "new")
        # What could not even be cleaned up goes with the next use of the folder.
        with reserved(folder, NAMES):
            pass
        assert is_whole(folder), step
        replace_all(folder, "old")


def test_a_kill_at_any_step_never_leaves_old_beside_new_and_the_next_one_completes_it(
    folder: Path, tmp_path: Path
) -> None:
    seen = set()
    for step in range(1, steps(tmp_path) + 1):
        child = os.fork()
        if child == 0:
            with pytest.MonkeyPatch.context() as patch:
                failing(patch, step, lambda: os.kill(os.getpid(), signal.SIGKILL))
                replace_all(folder, "new")
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL)
        assert len({*contents(folder).values()}) <= 1, step
        finish_interrupted(folder)
        assert contents(folder).keys() == {*NAMES}
        seen |= {*contents(folder).values()}
        replace_all(folder, "old")
        assert is_whole(folder)
    assert seen == {"old", "new"}


def test_a_second_writer_is_refused_with_a_clear_word(folder: Path) -> None:
    with reserved(folder, NAMES):
        with pytest.raises(NotWrittenError, match=r"Another sgdph-convert is writing to .*out"):
            replace_all(folder, "second")
        put_together(folder, write("first"))
    assert {*contents(folder).values()} == {"first"}
    assert is_whole(folder)


def test_many_writers_at_once_leave_the_set_of_one(folder: Path) -> None:
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            try:
                replace_all(folder, f"writer {number}" * 1000)
            except NotWrittenError:
                os._exit(7)
            os._exit(0)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert {*codes} <= {0, 7}
    assert 0 in codes
    assert is_whole(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_in_the_way_is_named_before_anything_is_done(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()
    before = contents(folder)
    with pytest.raises(NotWrittenError, match=f"{name} is in the way: it is no file"):
        replace_all(folder, "new")
    assert contents(folder) == before
    assert (folder / name).is_dir()


def test_a_folder_that_comes_in_the_way_meanwhile_changes_nothing(folder: Path) -> None:
    def write_and_block(inside: Path) -> None:
        write("new")(inside)
        (folder / "c.html").unlink()
        (folder / "c.html").mkdir()
        (folder / "c.html" / "theirs").touch()

    # A folder can be moved out of the way as a file can: it must not be lost with the old files.
    with reserved(folder, NAMES), pytest.raises(NotWrittenError, match="is in the way"):
        put_together(folder, write_and_block)
    assert (folder / "c.html" / "theirs").is_file()
    assert {*contents(folder).values()} == {"old"}


def test_folders_that_were_made_for_nothing_are_removed_again(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(ZeroDivisionError), reserved(tmp_path / "a" / "b" / "c", NAMES):
        raise ZeroDivisionError
    assert [*tmp_path.rglob("*")] == [tmp_path / "a"]


def test_a_link_to_a_folder_is_a_folder(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    replace_all(link, "new")
    assert is_whole(folder)
    assert link.is_symlink()
