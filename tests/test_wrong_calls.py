"""What is said of parameters, inputs and files that do not fit: which name, what is wanted, how to give it."""

from pathlib import Path
from typing import Any

import pytest
import torch

import weft
from weft.compiler.catalogue import shipped
from weft.dsl.diagnostics import Diagnostic
from weft.dsl.loader import load_file

X = torch.zeros(2, 4, 64, 16)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("quest", {"page": 3}, "`page` is a parameter, not an input; give it before the call: `pattern(page=3)`"),
        ("sliding_window", {"window": 3}, "`pattern(window=3)` or `weft.load(.., window=3)`"),
        ("sliding_window", {"window": X}, "`pattern(window=..)`"),
        ("quest", {"pages": 3}, "has no input `pages` (its inputs: none)"),
        ("seer_attention", {}, "needs the input `gate_q`: [2 or 1, 4 or 1, 1, D]"),
        ("seer_attention", {"gate_q": X}, "input `gate_q` is [2, 4, 64, 16], wanted [2 or 1, 4 or 1, 1, D]"),
        ("deepseek_indexer", {"index_q": X[:, :, :, None], "index_k": X}, "wanted [2 or 1, 4 or 1, 64, 64, D]"),
        ("packed_documents", {}, "needs the input `doc`: integers, one for each token, [64] or [2, 64]"),
    ],
)
def test_inputs(name: str, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(weft.TensorError) as caught:
        weft.load(shipped(name)).attention(X, X, X, **inputs)
    found = str(caught.value)
    assert message in found and found.count(f"pattern `{name}`") == 1


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ([[0.9], [0.5, 0.1]], "these have 1, 2 numbers"),
        ([[0.9, 0.5], [0.5, None]], "row 1 is [0.5, None]"),
        ([[0.9, 0.5], 0.5], "row 1 is 0.5"),
        ([], "this is an empty list"),
        (0.5, "such as [[0.9, 0.5], [0.8, 0.4]], not 0.5"),
    ],
)
def test_tables(value: object, hint: str) -> None:
    text = "pattern p(mass: float[layer, head]) { let w[k] = K[k] . K[0] keep k in cover mass[layer, h] by w[k] }"
    given: Any = value
    with pytest.raises(weft.CompileError) as caught:
        weft.load(text, mass=given).program(2)
    (found,) = caught.value.diagnostics
    assert (found.code, found.hint) == ("E007", hint)
    assert found.span is not None and found.span.start == text.index("mass")


def refused(path: Path) -> Diagnostic:
    with pytest.raises(weft.CompileError) as caught:
        load_file(path)
    (found,) = caught.value.diagnostics
    return found


def test_files(tmp_path: Path) -> None:
    """One error each; another file is proposed only where there is none of the name."""
    for name in ("window.sparse", "windows.sparse"):
        (tmp_path / name).write_text("pattern window { causal }\n" + "#" * 300_000)
    found = refused(tmp_path / "window.sparse")
    assert found.code == "E011" and found.message.endswith("window.sparse: is larger than 256 KiB")
    assert found.hint == "patterns may stand in several files: `import lib.window`"
    assert refused(tmp_path / "windw.sparse").hint == "did you mean `window.sparse`?"
    assert refused(tmp_path / "nowhere" / "window.sparse").hint == ""
    (tmp_path / "folder.sparse").mkdir()
    (tmp_path / "folders.sparse").write_text("")
    assert refused(tmp_path / "folder.sparse").hint == ""
