"""What the GitHub Action does: check a model, and comment the difference on the pull request.

Everything comes by environment variables: those of ``action.yml``, and GitHub's own. A comment is found again by a mark
in it, so that a pull request has one for each model, however often it is pushed to.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .exit_codes import EXIT_CODES

__all__ = ["main"]

# GitHub takes 65,536 characters.
LONGEST = 60_000
PER_PAGE = 100


@dataclass(frozen=True, slots=True)
class Checked:
    """How a check ended.

    Args:
        code: The exit code of ``sgdph-convert --check``.
        text: What to say about it, as Markdown.
    """

    code: int
    text: str


def main() -> None:
    """Check, report, and end with the check's exit code."""
    environment = os.environ
    model, plan = environment["SGDPH_MODEL"], environment["SGDPH_PLAN"]
    checked = _check(model, plan, shlex.split(environment.get("SGDPH_OPTIONS", "")))
    mark = f"<!-- sgdph-fx {hashlib.sha256(f'{model} {plan}'.encode()).hexdigest()[:12]} -->"
    if summary := environment.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a", encoding="utf-8") as stream:
            stream.write(f"{checked.text}\n")
    if environment.get("SGDPH_COMMENT") == "true" and (number := _pull_request(environment)):
        try:
            _comment(environment, number, f"{mark}\n{checked.text}", mark, is_news=checked.code != 0)
        except (urllib.error.URLError, OSError, ValueError) as error:
            # A pull request from a fork has no right to it; the check's result is what counts.
            print(f"::warning::The pull request could not be commented on: {error}")
    sys.exit(checked.code)


def _check(model: str, plan: str, options: list[str]) -> Checked:
    command = [sys.executable, "-m", "sgdph_fx", model, *options, "--check", plan, "--markdown"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    print(done.stdout, done.stderr, sep="", end="", flush=True)
    title = f"### `{model}` and its reviewed plan `{plan}`"
    if done.returncode == 0:
        return Checked(0, f"{title}\n\nThe model is treated as in the reviewed plan.")
    if done.returncode == 1:
        advice = "If the new plan is as it should be, commit it in place of the old one."
        return Checked(1, f"{title}\n\n{_cut(done.stdout)}\n\n{advice}")
    meaning = EXIT_CODES.get(done.returncode, "ended by a signal")
    why = f"```text\n{_cut(done.stderr)}\n```"
    return Checked(done.returncode, f"{title}\n\nThe check could not be made ({meaning}).\n\n{why}")


def _cut(text: str) -> str:
    if len(text) <= LONGEST:
        return text.strip()
    whole_lines = text[:LONGEST].rpartition("\n")[0]
    folded = "\n\n</details>" if whole_lines.count("<details>") > whole_lines.count("</details>") else ""
    return f"{whole_lines}{folded}\n\nThe rest is in the log."


def _pull_request(environment: Mapping[str, str]) -> int | None:
    """Its number, if the event is about one."""
    if not (path := environment.get("GITHUB_EVENT_PATH")):
        return None
    event = json.loads(Path(path).read_text(encoding="utf-8"))
    number: int | None = event.get("pull_request", {}).get("number")
    return number


def _comment(environment: Mapping[str, str], number: int, body: str, mark: str, *, is_news: bool) -> None:
    """Bring the comment with ``mark`` up to date; a first one is made only for news."""
    api, repository = environment["GITHUB_API_URL"], environment["GITHUB_REPOSITORY"]
    issues, token = f"{api}/repos/{repository}/issues", environment["SGDPH_TOKEN"]
    for comment in _comments(f"{issues}/{number}/comments", token):
        if str(comment.get("body", "")).startswith(mark):
            _ask("PATCH", f"{issues}/comments/{comment['id']}", token, {"body": body})
            return
    if is_news:
        _ask("POST", f"{issues}/{number}/comments", token, {"body": body})


def _comments(url: str, token: str) -> Iterator[dict[str, Any]]:
    page = 1
    while True:
        found = _ask("GET", f"{url}?per_page={PER_PAGE}&page={page}", token)
        yield from found
        if len(found) < PER_PAGE:
            return
        page += 1


def _ask(method: str, url: str, token: str, content: dict[str, str] | None = None) -> Any:
    request = urllib.request.Request(
        url,
        None if content is None else json.dumps(content).encode(),
        {"Authorization": f"Bearer {token}", "Accept": "application/vnd.github+json"},
        method=method,
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
