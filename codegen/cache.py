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
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from ..compiler.verify import InternalError
from .gate import verify

LAYOUT = "v1"
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


def cache_folder() -> Path:
    """Where the files go; the Python tag is part of it because it is part of what they were tested with."""
    chosen, xdg = os.environ.get("WEFT_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME", "")
    if chosen:
        root = Path(chosen).absolute()
    elif os.path.isabs(xdg):
        root = Path(xdg, "weft")
    else:
        root = Path.home() / ".cache" / "weft"
    return root / LAYOUT / (sys.implementation.cache_tag or sys.implementation.name)


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
        _prepare(folder)
        if _read(folder / name) != data:
            _write(folder / name, data)
        return str(folder / name)
    except (OSError, RuntimeError) as error:  # Path.home() raises the latter
        if not _warned:
            _warned = True
            warnings.warn(f"weft keeps its generated kernels in memory only: {error}", RuntimeWarning, stacklevel=4)
        return None


def _prepare(folder: Path) -> None:
    """Make a private folder and its two parents; raise PermissionError if somebody else could change one."""
    chain = (folder.parent.parent, folder.parent, folder)
    chain[0].parent.mkdir(parents=True, exist_ok=True)
    for part in chain:
        with suppress(FileExistsError):
            part.mkdir(mode=0o700)
        status = part.lstat()
        if not stat.S_ISDIR(status.st_mode):
            raise PermissionError(f"{part} is not a folder, or is a link to one")
        if status.st_uid != os.geteuid():
            raise PermissionError(f"{part} belongs to somebody else")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise PermissionError(f"others can write to {part} (chmod go-w would mend it)")


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
