"""The import hook: where it looks, what a module of patterns holds, and what its errors say."""

import ast
import importlib
import inspect
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import weft
from weft import importer
from weft.dsl.diagnostics import CompileError
from weft.dsl.parser import parse
from weft.dsl.source import Source
from weft.stubs import stub_text

TEXT = '''pattern close(window: tokens = 8) {
    """A sliding window."""
    causal
    keep q - k < window
}

pattern far() {
    causal
    keep q - k >= 8
}
'''


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on sys.path with the package `masks_of_mine`; what is imported from it is forgotten afterwards."""
    package = tmp_path / "masks_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "local.sparse").write_text(TEXT)
    (tmp_path / "loose_mask.sparse").write_text(TEXT)
    monkeypatch.setenv("WEFT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importer.install()
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def run_python(program: str, root: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with `root` on its path."""
    search = [str(root), str(Path(weft.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
    command = [sys.executable, "-c", program]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def check_module(module: ModuleType, path: str) -> None:
    assert module.__all__ == ["close", "far"]
    assert isinstance(module.close, weft.Pattern) and module.far.name == "far"
    assert module.__doc__ is not None and "close: A sliding window." in module.__doc__
    assert module.close.__doc__ == "A sliding window." and str(weft.Pattern.__doc__).startswith("One pattern of a")
    assert module.__file__ == path
    assert inspect.getsource(module) == TEXT


def test_from_a_package(root: Path) -> None:
    module = importlib.import_module("masks_of_mine.local")
    check_module(module, str(root / "masks_of_mine" / "local.sparse"))
    assert module.__package__ == "masks_of_mine" and module.__spec__ is not None
    assert module.__spec__.cached is None
    assert not list((root / "masks_of_mine").glob("**/local*.pyc"))


def test_from_sys_path(root: Path) -> None:
    check_module(importlib.import_module("loose_mask"), str(root / "loose_mask.sparse"))


def test_from_the_current_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "here").mkdir()
    (root / "here" / "in_cwd.sparse").write_text(TEXT)
    monkeypatch.chdir(root / "here")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert importlib.import_module("in_cwd").close.name == "close"


def test_from_a_namespace_package(root: Path) -> None:
    (root / "no_init").mkdir()
    (root / "no_init" / "inner.sparse").write_text(TEXT)
    assert importlib.import_module("no_init.inner").far.name == "far"


def test_from_a_zip_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = root / "masks.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped/__init__.py", "")
        file.writestr("zipped/local.sparse", TEXT)
        file.writestr("top_of_zip.sparse", TEXT)
    monkeypatch.setattr(sys, "path", [str(archive), *sys.path])
    for name, inner in (("zipped.local", "zipped/local.sparse"), ("top_of_zip", "top_of_zip.sparse")):
        check_module(importlib.import_module(name), str(archive / inner))


def test_imports_its_neighbours(root: Path) -> None:
    text = "import masks_of_mine.local as local\npattern both() {\n    keep local.close(4)\n    keep local.far()\n}\n"
    (root / "both.sparse").write_text(text)
    assert importlib.import_module("both").both.mask(9)[8].tolist() == [True] + [False] * 4 + [True] * 4


def test_python_wins(root: Path) -> None:
    (root / "masks_of_mine" / "local.py").write_text("close = 'python'\n")
    assert importlib.import_module("masks_of_mine.local").close == "python"


def test_missing(root: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named .masks_of_mine.absent"):
        importlib.import_module("masks_of_mine.absent")


def test_reload(root: Path) -> None:
    module = importlib.import_module("loose_mask")
    old = module.close
    path = root / "loose_mask.sparse"
    path.write_text(TEXT.replace("far", "beyond").replace("sliding", "moving"))
    assert importlib.reload(module) is module
    assert module.__all__ == ["close", "beyond"] and not hasattr(module, "far")
    assert module.close is not old and "moving" in inspect.getsource(module)
    path.write_text("pattern close( {")
    with pytest.raises(importer.SparseError):
        importlib.reload(module)
    assert module.__all__ == ["close", "beyond"]


def test_threads_get_one_module(root: Path) -> None:
    found, ready = list[ModuleType](), threading.Barrier(8)

    def work() -> None:
        ready.wait()
        found.append(importlib.import_module("masks_of_mine.local"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len({id(m.close) for m in found}) == 1


def test_fork(root: Path) -> None:
    """In a process of its own: the test runner has threads, which a fork would not survive."""
    program = (
        "import os, sys, weft.importer, loose_mask\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    import masks_of_mine.local as local\n"
        "    os._exit(0 if local.close.name == loose_mask.close.name else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = run_python(program, root)
    assert done.returncode == 0, done.stderr


def test_error_shows_the_line(root: Path) -> None:
    (root / "broken.sparse").write_text("pattern broken() {\n    keep q - kk < 8\n}\n")
    with pytest.raises(importer.SparseError) as caught:
        importlib.import_module("broken")
    error = caught.value
    assert (error.filename, error.lineno, error.offset) == (str(root / "broken.sparse"), 2, 14)
    assert error.text == "    keep q - kk < 8" and "E002" in str(error)
    assert isinstance(error.__cause__, CompileError)
    assert "keep q - kk < 8" in str(error.__cause__) and "^^" in str(error.__cause__)
    assert "broken" not in sys.modules


def test_error_as_a_user_sees_it(root: Path) -> None:
    (root / "broken.sparse").write_text("pattern broken() {\n    keep q - kk < 8\n}\n")
    done = run_python("import weft.importer, broken", root)
    assert done.returncode == 1
    assert f"{root / 'broken.sparse'}:2:14: error[E002]: unknown name `kk`" in done.stderr
    assert "weft.importer.SparseError: error[E002]: unknown name `kk`" in done.stderr
    assert "checker.py" not in done.stderr


@pytest.mark.parametrize("content", [b"\xff\xfe", b"pattern \xe9() {}"])
def test_not_text(root: Path, content: bytes) -> None:
    (root / "binary.sparse").write_bytes(content)
    with pytest.raises(SyntaxError):
        importlib.import_module("binary")


def test_precompile(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "ahead.sparse").write_text("precompile bf16 head_dim 64\n" + TEXT)
    calls = list[tuple[str, object]]()

    def note(self: weft.Pattern, *case: object) -> None:
        calls.append((self.name, case))

    monkeypatch.setattr(weft.Pattern, "precompile", note)
    monkeypatch.setattr(importer, "local_target", lambda: "sm70")
    monkeypatch.setenv("WEFT_PRECOMPILE", "sm90:bf16:128, sm80:fp16:64")
    importlib.import_module("ahead")
    monkeypatch.setattr(importer, "local_target", lambda: None)
    (root / "elsewhere.sparse").write_text("precompile bf16 head_dim 64\npattern wants(w: int) { keep q - k < w }\n")
    importlib.import_module("elsewhere")
    asked = [("sm70", "bf16", 64), ("sm90", "bf16", 128), ("sm80", "fp16", 64)]
    assert calls == [(name, case) for name in ("close", "far") for case in asked]
    monkeypatch.setenv("WEFT_PRECOMPILE", "sm90")
    with pytest.raises(ValueError, match="sm90:bf16:128"):
        importlib.import_module("loose_mask")


def test_install_and_uninstall(root: Path) -> None:
    importer.install()
    assert sum(isinstance(finder, importer.SparseFinder) for finder in sys.meta_path) == 1
    importer.uninstall()
    try:
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("loose_mask")
    finally:
        importer.install()


def test_a_module_stands_for_its_main_pattern(root: Path) -> None:
    (root / "masks_of_mine" / "close.sparse").write_text(TEXT)
    from masks_of_mine import close, local  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    assert close.close.name == close.name == "close" and local.name == "far"
    assert close(window=3).given == {"window": 3} and close.mask(4).sum() == 10
    for name in ("colse", "__wrapped__"):
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'"):
            getattr(close, name)


def test_stacks_are_imported_too(root: Path) -> None:
    (root / "masks_of_mine" / "deep.sparse").write_text(f"{TEXT} stack deep over 4 layers {{ layers else: far() }}")
    deep = importlib.import_module("masks_of_mine.deep")
    assert isinstance(deep.deep, weft.Stack) and deep.__all__ == ["deep", "close", "far"]


def test_stub() -> None:
    text = stub_text(parse(Source("local.sparse", TEXT)), "local")
    compile(text, "local.pyi", "exec")
    assert '__all__ = ["close", "far"]' in text
    assert '# close(window: tokens = 8)\nclose: Pattern\n"""A sliding window."""\n' in text
    assert "# far()\nfar: Pattern\n\nattention = far.attention\n" in text


def test_stub_of_a_stack() -> None:
    text = stub_text(parse(Source("local.sparse", f"{TEXT} stack deep over 4 layers {{ layers else: far() }}")), "deep")
    assert "from weft import Pattern, Stack\n" in text
    assert "# deep()\ndeep: Stack\n" in text and text.endswith("\ncoverage = deep.coverage\n")


def test_stub_of_a_selection_has_what_works_on_it() -> None:
    """It has no fixed mask, so that all else raises E015."""
    path = weft.load("moba").module.source.path
    text = stub_text(parse(Source(path, Path(path).read_text())), "moba")
    assert text.endswith('"""\n\nattention = moba.attention\n')


@pytest.mark.parametrize("doc", ['"quoted"', "back\\slash", "two\nlines", "é", "'''"])
def test_stub_keeps_any_docstring(doc: str) -> None:
    file = parse(Source("a.sparse", f'pattern a() {{ """{doc} ."""\n keep k <= q }}'))
    last = next(x for x in ast.parse(stub_text(file)).body if isinstance(x, ast.Expr))
    assert ast.literal_eval(last.value) == file.patterns[0].doc


def test_stub_leaves_out_what_python_cannot_say() -> None:
    assert "class: Pattern" not in stub_text(parse(Source("a.sparse", "pattern class() { causal }")))
