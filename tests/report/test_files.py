"""A file is replaced whole or not at all, whatever happens to its writer."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sgdph_fx.report.files import BusyError, replacing, write_text

# Begins to write, says so, and waits for its end.
WRITER = """
import sys, time
from sgdph_fx.report.files import replacing
with replacing(sys.argv[1]) as part:
    part.write_text("half of the ")
    print("writing", flush=True)
    time.sleep(60)
"""
TOO_MUCH = """
import resource, sys
from sgdph_fx.report.files import write_text
sys.dont_write_bytecode = True  # the limit would cut compiled modules short, too
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_text(sys.argv[1], "x" * 5000)
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "numbers.txt"
    path.write_text("old")
    return path


@pytest.fixture
def writer(file: Path) -> subprocess.Popen[str]:
    """A process in the middle of writing ``file``."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(file)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def test_a_block_that_ends_replaces_the_file_and_leaves_nothing_else(file: Path) -> None:
    write_text(file, "new é")
    assert file.read_text(encoding="utf-8") == "new é"
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_a_block_that_fails_leaves_the_file_as_it_was(file: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        _write_half(file, error)
    assert [(path.name, path.read_text()) for path in file.parent.iterdir()] == [(file.name, "old")]


def _write_half(file: Path, error: type[BaseException]) -> None:
    with replacing(file) as part:
        part.write_text("half")
        raise error


def test_a_full_disk_leaves_the_file_as_it_was(file: Path) -> None:
    done = subprocess.run([sys.executable, "-c", TOO_MUCH, str(file)], capture_output=True, check=False)
    assert done.returncode != 0
    assert [(path.name, path.read_text()) for path in file.parent.iterdir()] == [(file.name, "old")]


def test_what_a_killed_writer_left_goes_with_the_next(file: Path, writer: subprocess.Popen[str]) -> None:
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert file.read_text() == "old"
    assert len([*file.parent.iterdir()]) == 2
    write_text(file, "new")
    assert [(path.name, path.read_text()) for path in file.parent.iterdir()] == [(file.name, "new")]


def test_a_second_writer_of_the_same_file_is_refused(file: Path, writer: subprocess.Popen[str]) -> None:
    with pytest.raises(BusyError, match="being written to by another process"):
        write_text(file, "mine")
    write_text(file.with_name("other.txt"), "mine")
    writer.kill()
    writer.wait()
    assert file.read_text() == "old"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "ours") as part:
            part.unlink()
            os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))  # as safetensors makes its files
        (tmp_path / "theirs").touch()
    finally:
        os.umask(before)
    ours, theirs = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ours", "theirs"))
    assert ours == theirs


def test_a_link_stays_a_link(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()


def test_a_name_of_any_length_that_the_system_takes_is_written(tmp_path: Path) -> None:
    write_text(tmp_path / ("n" * 251 + ".txt"), "new")
    assert [len(path.name) for path in tmp_path.iterdir()] == [255]


@pytest.mark.parametrize("name", ["n" * 256, "nowhere/file"])
def test_what_cannot_be_there_is_an_error_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError, match=r"File name too long|No such file"):
        write_text(tmp_path / name, "new")
    assert [*tmp_path.iterdir()] == []


def test_a_folder_in_the_way_stays(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_rename_that_is_refused_leaves_the_file_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(part: Path, target: Path) -> None:
        raise PermissionError(13, "no", str(target))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(PermissionError):
        write_text(file, "new")
    assert [(path.name, path.read_text()) for path in file.parent.iterdir()] == [(file.name, "old")]
