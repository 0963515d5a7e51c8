"""`import weft.importer`: from then on, `from mypackage.masks import power` also finds `power.sparse`."""

import importlib.abc
import importlib.util
import os
import pkgutil
import sys
import zipimport
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .compiler.lower import Given
from .dsl.diagnostics import CompileError, Diagnostic
from .pattern import Pattern, load_file_patterns
from .stacks import load_file_stacks

__all__ = ["SparseError", "install", "uninstall"]

SUFFIX = ".sparse"


class SparseError(SyntaxError):
    """A `.sparse` file that cannot be imported; its cause is the CompileError with every diagnostic."""


def at_first(error: CompileError, path: str) -> SparseError:
    """The error that Python shows with the line of the first diagnostic."""
    first = error.diagnostics[0]
    message = f"{first.severity}[{first.code}]: {first.message}"
    if first.span is None:
        return SparseError(message, (path, None, None, None))
    source = first.span.source
    line, column = source.position(first.span.start)
    return SparseError(message, (source.path, line, column, source.line(line), *source.position(first.span.end)))


class PatternModule(ModuleType):
    """A module of patterns, which also stands for the main one: `from masks import power`, then `power.attention(..)`.

    The main one is the module's namesake, else its last.
    """

    def __getattr__(self, name: str) -> Any:
        main = self._main()
        if name.startswith("__") or not hasattr(main, name):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return getattr(main, name)

    def __call__(self, /, **params: Given) -> Any:
        main = self._main()
        if main is None:
            raise TypeError(f"module {self.__name__!r} has no pattern to call")
        return main(**params)

    def _main(self) -> Any:
        names: list[str] = vars(self).get("__all__", [])
        stem = self.__name__.rpartition(".")[2]
        return vars(self)[stem if stem in names else names[-1]] if names else None


class SparseLoader(importlib.abc.ExecutionLoader):
    """Runs nothing: a module's patterns are made by `weft.load_file_patterns`, so there is no bytecode either."""

    def __init__(self, path: str, read: Callable[[], bytes]) -> None:
        self.path, self.read = path, read

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_source(self, fullname: str) -> str:
        try:
            return self.read().decode("utf-8-sig")
        except UnicodeDecodeError as error:
            message = f"{self.path}: byte {error.start} is not UTF-8 text"
            raise CompileError([Diagnostic("E012", None, message)]) from None

    def get_code(self, fullname: str) -> None:
        return None

    def is_package(self, fullname: str) -> bool:
        return False

    def exec_module(self, module: ModuleType) -> None:
        try:
            text = self.get_source(module.__name__)
            patterns = load_file_patterns(text, self.path)
            found = {**load_file_stacks(text, self.path), **patterns}
            for pattern in patterns.values():
                prepare(pattern)
        except CompileError as error:
            # Where in the compiler it was noticed is no news to the author of a pattern.
            raise at_first(error, self.path) from error.with_traceback(None)
        for name in getattr(module, "__all__", ()):  # a reload forgets what the file no longer has
            vars(module).pop(name, None)
        vars(module).update(found, __all__=list(found))
        module.__doc__ = "\n\n".join(f"{name}: {pattern.doc}" for name, pattern in found.items())
        module.__class__ = PatternModule


class SparseFinder(importlib.abc.MetaPathFinder):
    """Finds NAME.sparse where NAME.py would be; asked last, so a Python module always wins."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        name = fullname.rpartition(".")[2] + SUFFIX
        for entry in sys.path if path is None else path:
            found = os.path.join(entry or os.getcwd(), name)
            read = reader(entry, found)
            if read is not None:
                return importlib.util.spec_from_file_location(fullname, found, loader=SparseLoader(found, read))
        return None


def reader(entry: str, path: str) -> Callable[[], bytes] | None:
    """How to read a file of a folder, or of a zip archive, on the search path; None where there is none."""
    if os.path.isfile(path):
        return lambda: read_file(path)
    if os.path.isdir(entry):
        return None
    archive = pkgutil.get_importer(entry)
    if not isinstance(archive, zipimport.zipimporter):
        return None
    try:
        archive.get_data(path)
    except OSError:
        return None
    return lambda: archive.get_data(path)


def read_file(path: str) -> bytes:
    """The content of a file."""
    with open(path, "rb") as file:
        return file.read()


def prepare(pattern: Pattern) -> None:
    """Check what a pattern means; make machine code only for the cases that the file or WEFT_PRECOMPILE names."""
    pattern.prepare()
    if pattern.dynamic:
        return  # its kernel depends on the sizes of a call
    if any(p.default is None for p in pattern.definition.parameters):
        return  # there is nothing to compile before somebody gives its parameters
    here = local_target() if pattern.file.precompiles else None
    for line in pattern.file.precompiles:
        if here is not None:
            pattern.precompile(here, line.dtype, line.head_dim)
    for case in filter(None, os.environ.get("WEFT_PRECOMPILE", "").split(",")):
        match case.strip().split(":"):
            case [target, dtype, head_dim] if head_dim.isdecimal():
                pattern.precompile(target, dtype, int(head_dim))
            case _:
                raise ValueError(f"WEFT_PRECOMPILE: {case!r} is not TARGET:DTYPE:HEAD_DIM, such as sm90:bf16:128")


def local_target() -> str | None:
    """What a file's own `precompile` lines compile for: this machine's first GPU, if there is one."""
    import torch

    if not torch.cuda.is_available() or torch.version.hip:
        return None
    from .codegen.ahead import TARGETS

    major, minor = torch.cuda.get_device_capability(0)
    name = f"sm{major}{minor}"
    return name if name in TARGETS else None  # others compile at their first call


_FINDER = SparseFinder()


def install() -> None:
    """Ask the finder for modules that nobody else has; importing `weft.importer` has done it once."""
    if _FINDER not in sys.meta_path:
        sys.meta_path.append(_FINDER)


def uninstall() -> None:
    """Stop finding `.sparse` files; modules already imported stay."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)


install()
