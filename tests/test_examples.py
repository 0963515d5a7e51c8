"""Every example runs, and what the README shows is true."""

import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import weft
from weft import importer
from weft.cli import main
from weft.dsl.parser import parse
from weft.dsl.source import Source
from weft.stubs import stub_text

ROOT = Path(weft.__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def as_a_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What Python does for `python examples/NAME.py`; modules imported by it are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    yield
    importer.uninstall()
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "masks":
            del sys.modules[name]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = runpy.run_path(str(path))
    assert f"python examples/{path.name}" in module["__doc__"]
    module["main"]()
    assert capsys.readouterr().out


def test_stub_of_the_example_is_current() -> None:
    path = ROOT / "examples" / "masks" / "power.sparse"
    assert path.with_suffix(".pyi").read_text() == stub_text(parse(Source(str(path), path.read_text())), "power")


def blocks(language: str) -> list[str]:
    """The README's code of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_readme_pattern_is_the_example() -> None:
    text = blocks("sparse")[0]
    assert len(text.splitlines()) == 6
    example = weft.load(ROOT / "examples" / "masks" / "power.sparse")
    assert (weft.load(text).mask(3000) == example.mask(3000)).all()


def test_readme_python_runs() -> None:
    """The call as it stands, and the hand-written mask beside it, which must keep the same pairs."""
    import torch

    call, before = blocks("python")[:2]
    values: dict[str, Any] = {
        "q": torch.randn(1, 2, 700, 16),
        "k": torch.randn(1, 2, 700, 16),
        "v": torch.randn(1, 2, 700, 16),
    }
    exec(call, values)
    assert values["out"].shape == (1, 2, 700, 16)
    exec(before.split("block_mask")[0], values)
    q, k = torch.arange(3000)[:, None], torch.arange(3000)[None, :]
    kept = values["power_mask"](0, 0, q, k)
    assert (kept.numpy() == weft.load(ROOT / "examples" / "masks" / "power.sparse").mask(3000)).all()


def test_readme_report_is_what_explain_says(capsys: pytest.CaptureFixture[str]) -> None:
    shown = next(block for block in blocks("text") if "weft explain" in block)
    assert main(["explain", str(ROOT / "examples" / "masks" / "power.sparse"), "--n", "1048576"]) == 0
    said = capsys.readouterr().out
    for line in shown.splitlines():
        assert line in said or line.startswith(("$", "  .."))


def test_readme_warning_is_what_check_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = next(block for block in blocks("text") if "W102" in block)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.sparse").write_text("pattern mine() {\n    causal\n    keep q - k < 8\n    keep q - k < 4\n}\n")
    assert main(["check", "mine.sparse"]) == 0
    assert capsys.readouterr().out.startswith(shown)


def test_language_snippets_are_canonical_and_right(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "language.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 3
    for number, snippet in enumerate(snippets):
        path = tmp_path / f"snippet{number}.sparse"
        path.write_text(snippet)
        assert main(["fmt", "--check", str(path)]) == 0 and main(["check", str(path)]) == 0


def test_readme_names_every_selection() -> None:
    names = re.findall(r"`(\w+)`", README.partition("[patterns/selection/]")[2].partition("\n\n")[0])
    assert {*names} >= {path.stem for path in (ROOT / "patterns" / "selection").glob("*.sparse")} - {"xattention"}


def test_files_named_in_the_docs_exist() -> None:
    for name in ("README.md", "docs/architecture.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert ((ROOT / name).parent / target).exists(), target
