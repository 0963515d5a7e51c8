"""A fault, which is text changed in one place, and how to run a module or a function with it."""

import __future__

import importlib.util
import inspect
import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from types import FunctionType, ModuleType
from typing import Any

import pytest

import weft.codegen


@dataclass(frozen=True)
class Mutant:
    """The first place after `part` where `old` (a regular expression) matches is replaced."""

    name: str
    subject: str
    old: str
    new: str
    part: str = ""

    def apply(self, source: str) -> str:
        before, part, after = source.partition(self.part) if self.part else ("", "", source)
        return before + part + re.sub(self.old, self.new, after, count=1)


def title(mutant: Mutant) -> str:
    return f"{mutant.subject}: {mutant.name}"


def untouched(subject: str) -> Mutant:
    """No fault: what the checks must pass with."""
    return Mutant("none", subject, "", "")


@contextmanager
def imported(module: ModuleType, mutant: Mutant, folder: Path) -> Generator[None]:
    """A kernel module of weft.codegen with the fault, in place of the true one."""
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    changed, path = mutant.apply(source), folder / "faulty.py"
    assert changed != source or not mutant.old, f"{module.__name__} has no {mutant.old}"
    path.write_text(changed)
    spec = importlib.util.spec_from_file_location("faulty", path)
    assert spec and spec.loader
    faulty = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faulty)
    name = module.__name__.rpartition(".")[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, faulty)
        patch.setattr(weft.codegen, name, faulty)
        yield


@contextmanager
def rewritten(owner: ModuleType | type, name: str, mutant: Mutant) -> Generator[None]:
    """A function of a module or a class with the fault, wherever it is called from."""
    function: FunctionType = getattr(owner, name)
    source, true = dedent(inspect.getsource(function)), function.__code__
    changed, names = mutant.apply(source), dict[str, Any](function.__globals__)
    assert changed != source or not mutant.old, f"{name} has no {mutant.old}"
    # Annotations may name what is imported for a type checker alone.
    exec(compile(changed, "faulty", "exec", __future__.annotations.compiler_flag, dont_inherit=True), names)
    function.__code__ = names[name].__code__
    try:
        yield
    finally:
        function.__code__ = true
