"""Write messages.md: every error that the library and the command raise, and every hint, read from their source.

Run from anywhere: ``python docs/messages.py``.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from sgdph_fx import errors
from sgdph_fx.cli import errors as command_errors
from sgdph_fx.plan.hint_codes import HINTS
from sgdph_fx.report.files import write_text

__all__ = ["PAGE", "Message", "messages", "page"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "messages.md"
LIBRARY, COMMAND = ROOT / "sgdph_fx", ROOT / "cli"
CLASSES: dict[str, type[Exception]] = {
    **{name: getattr(errors, name) for name in errors.__all__},
    **{name: getattr(command_errors, name) for name in command_errors.__all__ if name.endswith("Error")},
    "BadParameter": click.BadParameter,
    "UsageError": click.UsageError,
}

HEAD = """# Messages

Written by `python docs/messages.py` from the code, and held to it by a test. An ellipsis stands for what the message
fills in: a name, a number, a list.

## Errors

Each is a class of `sgdph_fx.errors`.
"""
OF_THE_COMMAND = """
## Errors of the command line

`sgdph-convert` prints an error as one paragraph on standard error, and ends with its [exit code](cli.md#exit-codes).
Errors of the library, above, it prints as they are, with code 4 for a `TraceError` and 6 for any other. With code 2
click says that an option is unknown, that a file must exist, or which option it is that one of these is about.
"""


@dataclass(frozen=True, order=True)
class Message:
    """One place in the code where an error is raised."""

    error: str
    text: str
    where: str
    line: int
    end: int

    @property
    def exit_code(self) -> int:
        """That of the command when it ends by this error."""
        return command_errors.explain(CLASSES[self.error]("")).exit_code


def messages() -> list[Message]:
    """All places, in the order of the errors' names."""
    folders = LIBRARY, COMMAND
    return sorted(m for folder in folders for file in folder.rglob("*.py") for m in _of_file(file))


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
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if name in CLASSES:
                text = _text(call.args[0], functions, assigned) if call.args else ""
                where = file.relative_to(ROOT).as_posix()
                yield Message(
                    name, " ".join(text.split()), where, node.lineno, node.end_lineno or node.lineno
                )


def _text(node: ast.expr, functions: dict[str, ast.FunctionDef], assigned: dict[str, ast.expr]) -> str:
    """The sentence that an expression makes, as far as it stands in the source."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(v, assigned) for v in node.values)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") in functions:
        returned = [
            n.value for n in ast.walk(functions[node.func.id]) if isinstance(n, ast.Return) and n.value
        ]  # type: ignore[attr-defined]
        return _text(returned[-1], {}, {}) if returned else "…"
    if isinstance(node, ast.Name) and node.id in assigned:
        return _text(assigned[node.id], functions, {})
    return "…"


def _part(node: ast.expr, assigned: dict[str, ast.expr]) -> str:
    """A part of an f-string: words, or a constant of the module's own, or what only a run can fill in."""
    named = getattr(node.value, "id", "") if isinstance(node, ast.FormattedValue) else ""
    known = assigned.get(named) if named.isupper() else node
    return known.value if isinstance(known, ast.Constant) and isinstance(known.value, str) else "…"


def page() -> str:
    """The page as it should be."""
    library = [m for m in messages() if m.where.startswith("sgdph_fx/")]
    # What the command hands on from the library is a sentence above its table.
    command = [m for m in messages() if m.where.startswith("cli/") and m.text != "…"]
    lines = [HEAD, "| error | what it says | from |", "|---|---|---|"]
    lines += [f"| `{m.error}` | {_cell(m.text)} | `{m.where}` |" for m in library]
    lines += [OF_THE_COMMAND, "| exit code | what it says | from |", "|---|---|---|"]
    lines += [
        f"| {m.exit_code} | {_cell(m.text)} | `{m.where}` |"
        for m in sorted(command, key=lambda m: (m.exit_code, m.text))
    ]
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
    write_text(PAGE, page())
