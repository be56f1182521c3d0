"""The real program in a process of its own: pipes, descriptors, and a gate that no model's code opens by accident."""

import json
import re
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from sgdph_fx import analyze
from tests.cli.conftest import COMMAND, ENVIRONMENT, Program

Write = Callable[..., Path]

NET = """
import atexit, os, sys, threading, time
from torch import nn
{at_import}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        {in_forward}
        return self.conv(x)

net = Net()
"""
ROOT = Path(__file__).parents[2]
INPUT = ("--input", "1,3,4,4")


def net_that(write: Write, at_import: str = "", in_forward: str = "pass") -> str:
    return f"{write(NET.format(at_import=at_import, in_forward=in_forward)).name}:net"


def test_a_pipe_gets_whole_lines_without_colour_and_the_same_files_each_time(
    net: Path, program: Program
) -> None:
    one, two = (program("net.py", "--full", "--output", folder) for folder in ("one", "two"))
    assert (one.returncode, two.returncode) == (0, 0), one.stderr + two.stderr
    assert one.stdout == two.stdout
    assert "\x1b[" not in one.stdout
    assert max(map(len, one.stdout.splitlines())) > 80
    files = sorted(path.name for path in (net.parent / "one").iterdir())
    assert len(files) == 5
    for name in files:
        assert (net.parent / "one" / name).read_bytes() == (net.parent / "two" / name).read_bytes()


def test_a_pipe_without_greek_letters_gets_them_escaped(write: Write, net: Path, program: Program) -> None:
    source = net.read_text().replace("self.head", "self.γ").replace("Net", "Netz")
    path = write(source, "greek.py")
    done = program(path.name, env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\\u03b3 +\\xd71 +bare", done.stdout, re.MULTILINE)


def test_a_failure_has_its_code_and_one_line(net: Path, program: Program) -> None:
    done = program("net.py:nix")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "Error: net.py:nix: there is no 'nix'. Models there: Net (class).\n"


@pytest.mark.parametrize(
    "command",
    [("net.py", "--json"), ("diff", "net.py", "net.py"), ("--help",), ("--version",)],
    ids=lambda command: command[0],
)
def test_output_that_is_lost_is_a_failure_without_a_traceback(
    command: tuple[str, ...], net: Path, program: Program
) -> None:
    with open("/dev/full", "w") as full:
        done = program(*command, stdout=full)
    assert done.returncode == 7
    assert done.stderr == "Error: Standard output could not be written: No space left on device\n"
    closed = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, *command],
        cwd=net.parent,
        env=ENVIRONMENT,
        stderr=-1,
        text=True,
    )
    assert closed.returncode == 7
    assert closed.stderr == "Error: Standard output could not be written: it is closed\n"


def test_a_reader_that_stops_early_is_told_by_the_code_alone(net: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, "net.py", "--json"], cwd=net.parent, env=ENVIRONMENT, stdout=-1, stderr=-1, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 7


EXITS = {
    "exit at import": ("sys.exit(0)", "pass", 3),
    "exit in forward": ("", "sys.exit(0)", 8),
    "exit in forward without a code": ("", "sys.exit()", 8),
    "quit by an exception of one's own": ("class Stop(BaseException): pass", "raise Stop", 8),
    "hard exit at import": ("os._exit(0)", "pass", 8),
    "hard exit in forward": ("", "os._exit(0)", 8),
    "hard exit in a thread": (
        "threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(60)",
        "pass",
        8,
    ),
    "another program in place of this one": ("os.execvp('true', ['true'])", "pass", 8),
    "a killed process": ("", "os.kill(os.getpid(), 9)", 8),
    "closed descriptors and a hard exit": ("", "os.closerange(3, 100); os._exit(0)", 8),
}


@pytest.mark.parametrize("how", EXITS)
def test_a_model_that_ends_the_program_fails_the_check(how: str, write: Write, program: Program) -> None:
    at_import, in_forward, code = EXITS[how]
    model = net_that(write, at_import, in_forward)
    done = program(model, *INPUT, "--check", reviewed(write))
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("Error: ")


