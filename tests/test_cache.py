"""The kernel cache: what it keeps, whom it does not trust, and what the gate lets through."""

import errno
import inspect
import os
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import weft
from weft.codegen import cache
from weft.compiler.verify import InternalError

PLAIN = '"""A module without kernels, so that nothing has to import triton."""\n\nLIMIT = 3\n'
KERNEL = """
import triton
import triton.language as tl

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)

@triton.jit(do_not_specialize=("n", "o_ptr"))
def scale(x_ptr, o_ptr, n, FACTOR: tl.constexpr, BLOCK: tl.constexpr = 128):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)  # scale.sparse:3: keep q >= k
    best = tl.full([BLOCK], float("-inf"), tl.float32)
    for start in range(0, n, BLOCK):
        x = tl.load(x_ptr + start + i, mask=i < n, other=0.0)
        if FACTOR is not None:
            x = x * -FACTOR + LOG2E
        best = tl.maximum(best, tl.math.exp2(x))
    tl.store(o_ptr + i, best[:].to(o_ptr.dtype.element_ty), mask=(i < n) & ~(i > 7))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache, as a new process would see it."""
    monkeypatch.setenv("WEFT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(cache, "_modules", {})
    monkeypatch.setattr(cache, "_warned", False)
    return cache.cache_folder()


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a restart of Python forgets."""
    monkeypatch.setattr(cache, "_modules", {})


def where(module: ModuleType) -> Path:
    assert module.__file__ is not None
    return Path(module.__file__)


def test_kept_by_content(folder: Path) -> None:
    first, again = cache.store(PLAIN, "plain"), cache.store(PLAIN, "plain")
    other = cache.store(PLAIN + "\n", "plain")
    assert first is again and first is not other and first.LIMIT == 3
    assert where(first).parent == where(other).parent == folder
    assert where(first).read_text() == PLAIN and where(first).name.startswith("plain_")
    assert sys.modules[first.__name__] is first
    assert sorted(p.name for p in folder.iterdir()) == sorted([where(first).name, where(other).name])


def test_private(folder: Path) -> None:
    path = where(cache.store(PLAIN, "plain"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(p.stat().st_mode) for p in (folder, folder.parent, folder.parent.parent)] == [0o700] * 3


def test_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WEFT_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_folder().is_relative_to(tmp_path / "xdg" / "weft" / "v1")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert cache.cache_folder().is_relative_to(tmp_path / ".cache" / "weft" / "v1")


@pytest.mark.parametrize("writable", [True, False], ids=["file", "memory"])
@pytest.mark.filterwarnings("ignore:weft keeps:RuntimeWarning")
def test_triton_finds_the_source(folder: Path, monkeypatch: pytest.MonkeyPatch, writable: bool) -> None:
    pytest.importorskip("triton")
    if not writable:
        monkeypatch.setenv("WEFT_CACHE_DIR", "/proc/weft")
    kernel = cache.store(KERNEL, "scale").scale
    assert inspect.getsource(kernel.fn) in KERNEL
    assert folder.exists() == writable


def test_damaged_file_is_healed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = where(cache.store(PLAIN, "plain"))
    for damage in (PLAIN[:20], PLAIN.replace("3", "4"), ""):
        path.write_text(damage)
        forget(monkeypatch)
        assert cache.store(PLAIN, "plain").LIMIT == 3
        assert path.read_text() == PLAIN


def test_what_runs_is_what_was_checked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = where(cache.store(PLAIN, "plain"))
    keep = os.replace

    def lose_the_race(old: Path, new: Path) -> None:
        keep(old, new)
        new.write_text("LIMIT = 'planted'\n")

    path.unlink()
    forget(monkeypatch)
    monkeypatch.setattr(os, "replace", lose_the_race)
    assert cache.store(PLAIN, "plain").LIMIT == 3
    assert not list(folder.rglob("*.pyc"))


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
@pytest.mark.filterwarnings("ignore:weft keeps:RuntimeWarning")
def test_a_file_that_is_none(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = where(cache.store(PLAIN, "plain"))
    path.unlink()
    forget(monkeypatch)
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    match kind:
        case "link":
            path.symlink_to(victim)
        case "fifo":
            os.mkfifo(path)
        case _:
            path.mkdir()
    assert cache.store(PLAIN, "plain").LIMIT == 3
    assert victim.read_text() == "untouched"
    assert [p for p in folder.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_folder_others_can_write_to(folder: Path, level: int, mode: int) -> None:
    folder.mkdir(parents=True, mode=0o700)
    (folder, *folder.parents)[level].chmod(mode)
    with pytest.warns(RuntimeWarning, match="others can write"):
        module = cache.store(PLAIN, "plain")
    assert module.LIMIT == 3 and not list(folder.iterdir())


@pytest.mark.parametrize("level", [0, 1, 2])
def test_link_instead_of_the_folder(folder: Path, tmp_path: Path, level: int) -> None:
    target = tmp_path / "elsewhere"
    target.mkdir()
    link = (folder, *folder.parents)[level]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    with pytest.warns(RuntimeWarning, match="link"):
        assert cache.store(PLAIN, "plain").LIMIT == 3
    assert not list(target.iterdir())


def test_somebody_elses_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.warns(RuntimeWarning, match="somebody else"):
        assert cache.store(PLAIN, "plain").LIMIT == 3
    assert not folder.exists()


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.ENOENT, errno.EACCES])
@pytest.mark.parametrize("call", ["open", "fsync", "replace", "mkdir"])
def test_disk_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, fail)
    with pytest.warns(RuntimeWarning, match="in memory only"):
        module = cache.store(PLAIN, "plain")
    monkeypatch.undo()
    assert module.LIMIT == 3
    assert not folder.exists() or not list(folder.iterdir())


def test_one_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_CACHE_DIR", "/proc/weft")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i in range(3):
            cache.store(f"LIMIT = {i}\n", "plain")
    assert len(caught) == 1


def test_threads_share_one_module(folder: Path) -> None:
    ready, found = threading.Barrier(8), list[ModuleType]()

    def work() -> None:
        ready.wait()
        found.append(cache.store(PLAIN, "plain"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len({id(m) for m in found}) == 1


def test_fork_while_another_thread_stores(folder: Path) -> None:
    with vars(cache)["_lock"], warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks beside threads
        child = os.fork()
        if child == 0:
            os._exit(0 if cache.store(PLAIN, "plain").LIMIT == 3 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_processes_race(folder: Path) -> None:
    program = (
        "import sys\n"
        "from weft.codegen import cache\n"
        "sys.stdin.readline()\n"
        "for i in range(50):\n"
        "    assert cache.store(f'LIMIT = {i}\\n', 'race').LIMIT == i\n"
    )
    search = os.pathsep.join([str(Path(weft.__file__).parent.parent), *filter(None, sys.path)])
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", program],
            stdin=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search},
            text=True,
        )
        for _ in range(2)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert [racer.communicate(timeout=60) and racer.returncode for racer in racers] == [0, 0]
    assert sorted(p.read_text() for p in folder.iterdir()) == sorted(f"LIMIT = {i}\n" for i in range(50))


@pytest.mark.parametrize("stem", ["", "../evil", "a/b", "a.b", "é", "a\n", "a" * 129])
def test_stem_is_a_name(folder: Path, stem: str) -> None:
    with pytest.raises(InternalError):
        cache.store(PLAIN, stem)


def test_gate_passes_kernels() -> None:
    cache.verify(KERNEL)
    cache.verify(PLAIN)


IN_KERNEL = "import triton\nimport triton.language as tl\n@triton.jit\ndef f(x, N: tl.constexpr):\n    {}\n"


@pytest.mark.parametrize(
    "line",
    [
        "exec('1')",
        "eval('1')",
        "open('/etc/passwd')",
        "print(x)",
        "getattr(x, 'y')",
        "x.__class__",
        "x._private",
        "__import__('os')",
        "__builtins__",
        "import os",
        "from os import path",
        "tl.core.os.system('true')",
        "tl.extra.libdevice",
        "tl.math.core.builtin",
        "x.math",
        "tl.inline_asm_elementwise('', '', [], 0, True, 1)",
        "triton.runtime",
        "triton.language.load(x)",
        "x.format(1)",
        "x @ x",
        "x ** 9",
        "(y := 1)",
        "lambda: 1",
        "[y for y in x]",
        "f'{x}'",
        "b'x'",
        "assert x",
        "del x",
        "global f",
        "raise x",
        "tl = x",
        "range = x",
        "with x: pass",
        "unknown + 1",
        "x # \rexec('1')",
        "x # \x0c",
        "x # \u202e",
        "def g(): pass",
        "f(*x)",
        "return 1j",
        "_hidden = 1",
        "é = 1",
        "\uff49f = 1; \uff45xec(x)",
        "x +",
        "(" * 500,
    ],
)
def test_gate_refuses_in_a_kernel(line: str) -> None:
    with pytest.raises(InternalError):
        cache.verify(IN_KERNEL.format(line))


@pytest.mark.parametrize(
    "text",
    [
        "import os\n",
        "import triton as open\n",
        "import triton.language\n",
        "from triton import jit\n",
        "import os as tl\n",
        "tl = 1\n",
        "X = open('x')\n",
        "X = max(1, 2)\n",
        "X = Y\n",
        "X: open('x') = 1\n",
        "print('x')\n",
        "for i in range(3):\n    pass\n",
        "def f():\n    pass\n",
        "@open\ndef f():\n    pass\n",
        "@triton.jit(n=(1, print(1)))\ndef f():\n    pass\n",
        "@triton.jit(print(1))\ndef f():\n    pass\n",
        "@triton.jit\n@triton.jit\ndef f():\n    pass\n",
        "@triton.jit\ndef f(x=print(1)):\n    pass\n",
        "@triton.jit\ndef f(x: print(1)):\n    pass\n",
        "@triton.jit\ndef f() -> int:\n    pass\n",
        "@triton.jit\ndef f(tl):\n    pass\n",
        "@triton.jit\ndef f(*, x=[]):\n    pass\n",
        "@triton.jit\nasync def f():\n    pass\n",
        "class C:\n    pass\n",
        "X = '\x00'\n",
    ],
)
def test_gate_refuses_at_the_top(text: str) -> None:
    with pytest.raises(InternalError):
        cache.verify(text)


def test_refused_code_leaves_no_trace(folder: Path) -> None:
    with pytest.raises(InternalError):
        cache.store("import os\n", "bad")
    assert not folder.exists() and not any("bad_" in name for name in sys.modules)
