"""Reports on what a selection keeps: every number against a plain computation over all pairs."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import weft
import weft.selection_kept as kept_module
import weft.selection_report as report_module
from weft import Pattern
from weft.cli import main
from weft.codegen.select_reference import selected
from weft.selection_report import HeadReport, as_text, report_on
from weft.selection_tensors import Tensors, made_up

BLOCKS = """causal
    axis I = q // 16  axis J = k // 16
    let mq[I] = mean(t in I) Q[t]
    let mk[J] = mean(t in J) K[t]
    let s[I, J] = mq[I] . mk[J] * scale
"""
# Choices of cells of keys, of distances and of places, beside static clauses; and what only the definition can score.
BODIES = {
    "cells": "keep J in top 2 by s[I, J] counting (J == I)",
    "threshold": "keep s[I, J] > 0 keep k < 3",
    "drops": "keep J in top 3 by s[I, J] drop k % 5 == 1",
    "distances": "axis D = q // 8 - k // 8 let f[D] = sum(t in last 8 of q) Q[t] . K[t - 8 * D]"
    " keep D in top 2 by f[D]",
    "places": "let hot[k] = K[k] . K[k] order p = k by hot[k] within 32 axis R = p // 8 let mp[R] = mean(p in R) K[p]"
    " let r[I, R] = mq[I] . mp[R] keep R in top 2 by r[I, R] keep p % 8 == 3",
    "densely": "let x[I, J] = (sum(t in I, u in I) Q[t] . Q[u]) * s[I, J] keep J in top 2 by x[I, J]",
}


def pattern_of(body: str, before: str = BLOCKS) -> Pattern:
    return weft.load(f"pattern p {{ {before} {body} }}")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A few rows at a time, so that no number may depend on it."""
    monkeypatch.setattr(kept_module, "PAIRS_AT_ONCE", 700)
    yield


