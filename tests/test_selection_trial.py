"""`weft test` and `weft show` of dynamic patterns: what they print, what they draw, and how they fail."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import weft
import weft.selection_trial as trial_module
from weft.cli import main, parser
from weft.codegen.select_reference import selected
from weft.selection_lengths import usual_lengths
from weft.selection_tensors import made_up
from weft.selection_trial import Compared, compared, picture

WORDS = ["-p", "block=16", "-p", "blocks=3"]


def test_test_compares_and_reports(capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--n", "30", "100", "--heads", "4", "--kv-heads", "2", "--head-dim", "24", "--seed", "5"]
    assert main(["test", "moba", *WORDS, *sizes]) == 0
    out = capsys.readouterr().out
    assert "ok    n = 30, m = 30: attention by selection, largest difference" in out
    assert "moba: 100 tokens, 4 heads on 2 key/value heads, head dim 24, tensors made up, seed 5\n" in out
    assert "% selecting; measured, cpu, float32)" in out and out.endswith("moba: ok\n")
    assert main(["test", "moba", *WORDS, *sizes, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [case["n"] for case in data["cases"]] == [30, 100] and len(data["selection"]["by_head"]) == 4


def test_made_up_rows_have_the_elements_that_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "spark", "-p", "dims=40", "-p", "budget=8", "--n", "30"]) == 0
    assert "head dim 40, tensors made up" in capsys.readouterr().out


def test_a_wrong_back_end_fails_and_says_how_many_pairs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = trial_module.densely
    monkeypatch.setattr(trial_module, "densely", lambda *call: right(*call) & torch.ones(100, 100).tril(-1).bool())
    assert main(["test", "moba", *WORDS, "-n", "100"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  n = 100, m = 100: attention by selection, 200 pairs differ" in out and "1 of 1 failed" in out


def test_more_pairs_than_the_definition_holds_are_not_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trial_module, "MOST_PAIRS", 2 * 50 * 50)
    assert main(["test", "moba", *WORDS, "-n", "50", "51"]) == 0
    out = capsys.readouterr().out
    assert "n = 50, m = 50: attention by selection, largest" in out
    assert "n = 51, m = 51: attention by selection, not compared: the definition" in out
    assert "holds all pairs, 50 tokens at most for 2 heads\n" in out and "moba: 51 tokens" in out


def test_usual_lengths_have_one_that_leaves_cells_out() -> None:
    """The least of a few, so long as a CPU takes seconds and the definition holds all pairs."""

    def longest(name: str, most_pairs: int = trial_module.MOST_PAIRS, **given: int) -> int:
        lengths = usual_lengths(weft.load(name, **given).program(2, 2), 2, most_pairs)
        assert lengths[:4] == (1, 63, 100, 257)
        return lengths[-1]

    assert longest("xattention") == 1025 and longest("xattention", block=512, stride=16) == 2049
    assert longest("quest") == 2049 and longest("quest", budget=512) == 1025
    assert longest("minference") == 4097 and longest("minference", most_pairs=2 * 4096**2) == 2049
    assert longest("deepseek_indexer") == 257 and longest("deepseek_indexer", index_heads=1) == 4097


def test_without_lengths_something_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["test", "moba", *WORDS]) == 0
    out = capsys.readouterr().out
    assert "n = 257" in out and "n = 1025" in out and "every pair" not in out and "moba: 1,025 tokens" in out


@pytest.mark.parametrize(("n", "longer"), [("60", 8192), ("8192", 16384)])
def test_where_nothing_was_chosen_it_says_so(
    n: str, longer: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    same = Compared(int(n), int(n), 0.0, "as always", True)
    monkeypatch.setattr("weft.trial.compared", lambda *_: same)
    assert main(["test", "moba", "-n", n, "-p", "block=2048"]) == 0
    words = f"every pair was kept: nothing was chosen; try --n {longer}, or smaller values with -p\n"
    assert words in capsys.readouterr().out


def test_every_pair_is_counted() -> None:
    pattern = weft.load("moba", block=16, blocks=3)
    arguments = parser().parse_args(["test", "moba"])
    assert compared(pattern, arguments, 48).every_pair and not compared(pattern, arguments, 100).every_pair


@pytest.mark.parametrize("command", ["test", "show"])
@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 30 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        MemoryError(),
    ],
)
def test_too_little_memory_is_one_clear_error(
    error: Exception, command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr(trial_module, "keep", fails)
    assert main([command, "moba", "--n", "90"]) == 2
    assert capsys.readouterr().err == "weft: pattern `moba`: 90 tokens need more memory than there is here\n"


def test_other_errors_are_not_about_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a shape does not fit")

    monkeypatch.setattr(trial_module, "keep", fails)
    with pytest.raises(RuntimeError, match="a shape does not fit"):
        main(["test", "moba", "--n", "90"])


@pytest.mark.parametrize("head", [0, 3])
def test_the_picture_is_of_the_pairs_that_are_kept(head: int) -> None:
    pattern = weft.load("moba", block=16, blocks=2)
    flags = ["--n", "150", "--heads", "4", "--kv-heads", "2", "--head", str(head), "--head-dim", "16", "--seed", "2"]
    shades, tensors = picture(pattern, parser().parse_args(["show", "moba", *flags]))
    right = made_up(pattern, 150, 4, 2, 16, seed=2)
    assert torch.equal(tensors.q, right.q)
    mask = selected(pattern.program(4, 2), right.q, right.k, right.v, right.scale, {})[0, head].double().numpy()
    edges = np.arange(65) * 150 // 64
    for i in range(64):
        for j in range(64):
            assert shades[i, j] == pytest.approx(mask[edges[i] : edges[i + 1], edges[j] : edges[j + 1]].mean())


def test_show_by_head(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["show", "moba", *WORDS, "--n", "90", "--heads", "3", "--head", "2", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["n"], data["head"], data["heads"], len(data["cells"])) == (90, 2, 3, 64)
    assert main(["show", "moba", *WORDS, "--n", "90", "--svg", str(tmp_path / "x.svg")]) == 0
    assert "moba, 90 tokens" in (tmp_path / "x.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "moba", "--heads", "2", "--head", "2"], "there is no head 2 among 2"),
        (["test", "moba", "--heads", "3", "--kv-heads", "2"], "3 heads are not a multiple of 2 key/value heads"),
        (["explain", "moba", "--heads", "3", "--kv-heads", "2"], "3 heads are not a multiple of 2 key/value heads"),
        (["show", "moba", "--qkv", "nowhere.safetensors"], "cannot read nowhere.safetensors: no such file"),
        (["test", "sliding_window", "--qkv", "x"], "--qkv is for patterns that select by content"),
        (["show", "sliding_window", "--head-dim", "8"], "--head-dim is for patterns that select by content"),
        (["explain", "sliding_window", "--qkv", "x"], "--qkv is for patterns that select by content"),
        (["explain", "moba", "--layer", "3", "--layers", "2"], "there is no layer 3 among 2"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1
