"""What is installed from the wheel works outside the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
BUILT_FROM = ("pyproject.toml", "README.md", "LICENSE", "sgdph_fx", "cli")
LOCAL = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*_cache")


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no build folder of an earlier build can leak into it."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in BUILT_FROM:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / name, ignore=LOCAL)
        else:
            shutil.copy(ROOT / name, source / name)
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", target, source, folder=target)
    (built,) = target.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    library = {f"sgdph_fx/{p.relative_to(ROOT / 'sgdph_fx').as_posix()}" for p in python(ROOT / "sgdph_fx")}
    command = {f"sgdph_fx/cli/{p.relative_to(ROOT / 'cli').as_posix()}" for p in python(ROOT / "cli")}
    report = ROOT / "sgdph_fx" / "report"
    shown = {p.relative_to(ROOT).as_posix() for p in report.rglob("*") if p.is_file() and not _is_python(p)}
    assert packed == library | command | shown | {"sgdph_fx/py.typed"}
    assert "sgdph_fx/report/page/vendor/dagre.LICENSE.txt" in packed
    assert "sgdph_fx/cli/main.py" in packed


def _is_python(path: Path) -> bool:
    return path.suffix in (".py", ".pyc")


def python(folder: Path) -> list[Path]:
    return [*folder.rglob("*.py")]


def test_the_wheel_runs_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", target, wheel)
    run(*install, folder=elsewhere)
    where = "import sgdph_fx.cli.main as m; print(m.__file__)"
    assert run("-c", where, folder=elsewhere, PYTHONPATH=str(target)).strip().startswith(str(target))
    version = run("-m", "sgdph_fx", "--version", folder=elsewhere, PYTHONPATH=str(target))
    assert version == "sgdph-convert, version 0.1.0\n"
    assert (target / "bin" / "sgdph-convert").is_file()


def test_every_dependency_has_a_floor_and_the_readme_names_torchs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [one for several in project["optional-dependencies"].values() for one in several]
    floors = {}
    for requirement in [*project["dependencies"], *extras]:
        name, floor = re.fullmatch(r"([\w-]+)>=([\d.]+)(?:; .*)?", requirement).groups()  # type: ignore[union-attr]
        floors.setdefault(name, floor)
    assert f"PyTorch, {floors['torch']} or later" in (ROOT / "README.md").read_text()
    # The two are released together.
    major, minor = floors["torch"].split(".")
    assert (major, floors["torchvision"]) == ("2", f"0.{int(minor) + 15}")