def plainly(pattern: Pattern, tensors: Tensors) -> list[tuple[float, float, int]]:
    """Density, recall and empty rows by head, from all pairs."""
    q, k, v = tensors.q, tensors.k, tensors.v
    keeps = selected(pattern.program(tensors.heads, tensors.kv_heads), q, k, v, tensors.scale, tensors.inputs)
    allowed = torch.ones(tensors.n, tensors.n).tril().bool()
    keys = k.repeat_interleave(tensors.heads // tensors.kv_heads, 1)
    weights = torch.softmax((q @ keys.mT * tensors.scale).masked_fill(~allowed, float("-inf")), -1)
    mass = (weights * keeps).sum(-1).mean((0, 2))
    density = keeps.sum((0, 2, 3)) / (q.shape[0] * allowed.sum())
    empty = (~keeps.any(-1)).sum((0, 2))
    return list(zip(density.tolist(), mass.tolist(), empty.tolist(), strict=True))


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("n", [1, 40, 131])
def test_every_number(name: str, n: int) -> None:
    pattern = pattern_of(BODIES[name])
    one, two = made_up(pattern, n, 4, 2, 8), made_up(pattern, n, 4, 2, 8, seed=1)
    q, k, v = (torch.cat(pair) for pair in ((one.q, two.q), (one.k, two.k), (one.v, two.v)))
    tensors = Tensors(q, k, v, {}, "here")
    report = report_on(pattern, tensors)
    assert [one.head for one in report.by_head] == [0, 1, 2, 3] and report.rows == report.m == n
    for found, (density, recall, empty) in zip(report.by_head, plainly(pattern, tensors), strict=True):
        assert found.density == pytest.approx(density, rel=1e-6) and found.recall == pytest.approx(recall, rel=1e-6)
        assert (found.empty_rows, found.nan_scores) == (empty, 0)
    assert report.select_seconds > 0 and report.attend_seconds > 0 and 0 < report.selecting < 1


@pytest.mark.parametrize("name", ["cells", "threshold", "densely"])
def test_nan_scores_are_counted_where_there_is_an_admissible_pair(name: str) -> None:
    pattern = pattern_of(BODIES[name])
    tensors = made_up(pattern, 80, 2, 2, 8)
    # One NaN in a query of head 1: its cell 3 of queries has no score for the cells of keys 0 .. 3.
    tensors.q[0, 1, 50, 2] = float("nan")
    assert [one.nan_scores for one in report_on(pattern, tensors).by_head] == [0, 4]


def test_more_tokens_than_the_definition_holds_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "p.sparse"
    path.write_text(f"pattern p {{ {BLOCKS} {BODIES['densely']} }}")
    monkeypatch.setattr(kept_module, "MOST_DENSE", 39)
    assert main(["show", str(path), "--n", "39"]) == 0
    capsys.readouterr()
    assert main(["show", str(path), "--n", "40"]) == 2
    assert "a reduction that runs through the same cell twice: 39 tokens at most, not 40" in capsys.readouterr().err


def test_fewer_queries_than_keys() -> None:
    """They are the last tokens, and rows are theirs."""
    pattern = pattern_of(BODIES["cells"])
    whole = made_up(pattern, 80, 2, 2, 8)
    kept = kept_module.keep(pattern, whole)
    last = kept_module.keep(pattern, Tensors(whole.q[:, :, 64:], whole.k, whole.v, {}, "here"))
    for got, wanted in zip(last.rows(0, 1, torch.arange(16)), kept.rows(0, 1, torch.arange(64, 80)), strict=True):
        assert torch.equal(got, wanted)
    report = report_on(pattern, last.tensors)
    assert (report.m, report.n, report.rows) == (16, 80, 16)


def test_rows_are_sampled_beyond_some_and_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    pattern = pattern_of(BODIES["cells"])
    tensors = made_up(pattern, 300, 2, 1, 8)
    whole = report_on(pattern, tensors)
    monkeypatch.setattr(report_module, "MOST_ROWS", 299)
    monkeypatch.setattr(report_module, "SAMPLED_ROWS", 100)
    some = report_on(pattern, tensors)
    assert "over all rows" in as_text(whole) and "over a sample of 100 of 300 rows" in as_text(some)
    assert some.rows == 100 and report_module.as_dict(some)["sampled"] is True
    rows = report_module.looked_at(300)
    assert ((rows >= torch.arange(100) * 3) & (rows < torch.arange(1, 101) * 3)).all()
    for a, b in zip(whole.by_head, some.by_head, strict=True):
        assert a.density is not None and b.density == pytest.approx(a.density, abs=0.05)
        assert a.recall is not None and b.recall == pytest.approx(a.recall, abs=0.05)


def test_rows_that_may_see_nothing_count_nowhere() -> None:
    pattern = pattern_of(BODIES["cells"], BLOCKS + " require q - k > 20 ")
    report = report_on(pattern, made_up(pattern, 15))
    assert report.by_head[0] == HeadReport(0, None, None, 0, 0) and "none" in as_text(report)


def test_made_up_tensors_have_needles_and_neighbours() -> None:
    """Later queries look for needles, all for near keys; the same seed makes the same numbers."""
    pattern = pattern_of(BODIES["cells"])
    a, b, c = made_up(pattern, 400, 4, 2, 64), made_up(pattern, 400, 4, 2, 64), made_up(pattern, 400, 4, 2, 64, seed=1)
    assert torch.equal(a.q, b.q) and not torch.equal(a.q, c.q)
    assert a.k.shape == (1, 2, 400, 64) and a.q.shape == (1, 4, 400, 64)
    scores = a.q @ a.k.repeat_interleave(2, 1).mT * a.scale
    place = torch.arange(400)
    distance = place[:, None] - place
    needle = 400 // 7
    seeking = scores[..., needle][..., needle + 100 :] > 6
    assert 0.15 < seeking.double().mean() < 0.35
    assert scores[..., (distance >= 0) & (distance < 20)].mean() > scores[..., distance > 150].mean() + 3


def test_tensors_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers, sizes and inputs are the file's; one error, naming file and shapes, where they do not fit."""
    save = pytest.importorskip("safetensors.torch").save_file
    seer, path = "seer_attention", str(tmp_path / "layer.safetensors")
    pattern = weft.load(seer, block=16)
    made = made_up(pattern, 100, 4, 2, 8)
    single = {
        name: x[0].float().contiguous() for name, x in {"q": made.q, "k": made.k, "v": made.v, **made.inputs}.items()
    }
    save({**single, "other": torch.zeros(3)}, path)
    wanted = report_on(pattern, made.to(torch.float32))
    assert main(["test", seer, "-p", "block=16", "--qkv", path, "--format", "json"]) == 0
    data: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert data["ok"] and (data["cases"][0]["n"], data["selection"]["source"]) == (100, path)
    assert [one["density"] for one in data["selection"]["by_head"]] == [one.density for one in wanted.by_head]
    assert main(["show", seer, "-p", "block=16", "--qkv", path, "--head", "3"]) == 0
    assert f"100 tokens, head 3 of 4, {path}" in capsys.readouterr().out
    assert main(["explain", seer, "-p", "block=16", "--qkv", path, "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["call"]["heads"] == 4 and data["measured"]["by_head"][3]["density"] == wanted.by_head[3].density

    save({name: x for name, x in single.items() if name != "gate_k"}, path)
    assert main(["test", seer, "-p", "block=16", "--qkv", path]) == 2
    assert "layer.safetensors" in (err := capsys.readouterr().err) and "needs the input `gate_k`" in err
    save({"q": torch.zeros(3, 10, 8), "k": torch.zeros(2, 10, 8), "v": torch.zeros(2, 10, 8)}, path)
    assert main(["show", "moba", "--qkv", path]) == 2
    assert f"{path}: " in (err := capsys.readouterr().err) and "k [2, 10, 8], q [3, 10, 8]" in err
    save({"q": torch.zeros(3, 10, 8), "keys": torch.zeros(2, 10, 8)}, path)
    assert main(["show", "moba", "--qkv", path]) == 2
    assert f"{path} has no tensor `k`; it has keys [2, 10, 8], q [3, 10, 8]" in capsys.readouterr().err
    (tmp_path / "layer.safetensors").write_bytes(b"nothing of the kind")
    assert main(["explain", "moba", "--qkv", path]) == 2
    assert f"{path} is no safetensors file: " in capsys.readouterr().err


def test_a_missing_library_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    path = tmp_path / "layer.safetensors"
    path.write_bytes(b"")
    assert main(["show", "moba", "--qkv", str(path)]) == 2
    assert capsys.readouterr().err == "weft: --qkv needs the safetensors package: pip install safetensors\n"


def test_half_precision_stays_what_it_is() -> None:
    pattern = pattern_of(BODIES["cells"])
    report = report_on(pattern, made_up(pattern, 64, 2, 1, 16).to(torch.bfloat16))
    assert report.dtype == "bfloat16" and "cpu, bfloat16" in as_text(report)


def test_limits_that_read_places_are_counted_by_the_definition() -> None:
    """What is admissible depends on the tensors then, and who is NaN of places nobody counts."""
    body = "let hot[k] = K[k] . K[k] order p = k by hot[k] within 32 axis R = p // 8 let mp[R] = mean(p in R) K[p]"
    pattern = pattern_of(f"{body} let r[I, R] = mq[I] . mp[R] keep R in top 9 by r[I, R] require p % 2 == 0")
    report = report_on(pattern, made_up(pattern, 64, 2, 2, 8))
    assert [(one.density, one.nan_scores) for one in report.by_head] == [(1.0, None)] * 2
    assert "unknown" in as_text(report) and report.by_head[0].empty_rows == 0
