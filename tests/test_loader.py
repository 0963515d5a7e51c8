"""Imports: found under the roots, and nothing else is ever opened."""

import os
import socket
import sys
from pathlib import Path

import pytest

from weft.dsl.diagnostics import CompileError
from weft.dsl.loader import LIBRARY, MAX_FILES, Module, load_file, load_text, search_roots

BODY = "pattern {name} {{ keep q == k }}\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    (folder / "lib").mkdir(parents=True)
    (folder / "lib" / "window.sparse").write_text(BODY.format(name="window"))
    return folder


def write(folder: Path, name: str, *imports: str) -> Path:
    path = folder / f"{name}.sparse"
    path.write_text("".join(f"import {i}\n" for i in imports) + BODY.format(name=name))
    return path


def failure(path: Path | str) -> tuple[str, str]:
    """Code and text of the one error that loading gives."""
    with pytest.raises(CompileError) as caught:
        load_file(path)
    assert len(caught.value.diagnostics) == 1
    return caught.value.diagnostics[0].code, str(caught.value)


def test_modules_and_names(root: Path) -> None:
    module = load_file(write(root, "main", "lib.window", "lib.window as w", "longformer"))
    assert list(module.imports) == ["window", "w", "longformer"]
    assert module.imports["w"] is module.imports["window"]
    assert module.imports["w"].name == "window" and module.name == "main"
    assert Path(module.imports["longformer"].source.path).parent == LIBRARY
    with pytest.raises(AttributeError):
        module.digest = ""  # pyright: ignore[reportAttributeAccessIssue]


def test_digest_covers_imports(root: Path) -> None:
    path = write(root, "main", "lib.window")
    before = load_file(path).digest
    assert load_file(path).digest == before
    path.write_text(path.read_text().replace("\n", "\r\n"), newline="")
    assert load_file(path).digest == before, "line endings mean nothing"
    (root / "lib" / "window.sparse").write_text("pattern window { keep k == 0 }")
    assert load_file(path).digest != before


def test_roots_in_order(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write(other, "longformer")
    write(other, "shared")
    monkeypatch.setenv("WEFT_PATH", os.pathsep.join(("", str(other))))
    assert search_roots(root) == (root, other, LIBRARY)
    module = load_file(write(root, "main", "shared", "longformer"))
    assert {Path(m.source.path).parent for m in module.imports.values()} == {other}


def test_text_has_no_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEFT_PATH", raising=False)
    monkeypatch.chdir(root)
    with pytest.raises(CompileError, match="E010"):
        load_text("import lib.window")
    assert load_text("import lib.window", roots=[root]).imports["window"].name == "window"
    assert load_text("import longformer").source.path == "<text>"


def test_not_found_says_what_is_close(root: Path) -> None:
    code, text = failure(write(root, "main", "lib.windw"))
    assert code == "E010" and "did you mean `lib.window`?" in text
    code, text = failure(write(root, "main", "window"))
    assert code == "E010" and "did you mean `lib.window`?" in text
    code, text = failure(root / "mian.sparse")
    assert code == "E010" and "did you mean `main.sparse`?" in text


def test_circles_print_the_chain(root: Path) -> None:
    write(root, "a", "b")
    write(root, "b", "c")
    write(root, "c", "a")
    code, text = failure(root / "a.sparse")
    assert code == "E009"
    assert " -> ".join(str(root / f"{n}.sparse") for n in "abca") in text
    assert failure(write(root, "self", "self"))[0] == "E009"


def test_diamonds_are_no_circles(root: Path) -> None:
    write(root, "left", "lib.window")
    write(root, "right", "lib.window")
    module = load_file(write(root, "main", "left", "right"))
    assert module.imports["left"].imports["window"] is module.imports["right"].imports["window"]


def test_depth_and_number_of_files(root: Path) -> None:
    for i in range(40):
        write(root, f"deep{i}", f"deep{i + 1}")
    write(root, "deep40")
    assert failure(root / "deep0.sparse")[0] == "E011"
    load_file(root / "deep25.sparse")
    for i in range(MAX_FILES + 5):
        write(root, f"wide{i}")
    load_file(write(root, "main", *(f"wide{i}" for i in range(MAX_FILES - 1))))
    with pytest.raises(CompileError, match="E011"):
        load_file(write(root, "main", *(f"wide{i}" for i in range(MAX_FILES + 5))))


def test_all_errors_of_all_files(root: Path) -> None:
    (root / "bad.sparse").write_text("pattern bad { keep ] keep [ }")
    path = write(root, "main", "bad", "none", "bad as worse")
    with pytest.raises(CompileError) as caught:
        load_file(path)
    assert [d.code for d in caught.value.diagnostics] == ["E001", "E001", "E010"]


def test_links_inside_the_roots_are_fine(root: Path) -> None:
    (root / "alias.sparse").symlink_to(root / "lib" / "window.sparse")
    module = load_file(write(root, "main", "alias", "lib.window"))
    assert module.imports["alias"] is module.imports["window"]


def test_links_out_of_the_roots_are_refused(root: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.sparse"
    secret.write_text("pattern secret { keep q == 123456 }")
    (root / "out.sparse").symlink_to(secret)
    code, text = failure(write(root, "main", "out"))
    assert code == "E010" and "outside" in text and "123456" not in text
    (root / "folder").symlink_to(tmp_path)
    assert failure(write(root, "main", "folder.secret"))[0] == "E010"


def test_the_top_file_may_be_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "top.sparse").symlink_to(write(root, "main"))
    assert isinstance(load_file(tmp_path / "top.sparse"), Module)
    assert load_file(str(tmp_path / "top.sparse")).source.path == str(tmp_path / "top.sparse")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in the file system")
def test_only_regular_files_are_read(root: Path) -> None:
    os.mkfifo(root / "pipe.sparse")
    (root / "folder.sparse").mkdir()
    (root / "device.sparse").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(root)  # a socket's path is short
        server.bind("sock.sparse")
        os.chdir(here)
        for name in ("pipe", "folder", "device", "sock"):
            assert failure(write(root, "main", name))[0] == "E010", name
            assert failure(root / f"{name}.sparse")[0] == "E010", name
    assert failure("/dev/zero")[0] == "E010"


def test_large_and_foreign_files(root: Path) -> None:
    (root / "large.sparse").write_text("#" * (256 * 1024 + 1))
    (root / "latin.sparse").write_bytes(b"# caf\xe9\npattern latin { keep q == 123456 }\n")
    (root / "marked.sparse").write_bytes(b"\xef\xbb\xbfpattern marked { keep q == k }\r\n")
    assert failure(root / "large.sparse")[0] == "E011"
    assert failure(write(root, "main", "large"))[0] == "E011"
    for path in (root / "latin.sparse", write(root, "main", "latin")):
        code, text = failure(path)
        assert code == "E012" and "123456" not in text
    assert load_file(root / "marked.sparse").file.patterns[0].name == "marked"


@pytest.mark.parametrize(
    "line", ["../secret", "lib/window", "/etc/passwd", "~root.x", "a..b", ".a", "C:x", '"lib"', "lib.*"]
)
def test_imports_are_names_not_paths(line: str) -> None:
    with pytest.raises(CompileError) as caught:
        load_text(f"import {line}\npattern f {{}}")
    assert caught.value.diagnostics[0].code == "E001"


def test_a_folder_that_cannot_be_listed_only_costs_the_hint(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_PATH", str(root / "missing"))
    assert failure(write(root, "main", "none"))[0] == "E010"
