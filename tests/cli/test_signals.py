"""Ctrl-C and other signals at any moment: an exit code of its own, no traceback, nothing left behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import COMMAND, ENVIRONMENT

Write = Callable[..., Path]

SLOW = """
import pathlib, sys, time
{before}
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        {inside}
        return self.conv(x)

net = Net()
"""
# In short naps: a signal that comes just before a call of the system begins is not seen until that call ends.
NAPS = "[time.sleep(0.1) for _ in range(600)]"
WAIT = f"pathlib.Path('there').touch(); {NAPS}"
STUBBORN = f"""
try:
    pathlib.Path('there').touch(); {NAPS}
except:
    pass
pathlib.Path('swallowed').touch(); {NAPS}
"""
PLACES = {"at import": {"before": WAIT, "inside": "pass"}, "in forward": {"before": "", "inside": WAIT}}


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "net.py:net", "--input", "1,3,4,4", *arguments],
        cwd=folder, env=ENVIRONMENT, stdout=-1, stderr=-1, text=True, start_new_session=True,
        preexec_fn=_heed_signals,
    )  # fmt: skip


def _heed_signals() -> None:
    """The tests themselves may run under `nohup` or after `&`, and what these ignore the program ignores, too."""
    for each in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(each, signal.SIG_DFL)


def wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not come")


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    # Nothing that a run left keeps on running.
    assert str(tmp_path) not in processes()


def processes() -> str:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            found.append(os.readlink(process / "cwd"))
        except OSError:
            continue
    return "\n".join(found)


@pytest.mark.parametrize(
    ("place", "number", "code", "to_all"),
    [
        # A terminal sends it to parent and child, kill to the parent alone.
        ("at import", signal.SIGINT, 130, True),
        ("in forward", signal.SIGINT, 130, True),
        ("in forward", signal.SIGINT, 130, False),
        ("at import", signal.SIGTERM, 143, False),
        ("in forward", signal.SIGHUP, 129, True),
    ],
)
def test_a_signal_ends_it_with_its_code_and_without_a_traceback(
    place: str, number: signal.Signals, code: int, to_all: bool, write: Write, folder: Path
) -> None:
    write(SLOW.format(**PLACES[place]))
    process = start(folder, "--output", "out")
    wait_for(folder / "there")
    (os.killpg if to_all else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err.strip()) == (code, "", "")
    assert not (folder / "out").exists()


def test_a_second_ctrl_c_gets_through_code_that_swallowed_the_first(write: Write, folder: Path) -> None:
    write(SLOW.format(before=STUBBORN, inside="pass"))
    process = start(folder)
    for name in ("there", "swallowed"):
        wait_for(folder / name)
        time.sleep(0.6)
        os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=120) == 130


@pytest.mark.parametrize("after", [0.0, 0.05, 0.3, 1.0])
def test_ctrl_c_while_torch_is_imported_leaves_no_traceback(after: float, net: Path, folder: Path) -> None:
    process = start(folder)
    # Until the program forks, Python's own start is under way.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None and not children.read_text():
        time.sleep(0.005)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate(timeout=120)[1]
    # In the end there is an error, as there is no net.py:net.
    assert process.returncode in (130, 3), err
    assert "Traceback" not in err


def test_a_killed_parent_takes_the_work_along(write: Write, folder: Path) -> None:
    write(SLOW.format(**PLACES["in forward"]))
    process = start(folder)
    wait_for(folder / "there")
    process.kill()
    process.communicate(timeout=120)
    for _ in range(100):
        if str(folder) not in processes():
            break
        time.sleep(0.05)


def test_an_ignored_signal_stays_ignored(write: Write, folder: Path) -> None:
    write(SLOW.format(before="pathlib.Path('there').touch(); time.sleep(1)", inside="pass"))
    process = subprocess.Popen(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND, "net.py:net", "--quiet"],
        cwd=folder, env=ENVIRONMENT, start_new_session=True,
    )  # fmt: skip
    wait_for(folder / "there")
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(timeout=120) == 0
