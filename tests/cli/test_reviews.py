"""The pre-commit hook and the GitHub Action, on a sample repository and as the page shows them."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from sgdph_fx import analyze
from sgdph_fx.cli.load import load_model
from tests.cli.conftest import NET
from tests.documents.reading import ROOT, of_language

HOOK_PAGE, ACTION_PAGE = (block.text for block in of_language("yaml")["docs/cli.md"])
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def git(folder: Path, *words: str) -> None:
    names = [word for key in ("user.name", "user.email") for word in ("-c", f"{key}=sample")]
    subprocess.run(["git", *names, *words], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "-m", "sample")


@pytest.fixture
def sample(write: Callable[..., Path]) -> Path:
    """A repository with a model and its reviewed plan."""
    path = write(NET, "sample/model.py")
    (path.parent / "reviewed").mkdir()
    (path.parent / "reviewed" / "plan.json").write_text(analyze(load_model(str(path))).to_json())
    commit(path.parent)
    return path.parent


def without_norm(sample: Path) -> None:
    (sample / "model.py").write_text(NET.replace("nn.BatchNorm2d(4)", "nn.Identity()"))


def test_the_hook_of_the_page_lets_the_reviewed_model_through_and_stops_another(
    sample: Path, tmp_path: Path
) -> None:
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / ".pre-commit-hooks.yaml").write_text((ROOT / ".pre-commit-hooks.yaml").read_text())
    commit(ours)
    git(ours, "tag", "v0.1.0")
    config = HOOK_PAGE.replace("https://github.com/OWNER/sgdph-fx", str(ours))
    (sample / ".pre-commit-config.yaml").write_text(config)
    git(sample, "add", ".")

    def hook() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PATH": PATH, "PRE_COMMIT_HOME": str(tmp_path / "home")}
        command = [sys.executable, "-m", "pre_commit", "run", "--all-files"]
        return subprocess.run(
            command, cwd=sample, env=environment, capture_output=True, text=True, check=False
        )

    passed = hook()
    assert passed.returncode == 0, passed.stdout + passed.stderr
    assert re.search(r"sgdph-convert --check\.+Passed", passed.stdout)
    without_norm(sample)
    git(sample, "add", ".")
    stopped = hook()
    assert stopped.returncode == 1
    assert re.search(
        r"^convolution +stem +normalized by norm, kept +bare, decoupled", stopped.stdout, re.MULTILINE
    )


class GitHub(BaseHTTPRequestHandler):
    """As much of GitHub's interface as keeps the comments of one pull request."""

    comments: list[dict[str, Any]]
    asked: list[str]
    allowed = True

    def answer(self) -> None:
        cls = type(self)
        cls.asked.append(self.command)
        length = int(self.headers.get("Content-Length") or 0)
        content = json.loads(self.rfile.read(length)) if length else {}
        assert self.headers["Authorization"] == "Bearer secret"
        status, found = 200, None
        if not cls.allowed:
            status, found = 403, {"message": "Resource not accessible by integration"}
        elif self.command == "GET":
            page = int(re.fullmatch(r"/repos/o/r/issues/7/comments\?per_page=100&page=(\d+)", self.path)[1])  # type: ignore[index]
            found = cls.comments[100 * (page - 1) : 100 * page]
        elif self.command == "POST":
            assert self.path == "/repos/o/r/issues/7/comments"
            found = {"id": 1000 + len(cls.comments), **content}
            cls.comments.append(found)
            status = 201
        else:
            number = int(re.fullmatch(r"/repos/o/r/issues/comments/(\d+)", self.path)[1])  # type: ignore[index]
            (found,) = [comment for comment in cls.comments if comment["id"] == number]
            found.update(content)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())

    do_GET = do_POST = do_PATCH = answer

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def github() -> Iterator[tuple[str, type[GitHub]]]:
    # More than a page of what others said.
    others = [{"id": number, "body": f"comment {number}"} for number in range(130)]
    kind = type("Kind", (GitHub,), {"comments": others, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()


def act(sample: Path, api: str, event: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run the action as the runner does: the page's inputs, the action's defaults, each step in bash."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    (step,) = [
        s for s in yaml.safe_load(ACTION_PAGE)["jobs"]["plan"]["steps"] if "sgdph-fx@" in s.get("uses", "")
    ]
    assert step["with"].keys() <= action["inputs"].keys()
    needed = {name for name, each in action["inputs"].items() if each.get("required")}
    assert needed <= step["with"].keys()
    values = {f"inputs.{name}": each.get("default", "") for name, each in action["inputs"].items()}
    values.update({f"inputs.{name}": value for name, value in step["with"].items()})
    values.update({"github.token": "secret", "github.action_path": str(ROOT)})

    def filled(text: str) -> str:
        for _ in range(2):  # a default may name another value
            text = re.sub(r"\$\{\{ (\S+) \}\}", lambda found: str(values[found[1]]), text)
        return text

    (sample / "event.json").write_text(json.dumps(event))
    given = {"GITHUB_EVENT_PATH": "event.json", "GITHUB_API_URL": api, "GITHUB_REPOSITORY": "o/r",
             "GITHUB_STEP_SUMMARY": "summary.md", "PATH": PATH}  # fmt: skip
    assert action["runs"]["using"] == "composite"
    (only,) = action["runs"]["steps"]
    assert only["shell"] == "bash"
    environment = {**os.environ, **given, **{name: filled(value) for name, value in only["env"].items()}}
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", only["run"]]
    return subprocess.run(command, cwd=sample, env=environment, capture_output=True, text=True, check=False)


PULL_REQUEST = {"action": "synchronize", "pull_request": {"number": 7}}


def test_the_action_of_the_page_keeps_one_comment_on_what_differs(
    sample: Path, github: tuple[str, type[GitHub]]
) -> None:
    api, kind = github
    first = act(sample, api, PULL_REQUEST)
    assert first.returncode == 0, first.stdout + first.stderr
    assert len(kind.comments) == 130, "what is as it was is no news"

    without_norm(sample)
    changed = act(sample, api, PULL_REQUEST)
    assert changed.returncode == 1
    comment = kind.comments[130]["body"]
    assert "| convolution | stem | normalized by norm, kept | bare, decoupled |" in comment
    assert "### `model.py` and its reviewed plan `reviewed/plan.json`" in comment
    assert comment.partition("\n")[2] in (sample / "summary.md").read_text()

    (sample / "model.py").write_text(NET)
    mended = act(sample, api, PULL_REQUEST)
    assert mended.returncode == 0
    assert len(kind.comments) == 131
    assert "The model is treated as in the reviewed plan." in kind.comments[130]["body"]


def test_a_check_that_cannot_be_made_fails_and_says_why(
    sample: Path, github: tuple[str, type[GitHub]]
) -> None:
    api, kind = github
    (sample / "model.py").write_text("raise KeyError('weights')\n")
    done = act(sample, api, PULL_REQUEST)
    assert done.returncode == 3
    assert (
        "The check could not be made (the model was not found, or could not be loaded)."
        in kind.comments[130]["body"]
    )
    assert "KeyError: 'weights'" in kind.comments[130]["body"]


def test_without_the_right_to_comment_or_a_pull_request_the_check_counts_all_the_same(
    sample: Path, github: tuple[str, type[GitHub]]
) -> None:
    api, kind = github
    without_norm(sample)
    pushed = act(sample, api, {"ref": "refs/heads/main"})
    assert (pushed.returncode, kind.asked) == (1, [])
    kind.allowed = False
    forked = act(sample, api, PULL_REQUEST)
    assert forked.returncode == 1
    assert "::warning::The pull request could not be commented on: HTTP Error 403" in forked.stdout
