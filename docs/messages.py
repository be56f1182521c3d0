"""Write messages.md: every error that the library and the command raise, and every hint, read from their source.

Run from anywhere: ``python docs/messages.py``.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sgdph_fx import errors
from sgdph_fx.cli import errors as command_errors
from sgdph_fx.hints import HINTS

__all__ = ["PAGE", "Message", "messages", "page"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "messages.md"
CODE = (ROOT / "sgdph_fx", ROOT / "cli")
NAMES = {*errors.__all__, *(n for n in command_errors.__all__ if n.endswith("Error"))}

HEAD = """# Messages

Written by `python docs/messages.py` from the code, and held to it by a test. An ellipsis stands for what the message
fills in: a name, a number, a list.

## Errors

Each is a class of `sgdph_fx.errors`, or of the command line; [its exit codes](cli.md#exit-codes) are listed there.
"""


@dataclass(frozen=True, order=True)
class Message:
    """One place in the code where an error is raised."""

    error: str
    text: str
    where: str
    line: int


def messages() -> list[Message]:
    """All places, in the order of the errors' names."""
    return sorted(m for folder in CODE for file in folder.rglob("*.py") for m in _of_file(file))


def _of_file(file: Path) -> Iterator[Message]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assigned = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise | ast.Return) and isinstance(
            node.exc if isinstance(node, ast.Raise) else node.value, ast.Call
        ):
            call = node.exc if isinstance(node, ast.Raise) else node.value
            assert isinstance(call, ast.Call)
            name = getattr(call.func, "id", "")
            if name in NAMES:
                text = _text(call.args[0], functions, assigned) if call.args else ""
                yield Message(name, " ".join(text.split()), file.relative_to(ROOT).as_posix(), node.lineno)


def _text(node: ast.expr, functions: dict[str, ast.FunctionDef], assigned: dict[str, ast.expr]) -> str:
    """The sentence that an expression makes, as far as it stands in the source."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(
            v.value if isinstance(v, ast.Constant) and isinstance(v.value, str) else "…" for v in node.values
        )
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in functions:
        returned = [
            n.value for n in ast.walk(functions[node.func.id]) if isinstance(n, ast.Return) and n.value
        ]  # type: ignore[attr-defined]
        return _text(returned[-1], {}, {}) if returned else "…"
    if isinstance(node, ast.Name) and node.id in assigned:
        return _text(assigned[node.id], functions, {})
    return "…"


def page() -> str:
    """The page as it should be."""
    lines = [HEAD, "| error | what it says | from |", "|---|---|---|"]
    lines += [f"| `{m.error}` | {_cell(m.text)} | `{m.where}` |" for m in messages()]
    lines += [
        "",
        "## Hints",
        "",
        "A report's hints are no errors. `Config(silence=...)` and `--silence CODE` leave them out.",
        "",
    ]
    lines += ["| code | what it means, and what to do |", "|---|---|"]
    lines += [f"| `{code}` | {_cell(text)} |" for code, text in HINTS.items()]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "\\<").strip() or "…"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
