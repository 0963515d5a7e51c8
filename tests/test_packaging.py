"""What users install: the wheel and the sdist hold everything, once, and the links behind them are whole."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import weft

from .lint_sizes import PACKAGES, faults

ROOT = Path(__file__).resolve().parent.parent
# Imports every module of the package it finds on the path, and prints each one's name and real file.
IMPORT_ALL = """
import os, pkgutil, sys, weft
for found in pkgutil.walk_packages([os.path.dirname(weft.__file__)], "weft."):
    if not found.name.endswith("__main__"):
        __import__(found.name)
for name, module in sorted(sys.modules.items()):
    if name.split(".")[0] in {"weft", "dsl", "compiler", "codegen", "patterns"}:
        print(name, os.path.realpath(module.__file__))
"""


def run(*command: str | Path, cwd: Path, path: Path | None = None) -> str:
    """The output of a command that must succeed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=240, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def imported(path: Path, cwd: Path) -> dict[str, Path]:
    """Module name to file, with every module of the `weft` in `path` imported."""
    lines = (line.split(" ", 1) for line in run("-c", IMPORT_ALL, cwd=cwd, path=path).splitlines())
    return {name: Path(file) for name, file in lines}


def own_files(suffixes: tuple[str, ...]) -> set[str]:
    """What a wheel must hold, by the names it has there."""
    links = {"weft/" + p.relative_to(ROOT).as_posix() for d in PACKAGES for p in (ROOT / d).rglob("*")}
    thin = {p.relative_to(ROOT).as_posix() for p in (ROOT / "weft").iterdir()}
    return {name for name in links | thin if name.endswith(suffixes) and "__pycache__" not in name}


def test_links() -> None:
    for name in PACKAGES:
        assert (ROOT / "weft" / name).is_symlink()
        assert (ROOT / "weft" / name).resolve() == ROOT / name
        assert (ROOT / name / "__init__.py").is_file()


def test_house_rules() -> None:
    assert faults() == []


@pytest.mark.skipif(Path(weft.__file__).parent != ROOT / "weft", reason="tests something that is installed")
def test_every_module_once_in_a_checkout(tmp_path: Path) -> None:
    modules = imported(ROOT, tmp_path)
    assert "weft.dsl.parser" in modules and modules["weft.dsl.parser"] == ROOT / "dsl" / "parser.py"
    assert {name.partition(".")[0] for name in modules} == {"weft"}
    assert len(set(modules.values())) == len(modules)


def test_wheel_and_sdist(tmp_path: Path) -> None:
    """One build, many facts: it takes seconds."""
    pytest.importorskip("build")
    source, target = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in (*PACKAGES, "weft"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    run("-m", "build", "--no-isolation", "--outdir", tmp_path / "dist", source, cwd=tmp_path)
    (sdist,), (wheel,) = (tmp_path / "dist").glob("*.tar.gz"), (tmp_path / "dist").glob("*.whl")

    expected = own_files((".py", ".html", ".lark", ".sparse", "py.typed"))
    named = {"weft/dsl/grammar.lark", "weft/compiler/coverage_page.html", "weft/py.typed", "weft/dsl/parser.py"}
    assert named <= expected
    held = set(zipfile.ZipFile(wheel).namelist())
    assert {name.partition("/")[0] for name in held} == {"weft", f"weft-{weft.__version__}.dist-info"}
    assert expected - held == set()
    with tarfile.open(sdist) as archive:
        assert expected - {name.partition("/")[2] for name in archive.getnames()} == set()
        assert not any(member.issym() for member in archive)

    zipfile.ZipFile(wheel).extractall(target)  # what pip does with a pure wheel, but in milliseconds
    modules = imported(target, tmp_path)
    assert modules["weft.dsl.parser"] == target.resolve() / "weft" / "dsl" / "parser.py"
    assert all(file.is_relative_to(target.resolve()) for file in modules.values())
    assert len(set(modules.values())) == len(modules)


def test_version_is_said_once() -> None:
    assert f'\nversion = "{weft.__version__}"\n' in (ROOT / "pyproject.toml").read_text()
