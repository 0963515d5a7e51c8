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
from weft.selection_tensors import made_up
from weft.selection_trial import picture

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
    assert "n = 51, m = 51: attention by selection, not compared" in out and "moba: 51 tokens" in out


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
