"""Generated kernel modules, by content: one file each in the user's cache, or in memory where that is not safe."""

import hashlib
import importlib.abc
import importlib.util
import linecache
import os
import re
import secrets
import stat
import sys
import threading
import warnings
from pathlib import Path
from types import ModuleType

from ..compiler.verify import InternalError
from ..dsl.cache_folder import cache_folder, make_private
from .gate import verify

_modules: dict[str, ModuleType] = {}
_lock = threading.Lock()
_warned = False


def store(source: str, stem: str) -> ModuleType:
    """The module of a generated source, checked, kept on disk as `<stem>_<digest>.py` and run once a process."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", stem) is None:
        raise InternalError(f"{stem!r} cannot be part of a file name")
    name = f"{stem}_{hashlib.sha256(source.encode('utf-8', 'backslashreplace')).hexdigest()[:16]}"
    with _lock:
        module = _modules.get(name)
        if module is None:
            verify(source)
            module = _modules[name] = _run(source, name)
    return module


class _Loader(importlib.abc.ExecutionLoader):
    """Runs the text that was checked, whatever the file says by now, and leaves no bytecode to trust."""

    def __init__(self, source: str, path: str) -> None:
        self.source, self.path = source, path

    def get_source(self, fullname: str) -> str:
        return self.source

    def get_filename(self, fullname: str) -> str:
        return self.path


def _run(source: str, name: str) -> ModuleType:
    """Import a checked source under a name of its own."""
    path = _keep(source.encode(), f"{name}.py") or f"<weft {name}>"
    # `@triton.jit` asks inspect for its source: answer with what runs, on disk or not.
    linecache.cache[path] = (len(source), None, source.splitlines(keepends=True), path)
    full_name = f"weft.generated.{name}"
    loader = _Loader(source, path)
    spec = importlib.util.spec_from_loader(full_name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[full_name] = module
    return module


def _keep(data: bytes, name: str) -> str | None:
    """Write a file unless it is there already; None, after one warning a process, if that is not safe or possible."""
    global _warned
    try:
        folder = cache_folder()
        make_private(folder)
        if _read(folder / name) != data:
            _write(folder / name, data)
        return str(folder / name)
    except (OSError, RuntimeError) as error:  # Path.home() raises the latter
        if not _warned:
            _warned = True
            warnings.warn(f"weft keeps its generated kernels in memory only: {error}", RuntimeWarning, stacklevel=4)
        return None


def _read(path: Path) -> bytes | None:
    """A regular file's content; None for anything else."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _write(path: Path, data: bytes) -> None:
    """Replace a file in one step, so that a reader sees all of it or none."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _renew_lock() -> None:
    """A child may be forked while another thread holds the lock."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)