def reviewed(write: Write, was: str = "", now: str = "") -> str:
    """The plan of a model that does nothing of the kind, as text with something replaced."""
    plan = analyze(nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 1))), torch.zeros(1, 3, 4, 4))
    return write(plan.to_json().replace(was, now), "plan.json").name


def test_what_a_model_does_at_exit_changes_no_code(write: Write, program: Program) -> None:
    model = net_that(write, "atexit.register(os._exit, 5)")
    assert program(model, *INPUT, "--check", reviewed(write)).returncode == 0
    other = reviewed(write, '"policy": "see-through"', '"policy": "direct"')
    assert program(model, *INPUT, "--check", other).returncode == 1


def test_a_copy_of_the_process_has_no_say(write: Write, program: Program) -> None:
    forks = "child = os.fork(); child or sys.exit(0); os.waitpid(child, 0)"
    done = program(net_that(write, "", forks), *INPUT, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["convolutions"] == 1


def test_a_model_that_closes_its_output_changes_nothing(write: Write, program: Program) -> None:
    done = program(net_that(write, "", "sys.stdout.close()"), *INPUT, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["convolutions"] == 1


# Every way to standard output: by Python, by its number, from a program, from a thread that is late, at exit.
LOUD = "; ".join(
    [
        "print('noise 1')",
        "os.write(1, b'noise 2')",
        "os.system('echo noise 3')",
        "threading.Thread(target=lambda: (time.sleep(2), os.write(1, b'noise 4'), print('noise 5'))).start()",
        "atexit.register(lambda: (os.write(1, b'noise 6'), print('noise 7')))",
        "sys.__stdout__.write('noise 8')",
        "sys.__stdout__.flush()",
    ]
)


@pytest.mark.parametrize("where", ["at_import", "in_forward"])
def test_what_a_model_prints_stays_out_of_the_results(where: str, write: Write, program: Program) -> None:
    done = program(net_that(write, **{where: LOUD}), *INPUT, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["convolutions"] == 1
    assert {*re.findall(r"noise (\d)", done.stderr)} == {*"12345678"}


@pytest.mark.parametrize("where", ["at_import", "in_forward"])
def test_a_model_that_changes_the_folder_moves_no_file(
    where: str, write: Write, program: Program, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    moves = {where: "os.path.isdir('elsewhere') and os.chdir('elsewhere')"}
    done = program(net_that(write, **moves), *INPUT, "--output", "out")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "plan.json").is_file()
    assert [*(tmp_path / "elsewhere").iterdir()] == []
    again = program("diff", "out/plan.json", "net.py:net", *INPUT)
    assert again.stdout.startswith("Nothing is treated otherwise")


def test_a_closed_standard_error_and_input_change_no_result(net: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *COMMAND, "net.py", "--json"],
        cwd=net.parent, env=ENVIRONMENT, stdout=-1, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(done.stdout)["summary"]["convolutions"] == 2


def test_the_module_is_the_program(net: Path) -> None:
    script = str(Path(sys.executable).parent / "sgdph-convert")
    by_module, by_script = (
        subprocess.run([*command, "net.py", "--json"], cwd=net.parent, env=ENVIRONMENT, stdout=-1)
        for command in (COMMAND, [script])
    )
    assert (by_module.returncode, by_script.returncode) == (0, 0)
    assert by_module.stdout == by_script.stdout


def test_a_clone_runs_as_a_module_though_the_command_line_is_installed_elsewhere() -> None:
    """In a clone, ``-m`` takes the package from the current folder, which has no ``cli`` inside."""
    without_finders = (
        "import runpy, sys; sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(f)]; "
        "sys.argv = ['sgdph_fx', '--version']; runpy.run_module('sgdph_fx', run_name='__main__', alter_sys=True)"
    )
    done = subprocess.run(
        [sys.executable, "-c", without_finders], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.stdout.startswith("sgdph-convert, version"), done.stderr
