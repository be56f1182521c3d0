"""The direction of imports and the order of ``__all__``, read from the source without running it."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[1]

# From the ground up. A module imports from layers below its own, and from inside its own package.
ANALYSIS = (
    {"rules"},
    {"trace"},
    {"flow"},
    {"decouple", "verdicts", "views"},
    {"picture"},
    {"plan", "undecided"},
    {"changes"},
    {"checks", "convolutions", "groups", "noticed", "overrides", "report", "tags"},
    {"pipeline"},
)
OPTIMIZATION = ({"curvature"}, {"optim"})
GROUND = ({"contraction", "errors", "hints"}, {"config", "filters", "rows"})
LAYERS = {
    **{name: layer for layer, names in enumerate((*GROUND, *ANALYSIS)) for name in names},
    **{name: layer for layer, names in enumerate(OPTIMIZATION, len(GROUND)) for name in names},
    "audits": len(GROUND) + len(ANALYSIS),
    "cli": len(GROUND) + len(ANALYSIS) + 1,
}
SIDES = (set().union(*ANALYSIS), set().union(*OPTIMIZATION))

# Packages that one place alone knows.
ONLY_USERS = {
    "networkx": {"flow"},
    "rich": {"report.terminal"},
    "click": {"cli"},
    "safetensors": {"cli"},
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


def own(names: Iterator[str]) -> Iterator[str]:
    """The part directly below ``sgdph_fx`` of each name that is ours; anything else there has no layer."""
    for name in names:
        first, _, rest = name.partition(".")
        if first == "sgdph_fx":
            yield rest.partition(".")[0]


SOURCES = sources()
MODULES = sorted(name for name in SOURCES if name)


def test_every_module_has_its_layer() -> None:
    homeless = sorted({name.partition(".")[0] for name in MODULES} - LAYERS.keys())
    assert homeless == [], "give each a layer in this file, and a line in CONTRIBUTING.md"


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_strictly_downward(name: str) -> None:
    part = name.partition(".")[0]
    upward = [
        used
        for used in own(imports(name, SOURCES[name]))
        if used != part and LAYERS.get(used, len(LAYERS)) >= LAYERS[part]
    ]
    assert upward == []


@pytest.mark.parametrize("name", MODULES)
def test_the_analysis_and_the_optimizer_do_not_know_each_other(name: str) -> None:
    part = name.partition(".")[0]
    for here, there in (SIDES, SIDES[::-1]):
        if part in here:
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


def test_the_package_only_hands_on_public_names() -> None:
    body = ast.parse(SOURCES[""].read_text(encoding="utf-8")).body
    docstring, *rest = body
    assert isinstance(docstring, ast.Expr)
    kinds = {type(node) for node in rest if not _assigns_all(node)}
    assert kinds <= {ast.Import, ast.ImportFrom}


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
