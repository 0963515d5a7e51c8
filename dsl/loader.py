"""Files to modules: finding imports under the roots, and nothing outside them."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from hashlib import sha256
from itertools import islice
from pathlib import Path

from .diagnostics import CompileError, Diagnostic
from .parser import parse
from .scanner import MAX_BYTES
from .source import Source, Span
from .syntax import File, Import

MAX_DEPTH = 16
MAX_FILES = 64
SUFFIX = ".sparse"
LIBRARY = Path(__file__).resolve().parent.parent / "patterns"


@dataclass(frozen=True, slots=True)
class Module:
    """A parsed file with the modules it imports, by the names it calls them."""

    source: Source
    file: File = field(compare=False, repr=False)
    imports: Mapping[str, "Module"] = field(compare=False, repr=False)
    digest: str

    @property
    def name(self) -> str:
        """The file's own name, which is also the name of its main pattern."""
        return Path(self.source.path).stem


def load_file(path: str | os.PathLike[str]) -> Module:
    """The module of a file and its imports; raises CompileError with all syntax and import errors."""
    named = Path(path)
    try:
        text = _read(named, follow=True)
    except _Unreadable as error:
        others = () if os.path.lexists(named) else islice(named.parent.glob(f"*{SUFFIX}"), 200)
        hint = error.hint or _closest(named.name, [p.name for p in others])
        raise CompileError([Diagnostic(error.code, None, f"{named}: {error}", hint)]) from None
    real = Path(os.path.realpath(named))
    return _Loader(search_roots(named.parent)).top(Source(str(named), text), real)


def load_text(text: str, path: str = "<text>", roots: Sequence[Path] | None = None) -> Module:
    """The module of a text; imports are looked up in `roots`, else in WEFT_PATH and the library."""
    source = Source(path, text.replace("\r\n", "\n"))
    return _Loader(search_roots(None) if roots is None else tuple(roots)).top(source, None)


def search_roots(folder: Path | None) -> tuple[Path, ...]:
    """Where imports are looked up: `folder`, then WEFT_PATH, then weft's own patterns."""
    listed = (Path(p) for p in os.environ.get("WEFT_PATH", "").split(os.pathsep) if p)
    return (*(() if folder is None else (folder,)), *listed, LIBRARY)


class _Unreadable(Exception):
    """Why a file cannot be read; the text never quotes the file."""

    def __init__(self, reason: str, code: str = "E010", hint: str = "") -> None:
        super().__init__(reason)
        self.code, self.hint = code, hint


