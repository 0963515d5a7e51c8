"""Selections by token, page and chunk against loops written from the papers' words, on hostile inputs."""

from collections.abc import Callable, Collection, Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import weft
from tests.brute import PATTERNS
from weft.codegen import select as select_module
from weft.codegen.select_reference import selected

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# All heads' rule: queries [H, n, D], keys [G, n, D] to the kept pairs [H, n, n], before `causal`.
Rule = Callable[[Floats, Floats], Bools]

HEADS, WIDTH, SCALE = 4, 8, 0.25
LENGTHS = (1, 63, 100, 257)
ODD = [(n, "noise") for n in LENGTHS] + [(100, "sharp"), (100, "needle")]
TIED = [(257, "ties"), (100, "equal"), (100, "repeated")]


def load(name: str, **params: Any) -> weft.Pattern:
    return weft.load(PATTERNS / "selection" / f"{name}.sparse", **params)


def tensors(n: int, kind: str, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """q `[B, H, n, D]` and k `[B, G, n, D]`; all but noise, sharp rows and needles are integers with exact sums."""
    generator, batch = torch.Generator().manual_seed(n), 2 if n == 63 else 1
    q, k = (torch.randn(batch, count, n, WIDTH, generator=generator, dtype=torch.float64) for count in (HEADS, groups))
    whole = (q * 1.5).round().clamp(-2, 2), (k * 1.5).round().clamp(-2, 2)
    match kind:
        case "sharp":
            return q * 30, k
        case "needle":
            k[:, :, n // 3] = 20.0
            q[:, :, 2 * n // 3 :] = 20.0
            return q, k
        case "ties":
            return whole
        case "equal":
            return whole[0], whole[1][:, :, :1].expand_as(k).clone()
        case "repeated":
            return whole[0], whole[1][:, :, torch.arange(n) % 16].clone()
        case _:
            return q, k


def indices(n: int) -> tuple[torch.Tensor, ...]:
    """What an indexer of three heads computed: rows of queries, rows of keys, weights."""
    generator = torch.Generator().manual_seed(n)
    shapes = (n, 3, 6), (n, 6), (n, 3)
    return tuple(torch.randn(1, 1, *shape, generator=generator, dtype=torch.float64) for shape in shapes)


def agrees(pattern: weft.Pattern, rule: Rule, n: int, kind: str, groups: int = 2, **inputs: torch.Tensor) -> None:
    """The dense definition keeps the very pairs of the rule, in each batch element."""
    q, k = tensors(n, kind, groups)
    got = selected(pattern.program(HEADS, groups), q, k, k, SCALE, inputs).numpy()
    for b in range(len(q)):
        wanted = np.tril(rule(q[b].numpy(), k[b].numpy()))
        assert wanted.shape == got[b].shape == (HEADS, n, n)
        assert np.array_equal(got[b], wanted), f"batch {b}: {np.argwhere(got[b] != wanted)[:5].tolist()}"


def best(score: Mapping[int, float], count: int, forced: Collection[int] = ()) -> list[int]:
    """What is forced, then the largest, the earlier of equal ones, until there are `count`."""
    order = sorted((j for j in score if j not in forced), key=lambda j: (-score[j], j))
    return [*forced, *order[: max(0, count - len(forced))]]


def softmax(row: list[float]) -> list[float]:
    weights = np.exp(np.array(row) - max(row))
    return (weights / weights.sum()).tolist()


def quest(page: int, budget: int) -> Rule:
    """For each channel the larger of the query's products with the page's extremes, added up."""

    def rule(q: Floats, k: Floats) -> Bools:
        heads, n, _ = q.shape
        kept = np.zeros((heads, n, n), dtype=bool)
        for h in range(heads):
            keys = k[h * len(k) // heads]
            extremes = [(p.max(0), p.min(0)) for p in (keys[at : at + page] for at in range(0, n, page))]
            for t in range(n):
                own = t // page
                score = {
                    j: float(np.maximum(q[h, t] * high, q[h, t] * low).sum())
                    for j, (high, low) in enumerate(extremes[: own + 1])
                }
                for j in best(score, max(3, budget // page), {own}):
                    kept[h, t, j * page : (j + 1) * page] = True
        return kept

    return rule


def nsa(window: int, stride: int, block: int, blocks: int) -> Rule:
    """A compressed key lies on window // stride strips of keys, a block on block // stride: they share strips."""

    def rule(q: Floats, k: Floats) -> Bools:
        heads, n, _ = q.shape
        group = heads // len(k)
        kept = np.zeros((heads, n, n), dtype=bool)
        for g in range(len(k)):
            means = [k[g, at : at + window].mean(0) for at in range(0, n - window + 1, stride)]
            for t in range(n):
                seen = [i for i in range(len(means)) if i * stride + window <= t + 1]
                own = t // block
                score = dict.fromkeys(range(own + 1), 0.0)
                for h in range(g * group, (g + 1) * group):
                    share = softmax([float(q[h, t] @ means[i]) * SCALE for i in seen]) if seen else []
                    for i, p in zip(seen, share, strict=True):
                        strips = set(range(i, i + window // stride))
                        for b in score:
                            score[b] += p * len(strips & set(range(b * block // stride, (b + 1) * block // stride)))
                forced = {0, own, max(0, own - 1)}
                for b in best(score, blocks, forced):
                    kept[g * group : (g + 1) * group, t, b * block : (b + 1) * block] = True
        return kept

    return rule


def indexer(rows: Floats, keys: Floats, weight: Floats, budget: int) -> Rule:
    """I[t, s] = the sum over j of w[t, j] * ReLU(q[t, j] . k[s]); the best tokens for every head."""

    def rule(q: Floats, k: Floats) -> Bools:
        heads, n, _ = q.shape
        kept = np.zeros((heads, n, n), dtype=bool)
        for t in range(n):
            score = dict.fromkeys(range(t + 1), 0.0)
            for s in score:
                for j in range(weight.shape[1]):
                    score[s] += float(weight[t, j]) * max(0.0, float(rows[t, j] @ keys[s]))
            kept[:, t, best(score, budget)] = True
        return kept

    return rule


def spark(dims: int, budget: int) -> Rule:
    """Scores that reach mean + std * Q(1 - k / d), of the d keys a query sees; all while d is at most k."""

    def rule(q: Floats, k: Floats) -> Bools:
        heads, n, _ = q.shape
        kept = np.zeros((heads, n, n), dtype=bool)
        for h in range(heads):
            for t in range(n):
                score = k[h * len(k) // heads, : t + 1, :dims] @ q[h, t, :dims]
                if t + 1 > budget:
                    limit = score.mean() + score.std() * NormalDist().inv_cdf(1 - budget / (t + 1))
                    kept[h, t, : t + 1] = score >= limit
                else:
                    kept[h, t, : t + 1] = True
        return kept

    return rule


def dhsa(block_q: int, block_k: int, density: float) -> Rule:
    """Dense while the visible tiles fit the budget; else the first, the newest, and the best between them."""

    def rule(q: Floats, k: Floats) -> Bools:
        heads, n, _ = q.shape
        kept = np.zeros((heads, n, n), dtype=bool)
        queries, keys = q.mean(0), k.mean(0)
        means = [keys[at : at + block_k].mean(0) for at in range(0, n, block_k)]
        budget = max(1, int(density * len(means)))
        for at in range(0, n, block_q):
            tile = queries[at : at + block_q].mean(0)
            newest = (at + len(queries[at : at + block_q]) - 1) // block_k
            chosen = list(range(newest + 1))
            if len(chosen) > budget:
                middle = {j: float(tile @ means[j]) for j in range(1, newest)}
                chosen = [*{0, newest}, *best(middle, max(0, budget - len({0, newest})))]
            for j in chosen:
                kept[:, at : at + block_q, j * block_k : (j + 1) * block_k] = True
        return kept

    return rule


def descent(left: int, right: int, value: Callable[[int], float]) -> float:
    """Halve a chunk towards the half whose first token scores higher; the best score on the way."""
    found = float("-inf")
    while right - left > 1:
        centre = (left + right) // 2
        first, second = value(left), value(centre)
        found = max(found, first, second)
        left, right = (left, centre) if first >= second else (centre, right)
    return found


def hip(block: int, stride: int, sink: int, window: int, stages: list[tuple[int, int, int]]) -> Rule:
    """Stages of (chunk, tokens kept, query stride), then the sink and the window of each query."""

    def rule(q: Floats, k: Floats) -> Bools:
        heads, n, _ = q.shape
        kept = np.zeros((heads, n, n), dtype=bool)
        for at in range(0, n, block):
            rows = q[:, at : at + block]

            def value(h: int, t: int, step: int, rows: Floats = rows) -> float:
                if t >= n:
                    return float("-inf")
                averaged = [rows[h, r : r + step].mean(0) for r in range(0, rows.shape[1], step)]
                return max(float(row @ k[h * len(k) // heads, t]) for row in averaged)

            # A chunk counts where its first token lies behind the window of the tile's last query.
            starts, size = [x for x in range(0, n, stages[0][0]) if x >= sink], stages[0][0]
            for chunk, tokens, step in stages:
                parts = [x for start in starts for x in range(start, start + size, chunk)]
                starts = [x for x in parts if x < at + block - window]
                score = {
                    x: max(descent(x, x + chunk, lambda t, h=h, s=step: value(h, t, s)) for h in range(heads))
                    for x in starts
                }
                starts, size = best(score, tokens // chunk), chunk
            for x in starts:
                kept[:, at : at + block, x : x + size] = True
        kept[:, :, :sink] = True
        for t in range(n):
            kept[:, t, max(0, t - window + 1) : t + 1] = True
        return kept

    return rule


@pytest.mark.parametrize(("n", "kind"), ODD + TIED)
def test_quest(n: int, kind: str) -> None:
    agrees(load("quest", page=8, budget=40), quest(8, 40), n, kind)
    agrees(load("quest", page=5, budget=5), quest(5, 5), n, kind, groups=1)
    agrees(load("quest", page=8), quest(8, 1024), n, kind, groups=4)


@pytest.mark.parametrize(("n", "kind"), ODD + TIED[1:])
def test_nsa_selected(n: int, kind: str) -> None:
    small = {"window": 8, "stride": 4, "block": 16, "blocks": 5}
    agrees(load("nsa_selected", **small), nsa(**small), n, kind)
    wide = {"window": 12, "stride": 4, "block": 8, "blocks": 4}
    agrees(load("nsa_selected", **wide), nsa(**wide), n, kind, groups=1)


@pytest.mark.parametrize("n", LENGTHS)
def test_windows_weigh_one_two_two_two_one(n: int) -> None:
    """The paper's 32, 16, 64: what a block gets of the windows that touch it."""
    agrees(load("nsa_selected", blocks=4), nsa(32, 16, 64, 4), n, "noise")


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("whole", [False, True])
def test_deepseek_indexer(n: int, whole: bool) -> None:
    """Whole numbers tie all the time, and the ReLU makes most scores of a few heads zero."""
    rows, keys, weight = indices(n)
    if whole:
        rows, keys, weight = rows.round(), keys.round(), weight.round()
    for budget in (1, 20, 999):
        pattern = load("deepseek_indexer", budget=budget, index_heads=3)
        rule = indexer(rows[0, 0].numpy(), keys[0, 0].numpy(), weight[0, 0].numpy(), budget)
        agrees(pattern, rule, n, "noise", index_q=rows, index_k=keys, weight=weight)


@pytest.mark.parametrize(("n", "kind"), ODD + TIED)
def test_spark(n: int, kind: str) -> None:
    for dims, budget in ((4, 16), (8, 1), (3, 99)):
        agrees(load("spark", dims=dims, budget=budget), spark(dims, budget), n, kind)


@pytest.mark.parametrize(("n", "kind"), ODD + TIED)
def test_dhsa(n: int, kind: str) -> None:
    for density in (0.0, 0.25, 1.0):
        agrees(load("dhsa", block_q=32, block_k=8, density=density), dhsa(32, 8, density), n, kind)
    agrees(load("dhsa", block_q=16, block_k=32, density=0.5), dhsa(16, 32, 0.5), n, kind, groups=4)


@pytest.mark.parametrize(("n", "kind"), ODD + TIED)
def test_hip(n: int, kind: str) -> None:
    """A window of 30 ends inside chunks of every stage."""
    cut = {"block": 16, "stride": 4, "sink": 32, "coarse": 32, "middle": 8, "fine": 4}
    for window, first, second, third in ((30, 64, 40, 16), (48, 64, 64, 64), (32, 32, 8, 4)):
        stages = [(32, first, 4), (8, second, 4), (4, third, 1)]
        pattern = load("hip", **cut, window=window, first=first, second=second, third=third)
        agrees(pattern, hip(16, 4, 32, window, stages), n, kind)


def test_small_inputs_are_kept_whole() -> None:
    """With the papers' numbers, where what is seen fits the budgets."""
    q, k = tensors(100, "noise", 2)
    for name, params in (("quest", {}), ("nsa_selected", {}), ("spark", {"dims": 4}), ("hip", {})):
        got = selected(load(name, **params).program(HEADS, 2), q, k, k, SCALE, {})
        assert torch.equal(got, torch.ones_like(got).tril())


FAST: dict[str, tuple[dict[str, Any], Rule]] = {
    "quest": ({"page": 8, "budget": 40}, quest(8, 40)),
    "nsa_selected": ({"window": 8, "stride": 4, "block": 16, "blocks": 5}, nsa(8, 4, 16, 5)),
    "spark": ({"dims": 4, "budget": 16}, spark(4, 16)),
    "dhsa": ({"block_q": 32, "block_k": 8, "density": 0.25}, dhsa(32, 8, 0.25)),
    "hip": (
        {"block": 16, "sink": 32, "window": 30, "coarse": 32, "middle": 8, "fine": 4}
        | {"first": 64, "second": 40, "third": 16},
        hip(16, 4, 32, 30, [(32, 64, 4), (8, 40, 4), (4, 16, 1)]),
    ),
}


def attends(pattern: weft.Pattern, rule: Rule, n: int, **inputs: Any) -> None:
    """Attention chunk by chunk is attention over the rule's pairs; what keeps no key gives 0."""
    q, k = tensors(n, "noise", 2)
    wanted = torch.from_numpy(np.stack([np.tril(rule(*pair)) for pair in zip(q.numpy(), k.numpy(), strict=True)]))
    wide = k.repeat_interleave(HEADS // 2, 1)
    scores = (q @ wide.transpose(-1, -2) * SCALE).masked_fill(~wanted, float("-inf"))
    right = torch.softmax(scores, -1).nan_to_num(0.0) @ wide
    out = pattern.attention(q, k, k, scale=SCALE, backend="cpu", **inputs)
    torch.testing.assert_close(out, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n", [63, 161])
@pytest.mark.parametrize("name", sorted(FAST))
def test_attention(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """All scores at once where there are few tokens, and few rows of them at a time."""
    params, rule = FAST[name]
    if n > 100:
        monkeypatch.setattr(select_module, "map_bytes", lambda *_: 1 << 14)
    attends(load(name, **params), rule, n)


def test_attention_by_an_indexer() -> None:
    n = 100
    rows, keys, weight = indices(n)
    rule = indexer(rows[0, 0].numpy(), keys[0, 0].numpy(), weight[0, 0].numpy(), 20)
    attends(load("deepseek_indexer", budget=20, index_heads=3), rule, n, index_q=rows, index_k=keys, weight=weight)


@pytest.mark.parametrize("name", ["quest", "nsa_selected", "spark"])
def test_decoding(name: str) -> None:
    """A token chooses by itself: the last queries alone attend to what they attend to among all."""
    pattern = load(name, **FAST[name][0])
    q, k = tensors(100, "noise", 2)
    for count in (1, 13):
        last = q[:, :, -count:]
        whole = selected(pattern.program(HEADS, 2), q, k, k, SCALE, {})
        assert torch.equal(selected(pattern.program(HEADS, 2), last, k, k, SCALE, {}), whole[:, :, -count:])
        out = pattern.attention(last, k, k, scale=SCALE, backend="cpu")
        right = pattern.attention(q, k, k, scale=SCALE, backend="reference")[:, :, -count:]
        torch.testing.assert_close(out, right, rtol=1e-9, atol=1e-9)
