"""The values of terms by the dense definition, against loops over tokens."""

import math
from collections.abc import Iterator
from statistics import NormalDist

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.selection_loops import GROUPS, HEADS, SCALE, body, program, row_rule, softmax, tensors
from weft.codegen.select_reference import score_of
from weft.compiler.selection import Program

Floats = NDArray[np.float64]
SHARED = HEADS // GROUPS
LENGTHS = (1, 3, 17, 40)


def each_head(q: torch.Tensor, k: torch.Tensor) -> Iterator[tuple[int, int, Floats, Floats]]:
    """Batch element, head, its queries and its keys."""
    for b in range(q.shape[0]):
        for h in range(HEADS):
            yield b, h, q[b, h].numpy(), k[b, h // SHARED].numpy()


def value_of(built: Program, name: str, q: torch.Tensor, k: torch.Tensor, **givens: torch.Tensor) -> Floats:
    return score_of(built, name, q, k, k, SCALE, givens).numpy()


def lowered(score: str, n: int, given: str = "", **givens: torch.Tensor) -> Floats:
    """The values of `score`, a line that defines `s`, for noise of n tokens."""
    axes = "axis I = q // 4\naxis J = k // 4\naxis e = 3\n"
    return value_of(body(f"{axes}{given}\nlet {score}\nkeep k <= q"), "s", *tensors(n, "noise"), **givens)


@pytest.mark.parametrize("n", LENGTHS)
def test_probes_are_an_axis(n: int) -> None:
    """Columns and diagonals of the last queries' weights, as MInference and FlexPrefill add them up."""
    built = body(
        "causal\naxis t = last 5 of q\naxis d = q - k\naxis D = q // 4 - k // 4\n"
        "let row[t, k] = softmax(Q[t] . K[k] * scale over k where k <= t)\n"
        "let vertical[k] = sum(t) row[t, k]\nlet slash[d] = sum(t) row[t, t - d]\nlet band[D] = sum(d in D) slash[d]\n"
        "keep k in top 1 by vertical[k]\nkeep D in top 1 by band[D]"
    )
    q, k = tensors(n, "noise")
    vertical, slash, band = (value_of(built, name, q, k) for name in ("vertical", "slash", "band"))
    assert value_of(built, "row", q, k).shape == (2, HEADS, min(5, n), n)
    for b, h, queries, keys in each_head(q, k):
        columns, diagonals = np.zeros(n), np.zeros(n)
        for t in range(max(0, n - 5), n):
            for j, weight in enumerate(softmax([float(queries[t] @ key) * SCALE for key in keys[: t + 1]])):
                columns[j] += weight
                diagonals[t - j] += weight
        assert np.allclose(vertical[b, h], columns)
        assert np.allclose(slash[b, h], diagonals)
        assert np.allclose(band[b, h], [diagonals[at : at + 4].sum() for at in range(0, n, 4)])


def test_fewer_queries_than_probes() -> None:
    """Queries before the first do not exist: they are no probes, and read as 0."""
    built = body(
        "axis t = last 5 of q\naxis I = q // 4\nlet norm[q] = Q[q] . Q[q] + 1\n"
        "let all[k] = sum(t) norm[t] + 0 * K[k] . K[k]\nlet whole[k] = sum(q) norm[q] + 0 * K[k] . K[k]\n"
        "let cells[k] = sum(I) mean(q in I) norm[q] + 0 * K[k] . K[k]\nlet back[k] = norm[k - 1]\n"
        "keep k in top 1 by all[k] + whole[k] + cells[k] + back[k]"
    )
    q, k = tensors(11, "noise")
    q = q[:, :, -3:]
    for b, h, queries, _ in each_head(q, k):
        norms = [float(row @ row) + 1 for row in queries]
        assert np.allclose(value_of(built, "all", q, k)[b, h], sum(norms))
        assert np.allclose(value_of(built, "whole", q, k)[b, h], sum(norms))
        # Queries 8, 9 and 10 are what there is of their cell.
        assert np.allclose(value_of(built, "cells", q, k)[b, h], sum(norms) / 3)
        assert np.allclose(value_of(built, "back", q, k)[b, h], [0] * 9 + norms[:2])


@pytest.mark.parametrize("n", LENGTHS)
def test_reads_anywhere_are_0_outside(n: int) -> None:
    rows = -(-n // 4)
    w = torch.arange(1.0, rows + 1).view(1, 1, rows)
    got = lowered("s[J] = w[J - 1] + 10 * w[J] + 100 * w[2 * J + 1] + 0 * K[J + 0] . K[0]", n, "input w[J]: float", w=w)

    def at(j: int) -> float:
        return j + 1 if 0 <= j < rows else 0

    assert np.allclose(got, [at(j - 1) + 10 * at(j) + 100 * at(2 * j + 1) for j in range(rows)])


@pytest.mark.parametrize("n", LENGTHS)
def test_plain_axes_and_heads_of_inputs(n: int) -> None:
    rows = -(-n // 4)
    a = torch.randn(2, HEADS, 3, rows, dtype=torch.float64)
    got = lowered("s[J] = sum(e where e != 1) (e + 1) * a[e, J]", n, "input a[e, J]: float", a=a)
    assert np.allclose(got, (a[:, :, 0] + 3 * a[:, :, 2]).numpy())


@pytest.mark.parametrize("n", LENGTHS)
def test_heads_are_reduced_together(n: int) -> None:
    rows = -(-n // 4)
    w = torch.randn(2, HEADS, rows, dtype=torch.float64)
    groups = w.view(2, GROUPS, SHARED, rows)
    given = "input w[J]: float"
    assert np.allclose(lowered("s[J] = max(h) w[J]", n, given, w=w), w.amax(1, keepdim=True).expand_as(w).numpy())
    assert np.allclose(
        lowered("s[J] = sum(h) 2 * w[J]", n, given, w=w), 2 * w.sum(1, keepdim=True).expand_as(w).numpy()
    )
    assert np.allclose(
        lowered("s[J] = mean(h in g) w[J]", n, given, w=w), groups.mean(2).repeat_interleave(SHARED, 1).numpy()
    )
    # A shared input counts once a head, and `h` is each head's own.
    one = w[:, :1]
    assert np.allclose(lowered("s[J] = sum(h) h * w[J]", n, given, w=one), 6 * one.expand_as(w).numpy())
    everything = lowered("s[J] = mean(h, J where h > 0 and J != 1) w[J] + 0 * K[J + 0] . K[0]", n, given, w=w)
    left = w[:, 1:, [j for j in range(rows) if j != 1]]
    assert np.allclose(everything[..., 0], left.mean((1, 2))[:, None].numpy())


@pytest.mark.parametrize("n", LENGTHS)
def test_conditions_leave_out(n: int) -> None:
    """AnchorAttention's largest logit of the first cell and of the query's own; nothing at all has neutral values."""
    logits = "Q[q] . K[k]"
    largest = lowered(f"s[q] = max(k where k <= q and (k < 4 or k // 4 == q // 4)) {logits}", n)
    means = lowered(f"s[q] = mean(k where k < q) {logits}", n)
    found = {op: lowered(f"s[q] = {op}(k where k > q + n) {logits}", n) for op in ("sum", "mean", "max", "min")}
    for b, h, queries, keys in each_head(*tensors(n, "noise")):
        for t in range(n):
            row = [float(queries[t] @ key) for key in keys]
            assert math.isclose(largest[b, h, t], max(row[j] for j in range(t + 1) if j < 4 or j // 4 == t // 4))
            assert math.isclose(means[b, h, t], sum(row[:t]) / max(1, t), abs_tol=1e-12)
    for op, wanted in (("sum", 0), ("mean", 0), ("max", -math.inf), ("min", math.inf)):
        assert (found[op] == wanted).all()


def descend(values: list[float]) -> float:
    """The largest value seen on the way down, where halves begin at their middles."""
    if len(values) == 1:
        return values[0]
    left, right = values[: len(values) // 2], values[len(values) // 2 :]
    return max(left[0], right[0], descend(right if right[0] > left[0] else left))


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("size", [1, 2, 6, 7, 8])
def test_descent_looks_at_one_token_a_half(n: int, size: int) -> None:
    w = torch.randint(-3, 3, (2, HEADS, n)).double()
    built = body(f"axis C = k // {size}\ninput w[k]: float\nlet s[C] = descend(t in C) w[t]\nkeep C in top 1 by s[C]")
    got = value_of(built, "s", *tensors(n, "noise"), w=w)
    for b in range(2):
        for h in range(HEADS):
            padded = [*w[b, h].tolist(), *[-math.inf] * size]
            assert got[b, h].tolist() == [descend(padded[at : at + size]) for at in range(0, n, size)]


def test_integers_are_numbers() -> None:
    n = 17
    got = lowered("s[I, J] = 30 + I / 10 + n % 5 * h - (I - J) // 2 + g * m + 0 * Q[I + 0] . K[J + 0]", n)
    for h in range(HEADS):
        for i in range(5):
            for j in range(5):
                assert math.isclose(got[0, h, i, j], 30 + i / 10 + 2 * h - (i - j) // 2 + h // SHARED * n)


def test_numbers_by_head() -> None:
    built = program(
        "pattern p(mass: float[head]) { let s[k] = mass[h] * K[k] . K[k]\nkeep k in top 1 by s[k] }",
        mass=[0.5, 1, -2, 4],
    )
    q, k = tensors(9, "noise")
    squares = (k * k).sum(-1).repeat_interleave(SHARED, 1)
    assert np.allclose(value_of(built, "s", q, k), (squares * torch.tensor([0.5, 1, -2, 4])[:, None]).numpy())


def test_quantiles_of_the_normal_distribution() -> None:
    got = lowered("s[q] = probit((q + 1) / 20) + 0 * Q[q] . Q[q]", 19)
    assert np.allclose(got, [NormalDist().inv_cdf((t + 1) / 20) for t in range(19)])
    assert np.isneginf(lowered("s[q] = probit(0 * (Q[q] . Q[q]))", 3)).all()


@pytest.mark.parametrize("n", LENGTHS)
def test_rows_go_element_by_element(n: int) -> None:
    """Quest's bounds, and parts of rows."""
    bound = lowered("s[q, J] = max(Q[q], 0) . (max(t in J) K[t]) + min(Q[q], 0) . (min(t in J) K[t])", n)
    odd = lowered("s[k] = (sqrt(abs(K[k])) * 2 / (1 + exp(K[k])) - K[k] * K[k])[1 .. 4]", n)
    part = lowered("s[q, k] = Q[q][2 .. 7] . K[k][0 .. 5]", n)
    for b, h, queries, keys in each_head(*tensors(n, "noise")):
        for row in range(n):
            for cell, at in enumerate(range(0, n, 4)):
                pairs = [queries[row] * key for key in keys[at : at + 4]]
                assert math.isclose(bound[b, h, row, cell], float(np.max(pairs, 0).sum()))
        wanted = np.sqrt(np.abs(keys)) * 2 / (1 + np.exp(keys)) - keys * keys
        assert np.allclose(odd[b, h], wanted[:, 1:4])
        assert np.allclose(part[b, h], queries[:, 2:7] @ keys[:, :5].T)


def test_rows_that_do_not_fit() -> None:
    for line, message in (
        ("s[k] = K[k][4 .. 9] . K[k][4 .. 9]", "no elements 4 .. 9"),
        ("s[k] = K[k][0 .. 3] . K[k]", "rows of 3 and 8 numbers are multiplied"),
        ("s[k] = K[k][0 .. 3] + K[k]", "rows of 3 and 8 numbers meet"),
    ):
        with pytest.raises(ValueError, match=message):
            lowered(line, 5)


@pytest.mark.parametrize("n", LENGTHS)
def test_counts_of_choices(n: int) -> None:
    """How many cells a rule takes, for each cell of queries or for all of them."""
    built = body(
        "causal\naxis I = q // 8\naxis J = k // 4\nlet mq[I] = mean(t in I) Q[t]\nlet mk[J] = mean(t in J) K[t]\n"
        "let share[I, J] = softmax(mq[I] . mk[J] over J where J * 4 < I * 8 + 8)\nlet size[k] = exp(K[k] . K[k] / 9)\n"
        "let taken[I] = count(J in under 0.7 by share[I, J] counting (J == 0))\n"
        "let both[I] = taken[I] + count(k in cover 0.5 by size[k])\n"
        "keep J in top both[I] by share[I, J]"
    )
    q, k = tensors(n, "noise")
    share, size = value_of(built, "share", q, k), value_of(built, "size", q, k)
    both = value_of(built, "both", q, k)
    for b, h, _, _ in each_head(q, k):
        every = len(row_rule("cover", 0.5, 0, size[b, h].tolist(), list(range(n)), []))
        for i in range(-(-n // 8)):
            seen = [j for j in range(-(-n // 4)) if j * 4 <= min(i * 8 + 7, n - 1)]
            assert both[b, h, i] == every + len(row_rule("under", 0.7, 0, share[b, h, i].tolist(), seen, [0]))
