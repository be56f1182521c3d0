"""The direction of imports and the order of ``__all__``, read from the source without running it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

import sgdph_fx

ROOT = Path(__file__).parents[1]

# From the ground up: thirteen floors, a line for each. A module imports from floors below its own and from its room.
# A room is a folder, or a module that stands by itself.
FLOORS = (
    {"errors", "transform.filter_layout", "transform.fused", "transform.references"},
    {"transform.fused_weight"},
    {"rules", "transform.filters"},
    {"transform", "curvature"},
    {"plan", "optim"},
    {"trace"},
    {"analysis"},
    {"report"},
    {"checks", "transform.verification"},
    {"pipeline"},
    {"audits", "plan.checkpoint"},
    {"cli"},
    {"__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# Neither side imports the other: the analysis and the optimizer meet in plain parameter groups.
SIDES = (
    {
        "rules",
        "trace",
        "analysis",
        "plan",
        "report",
        "checks",
        "pipeline",
        "transform",
        "transform.verification",
    },
    {"curvature", "optim"},
)

# Packages that one place alone knows.
ONLY_USERS = {
    "networkx": {"analysis.flow"},
    "rich": {"report.terminal"},
    "click": {"cli"},
    "safetensors": {"plan.checkpoint", "cli"},
    "matplotlib": {"audits"},
}


def sources() -> dict[str, Path]:
    """Module names below ``sgdph_fx.`` and their files; ``""`` is the package itself."""
    files = {**_named(ROOT / "sgdph_fx", ()), **_named(ROOT / "cli", ("cli",))}
    return {name.removesuffix("__init__").rstrip("."): path for name, path in files.items()}


def _named(folder: Path, prefix: tuple[str, ...]) -> dict[str, Path]:
    paths = sorted(folder.rglob("*.py"))
    return {".".join((*prefix, *p.relative_to(folder).with_suffix("").parts)): p for p in paths}


def imports(name: str, path: Path) -> Iterator[str]:
    """Full names of all that a module imports, wherever in it."""
    package = ["sgdph_fx", *name.split(".")]
    if path.name != "__init__.py":
        package.pop()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """The room that a module of ours stands in, named from below ``sgdph_fx.``; its first word, if it has none."""
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in FLOOR), parts[0])


def own(names: Iterator[str]) -> Iterator[str]:
    """The rooms of those names that are ours."""
    for name in names:
        first, _, rest = name.partition(".")
        if first == "sgdph_fx":
            yield room(rest)


SOURCES = sources()
MODULES = sorted(name for name in SOURCES if name)


def test_every_module_has_its_floor() -> None:
    homeless = sorted({room(name) for name in MODULES} - FLOOR.keys())
    assert homeless == [], "give each a floor in this file, and a line in CONTRIBUTING.md"


def test_the_top_of_the_package_fits_in_the_head() -> None:
    top = [path for path in (ROOT / "sgdph_fx").iterdir() if path.name != "__pycache__"]
    assert len([path for path in top if path.is_file()]) <= 6
    assert len([path for path in top if path.is_dir()]) <= 9


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_strictly_downward(name: str) -> None:
    here = room(name)
    upward = [
        used
        for used in own(imports(name, SOURCES[name]))
        if used != here and FLOOR.get(used, len(FLOOR)) >= FLOOR[here]
    ]
    assert upward == []


@pytest.mark.parametrize("name", MODULES)
def test_the_analysis_and_the_optimizer_do_not_know_each_other(name: str) -> None:
    for here, there in (SIDES, SIDES[::-1]):
        if room(name) in here:
            assert there.intersection(own(imports(name, SOURCES[name]))) == set()


@pytest.mark.parametrize("package", ONLY_USERS)
def test_a_dependency_stays_in_its_one_place(package: str) -> None:
    users = {
        name
        for name in MODULES
        if package in {used.partition(".")[0] for used in imports(name, SOURCES[name])}
    }
    allowed = ONLY_USERS[package]
    assert {u for u in users if not any(u == a or u.startswith(f"{a}.") for a in allowed)} == set()


def test_the_package_only_hands_on_public_names_and_each_is_imported_from_its_home() -> None:
    body = ast.parse(SOURCES[""].read_text(encoding="utf-8")).body
    (typed,) = (node for node in body if isinstance(node, ast.If) and isinstance(node.test, ast.Name))
    homes = {
        alias.name: (node.module or "").removeprefix("sgdph_fx.")
        for node in typed.body
        if isinstance(node, ast.ImportFrom) and node.module != "sgdph_fx"
        for alias in node.names
    }
    assert homes == sgdph_fx._HOMES
    assert {*homes, "errors"} == {*sgdph_fx.__all__}


@pytest.mark.parametrize("module", ["sgdph_fx", "sgdph_fx.plan.config", "sgdph_fx.cli.main"])
def test_what_a_shell_completes_needs_no_torch(module: str) -> None:
    heavy = "{'torch', 'numpy', 'rich', 'networkx', 'safetensors'} & {*sys.modules}"
    script = f"import sys, {module}; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_analysis_needs_no_torchvision() -> None:
    script = "import sys, sgdph_fx.pipeline; print({'torchvision', 'torch._dynamo'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("name", MODULES)
def test_all_is_there_and_sorted(name: str) -> None:
    body = ast.parse(SOURCES[name].read_text(encoding="utf-8")).body
    (names,) = (ast.literal_eval(node.value) for node in body if _assigns_all(node) and node.value)
    assert names == sorted(names, key=_constants_classes_functions)
    assert len(names) == len(set(names))


def _assigns_all(node: ast.stmt) -> TypeGuard[ast.Assign | ast.AnnAssign]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets)


def _constants_classes_functions(name: str) -> tuple[int, str]:
    """The order that ruff keeps too (its rule RUF022)."""
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2), name