def _read(path: Path, *, follow: bool) -> str:
    """The text of a regular file of bounded size; devices, pipes and (unless `follow`) links are refused."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    if not follow:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        handle = os.open(path, flags)
    except FileNotFoundError:
        raise _Unreadable("there is no such file") from None
    except (OSError, ValueError) as error:
        raise _Unreadable(f"cannot be opened ({getattr(error, 'strerror', None) or 'not a path'})") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise _Unreadable("is not a regular file")
        # The size may lie (procfs) or change, so the read is bounded too.
        with open(handle, "rb", closefd=False) as stream:
            data = stream.read(MAX_BYTES + 1) if status.st_size <= MAX_BYTES else b""
    except OSError as error:
        raise _Unreadable(f"cannot be read ({error.strerror})") from None
    finally:
        os.close(handle)
    if status.st_size > MAX_BYTES or len(data) > MAX_BYTES:
        hint = "patterns may stand in several files: `import lib.window`"
        raise _Unreadable(f"is larger than {MAX_BYTES // 1024} KiB", "E011", hint)
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise _Unreadable(f"is not UTF-8 (byte {error.start})", "E012") from None


class _Loader:
    """One load: the files seen so far, by their real paths, and what was wrong with them."""

    def __init__(self, roots: tuple[Path, ...]) -> None:
        self.roots = roots
        self.modules: dict[Path, Module | None] = {}
        self.chain: list[tuple[Path | None, str]] = []
        self.errors: list[Diagnostic] = []

    def top(self, source: Source, real: Path | None) -> Module:
        module = self._module(source, real)
        if self.errors or module is None:
            raise CompileError(self.errors)
        return module

    def _module(self, source: Source, real: Path | None) -> Module | None:
        try:
            file = parse(source)
        except CompileError as error:
            self.errors.extend(error.diagnostics)
            return None
        self.chain.append((real, source.path))
        imports: dict[str, Module] = {}
        for line in file.imports:
            module = self._import(line)
            if module is not None:
                # The checker reports names given twice; the first one counts.
                imports.setdefault(line.alias, module)
        self.chain.pop()
        return Module(source, file, imports, _digest(source, imports))

    def _import(self, line: Import) -> Module | None:
        found = self._find(line)
        if found is None:
            return None
        path, real = found
        names = [name for at, name in self.chain if at == real]
        if names:
            start = [at for at, _ in self.chain].index(real)
            circle = " -> ".join([*(name for _, name in self.chain[start:]), names[0]])
            return self._fail("E009", line.span, f"imports in a circle: {circle}")
        if real in self.modules:
            return self.modules[real]
        if len(self.chain) >= MAX_DEPTH:
            return self._fail("E011", line.span, f"imports nested deeper than {MAX_DEPTH} files")
        if len(self.modules) + 1 >= MAX_FILES:
            return self._fail("E011", line.span, f"more than {MAX_FILES} files in one compilation")
        try:
            # The real path was resolved and judged; a link put there since is not followed.
            text = _read(real, follow=False)
        except _Unreadable as error:
            self.modules[real] = None
            return self._fail(error.code, line.span, f"`{'.'.join(line.path)}` {error}")
        self.modules[real] = self._module(Source(str(path), text), real)
        return self.modules[real]

    def _find(self, line: Import) -> tuple[Path, Path] | None:
        """The path of an import as the user would write it, and its real path; None once reported."""
        dotted = ".".join(line.path)
        relative = Path(*line.path[:-1], line.path[-1] + SUFFIX)
        bounds = [Path(os.path.realpath(root)) for root in self.roots]
        for root in self.roots:
            path = root / relative
            if not os.path.lexists(path):
                continue
            real = Path(os.path.realpath(path))
            if not any(real.is_relative_to(bound) for bound in bounds):
                return self._fail("E010", line.span, f"`{dotted}` leads outside the folders imports may come from")
            return path, real
        self._fail("E010", line.span, f"there is no `{dotted}` to import", _closest(dotted, self._available()))
        return None

    def _available(self) -> list[str]:
        """Names that an import could have, for the hint."""
        return [name for root in self.roots for name in _names(root)]

    def _fail(self, code: str, span: Span | None, message: str, hint: str = "") -> None:
        self.errors.append(Diagnostic(code, span, message, hint))


def _names(root: Path) -> Iterator[str]:
    """Dotted names of the files under a root: three levels and a few thousand entries, a hint is not worth more."""
    folders = [(root, "", 1)]
    left = 2000
    while folders and left > 0:
        folder, prefix, depth = folders.pop(0)
        try:
            with os.scandir(folder) as entries:
                found = list(islice(entries, left))
        except OSError:
            continue
        left -= len(found)
        for entry in sorted(found, key=lambda e: e.name):
            stem, suffix = os.path.splitext(entry.name)
            if suffix == SUFFIX:
                yield prefix + stem
            elif depth < 3 and entry.name.isidentifier() and entry.is_dir(follow_symlinks=False):
                folders.append((Path(entry.path), f"{prefix}{entry.name}.", depth + 1))


def _closest(name: str, known: Sequence[str]) -> str:
    namesakes = [k for k in known if k.split(".")[-1] == name]
    close = namesakes or get_close_matches(name, sorted(set(known)), n=1)
    return f"did you mean `{close[0]}`?" if close else ""


def _digest(source: Source, imports: Mapping[str, Module]) -> str:
    """What a cache may key on: the text, and the digest of everything it imports."""
    state = sha256(source.text.encode("utf-8", "surrogatepass"))
    state.update(b"\0")
    for alias, module in sorted(imports.items()):
        state.update(f"{alias}={module.digest}\n".encode())
    return state.hexdigest()
