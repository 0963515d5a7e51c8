"""The reference of dynamic patterns against loops written from the published rules, on hostile inputs."""

import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.selection_loops import GROUPS, HEADS, SCALE, body, program, row_rule, softmax, tensors, text_of
from weft.codegen.rules import choose
from weft.codegen.select_reference import score_of, selected
from weft.compiler.ir import Var
from weft.compiler.selection import Chosen, Integer, Number, Program, Term

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
# One head's rule: (queries, keys) to the kept pairs, before `causal`.
Rule = Callable[[Floats, Floats], Bools]

LENGTHS = (1, 63, 100, 257)
VERTICAL = """pattern vertical(probes: int = 7, columns: int = 9) {
    causal
    let column[k] = sum(t in last probes of q) softmax(Q[t] . K[k] * scale over k where k <= t)
    keep k in top columns by column[k]
}"""
GATED = """pattern gated(limit: float = 0.25) {
    causal
    axis I = q // 16
    axis J = k // 8
    input gate[I, J]: float
    keep gate[I, J] >= limit
}"""


def agrees(built: Program, rule: Rule, q: torch.Tensor, k: torch.Tensor, **givens: torch.Tensor) -> None:
    """The reference keeps what the rule keeps, head by head, causally."""
    got = selected(built, q, k, k, SCALE, givens)
    n = q.shape[2]
    for b in range(q.shape[0]):
        for h in range(HEADS):
            wanted = np.tril(rule(q[b, h].numpy(), k[b, h // (HEADS // GROUPS)].numpy()))
            assert wanted.shape == (n, n)
            assert np.array_equal(got[b, h].numpy(), wanted), f"batch {b}, head {h}"


def cut(x: Floats, size: int) -> list[Floats]:
    return [x[at : at + size] for at in range(0, len(x), size)]


def spread(cells: Bools, query: int, key: int, n: int) -> Bools:
    """A map of cells as one of n by n tokens."""
    return np.repeat(np.repeat(cells, query, 0), key, 1)[:n, :n]


def xattention(block: int, stride: int, mass: float) -> Rule:
    def rule(q: Floats, k: Floats) -> Bools:
        n = len(q)
        fine, coarse, each = -(-n // stride), -(-n // block), block // stride
        q, k = (np.pad(x, ((0, fine * stride - n), (0, 0))) for x in (q, k))
        weight = np.zeros((coarse, coarse))
        for i in range(fine):
            row = []
            for j in range(i + 1):
                pairs = zip(q[i * stride : (i + 1) * stride][::-1], k[j * stride : (j + 1) * stride], strict=True)
                row.append(sum(float(a @ b) for a, b in pairs) * SCALE / stride)
            for j, w in enumerate(softmax(row)):
                weight[i // each, j // each] += w
        cells = np.zeros((coarse, coarse), dtype=bool)
        for row in range(coarse):
            kept, queue = {0, row}, sorted(range(1, row), key=lambda j: -weight[row, j])
            for j in queue:
                if sum(weight[row, x] for x in kept) >= mass * weight[row, : row + 1].sum():
                    break
                kept.add(j)
            cells[row, list(kept)] = True
        return spread(cells, block, block, n)

    return rule


def pooled_top(block: int, count: int) -> Rule:
    def rule(q: Floats, k: Floats) -> Bools:
        queries, keys = ([x.mean(0) for x in cut(y, block)] for y in (q, k))
        cells = np.zeros((len(queries), len(keys)), dtype=bool)
        for row, query in enumerate(queries):
            score = [float(query @ key) for key in keys[: row + 1]]
            for j in sorted(range(row + 1), key=lambda j: (-score[j], j))[:count]:
                cells[row, j] = True
        return spread(cells, block, block, len(q))

    return rule


def sparge(query: int, key: int, mass: float) -> Rule:
    def rule(q: Floats, k: Floats) -> Bools:
        rows, keys = [x.mean(0) for x in cut(q, query)], [x.mean(0) for x in cut(k, key)]
        cells = np.zeros((len(rows), len(keys)), dtype=bool)
        for row, mean in enumerate(rows):
            visible = min(len(keys), -(-(row + 1) * query // key))
            # A partly filled last block of queries may see fewer blocks than its place says.
            weight = softmax([float(mean @ x) * SCALE for x in keys[:visible]])
            taken = 0.0
            for place, j in enumerate(sorted(range(visible), key=lambda j: (-weight[j], j))):
                taken += weight[j]
                if place and taken > mass:
                    break
                cells[row, j] = True
        return spread(cells, query, key, len(q))

    return rule


def vertical(probes: int, columns: int) -> Rule:
    def rule(q: Floats, k: Floats) -> Bools:
        n, column = len(q), np.zeros(len(q))
        for t in range(max(0, n - probes), n):
            column[: t + 1] += softmax([float(q[t] @ k[j]) * SCALE for j in range(t + 1)])
        kept = np.zeros((n, n), dtype=bool)
        kept[:, sorted(range(n), key=lambda j: (-column[j], j))[:columns]] = True
        return kept

    return rule


def moba(block: int, count: int) -> Rule:
    def rule(q: Floats, k: Floats) -> Bools:
        n, means = len(q), [x.mean(0) for x in cut(k, block)]
        kept = np.zeros((n, n), dtype=bool)
        for t in range(n):
            own = t // block
            past = sorted(range(own), key=lambda j: (-float(q[t] @ means[j]), j))[: count - 1]
            for j in (*past, own):
                kept[t, j * block : (j + 1) * block] = True
        return kept

    return rule


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kind", ["noise", "sharp", "needle"])
class TestPublished:
    def test_xattention(self, n: int, kind: str) -> None:
        for mass in (0.3, 0.9):
            built = program(text_of("xattention"), block=32, stride=8, mass=mass)
            agrees(built, xattention(32, 8, mass), *tensors(n, kind))

    def test_pooled_top(self, n: int, kind: str) -> None:
        for count in (1, 3, 99):
            agrees(
                program(text_of("minference_blocks"), block=16, blocks=count), pooled_top(16, count), *tensors(n, kind)
            )

    def test_sparge(self, n: int, kind: str) -> None:
        for mass in (0.0, 0.6):
            built = program(text_of("sparge_attention"), block_q=32, block_k=16, mass=mass)
            agrees(built, sparge(32, 16, mass), *tensors(n, kind))

    def test_vertical(self, n: int, kind: str) -> None:
        agrees(program(VERTICAL), vertical(7, 9), *tensors(n, kind))
        agrees(program(VERTICAL, probes=300, columns=4), vertical(300, 4), *tensors(n, kind))

    def test_moba(self, n: int, kind: str) -> None:
        for count in (1, 3):
            agrees(program(text_of("moba"), block=16, blocks=count), moba(16, count), *tensors(n, kind))


@pytest.mark.parametrize("n", [1, 64, 100, 257])
def test_ties_go_to_the_lower_index(n: int) -> None:
    """Small integers over power-of-two counts: every mean and product is exact, and many are equal."""
    agrees(program(text_of("minference_blocks"), block=16, blocks=2), pooled_top(16, 2), *tensors(n, "ties"))
    agrees(program(text_of("moba"), block=4, blocks=3), moba(4, 3), *tensors(n, "ties"))


@pytest.mark.parametrize("n", LENGTHS)
def test_gates_above_a_threshold(n: int) -> None:
    rows, columns = -(-n // 16), -(-n // 8)
    torch.manual_seed(n)
    gate = torch.randint(0, 5, (2, 1, rows, columns)) / 8.0
    gate[:, :, ::2, ::3] = float("nan")
    q, k = tensors(n, "noise")
    kept = selected(program(GATED), q, k, k, SCALE, {"gate": gate})
    for b in range(2):
        for t in range(n):
            wanted = [bool(gate[b, 0, t // 16, j // 8] >= 0.25) and j <= t for j in range(n)]
            assert all(kept[b, h, t].tolist() == wanted for h in range(HEADS))


def test_nan_is_never_chosen() -> None:
    q, k = tensors(100, "noise")
    k[:, :, 37] = float("nan")
    kept = selected(program(text_of("minference_blocks"), block=16, blocks=99), q, k, k, SCALE, {})
    wanted = np.tril(np.ones((100, 100), dtype=bool))
    wanted[:, 32:48] = False
    assert (kept.numpy() == wanted).all()
    # The own block is kept whatever its score.
    kept = selected(program(text_of("moba"), block=16, blocks=99), q, k, k, SCALE, {})
    wanted[37:48, 32:48] = np.tril(np.ones((100, 100), dtype=bool))[37:48, 32:48]
    wanted[32:37, 32:48] = np.tril(np.ones((100, 100), dtype=bool))[32:37, 32:48]
    assert (kept.numpy() == wanted).all()


class TestRules:
    """Rows of dyadic numbers, so that every sum is exact."""

    number = st.integers(-8, 24).map(lambda x: x / 8) | st.just(float("nan"))
    row = st.lists(st.tuples(number, st.booleans(), st.booleans()), min_size=1, max_size=12)

    @given(rows=st.lists(row, min_size=1, max_size=3), data=st.data())
    def test_four_rules(self, rows: list[list[tuple[float, bool, bool]]], data: st.DataObject) -> None:
        rule = data.draw(st.sampled_from(["top", "cover", "reach", "under"]))
        if rule == "top":
            amount = data.draw(st.integers(0, 14).map(float))
        else:
            amount = data.draw(st.integers(0, 8 if rule == "cover" else 40)) / 8
        for row in rows:
            score = [s for s, _, _ in row]
            seen = [j for j, (_, candidate, _) in enumerate(row) if candidate]
            forced = [j for j, (_, candidate, first) in enumerate(row) if candidate and first]
            wanted = row_rule(rule, Fraction(amount), int(amount), score, seen, forced)
            if rule == "under" and not seen:
                wanted = set[int]()
            got = self.kept(rule, amount, row)
            assert got == wanted

    @given(row=row, percent=st.integers(0, 1000), of=st.sampled_from(["total", "visible", "triangle"]))
    def test_percentages(
        self,
        row: list[tuple[float, bool, bool]],
        percent: int,
        of: Literal["total", "visible", "triangle"],
    ) -> None:
        share = Fraction(percent, 1000)
        seen = [j for j, (_, candidate, _) in enumerate(row) if candidate]
        match of:
            case "triangle":
                root = (Decimal(1) - Decimal(percent) / 1000).sqrt()
                budget = max(1, math.floor((1 - root) * len(row)))
            case _:
                budget = math.ceil(share * (len(row) if of == "total" else len(seen)))
        forced = [j for j in seen if row[j][2]]
        wanted = row_rule("top", share, budget, [s for s, _, _ in row], seen, forced)
        assert self.kept("top", percent / 10, row, percent=True, of=of) == wanted

    @given(rows=st.lists(row, min_size=1, max_size=4), data=st.data())
    def test_each_row_has_its_amount(self, rows: list[list[tuple[float, bool, bool]]], data: st.DataObject) -> None:
        """As the constant would choose, rounded down; only what is forced where it is no number, or too small."""
        rule = data.draw(st.sampled_from(["top", "share", "cover", "reach", "under"]))
        said = {"rule": "top", "percent": True} if rule == "share" else {"rule": rule, "percent": False}
        said["of"] = data.draw(st.sampled_from(["total", "visible", "triangle"]))
        least, most = (0, 100) if rule == "share" else (-1, 14)
        some = st.floats(least, most, width=16) | st.just(float("nan"))
        amounts = data.draw(st.lists(some, min_size=len(rows), max_size=len(rows)))
        width = min(len(row) for row in rows)
        score, candidates, forced = (
            torch.tensor([[x[part] for x in row[:width]] for row in rows]) for part in range(3)
        )
        forced = forced & candidates
        each = torch.tensor(amounts, dtype=torch.float64)[:, None]
        found = choose(self.rule(Integer(Var("n")), **said), score.double(), candidates, forced, amounts=each)
        for row, amount in enumerate(amounts):
            if math.isnan(amount):
                wanted = forced[row]
            else:
                amount = max(0, math.floor(amount)) if rule == "top" else amount
                constant = self.rule(Number(amount), **said)
                wanted = choose(constant, score[row].double(), candidates[row], forced[row])
            assert found[row].tolist() == wanted.tolist()

    def rule(self, amount: Term, **said: Any) -> Chosen:
        plain: dict[str, Any] = {"key": "J", "query": "I", "by": Number(0), "counting": None, "among": None, "text": ""}
        return Chosen(amount=amount, **plain, **said)

    def kept(self, rule: Any, amount: float, row: list[tuple[float, bool, bool]], **more: Any) -> set[int]:
        chosen = self.rule(Number(amount), **{"rule": rule, "percent": False, "of": "visible", **more})
        score, candidates, forced = (torch.tensor(column) for column in zip(*row, strict=True))
        found = choose(chosen, score.double(), candidates, candidates & forced)
        return {j for j, kept in enumerate(found.tolist()) if kept}


def test_clauses_unite_and_limit() -> None:
    """Forced cells of a `keep` spend nothing, `drop` takes from all, `among` leaves candidates out."""
    n = 40
    q, k = tensors(n, "noise")
    built = body(
        "causal\ndrop k == 3\naxis I = q // 8\naxis J = k // 8\nlet s[I, J] = sum(a in I, b in J) Q[a] . K[b]\n"
        "keep J in top 1 by s[I, J] among (J != I)\nkeep I - J < 1 or k == 0"
    )
    assert len(built.keeps) == 1 and len(built.choices) == 1
    got = selected(built, q, k, k, SCALE, {})
    for b in range(2):
        for h in range(HEADS):
            for t in range(n):
                row = t // 8
                sums = [
                    float((q[b, h, row * 8 : row * 8 + 8] @ k[b, h // 2, j * 8 : j * 8 + 8].T).sum())
                    for j in range(row)
                ]
                best = [max(range(row), key=lambda j: sums[j])] if row else []
                wanted = [x <= t and x != 3 and (x // 8 in (*best, row) or x == 0) for x in range(n)]
                assert got[b, h, t].tolist() == wanted


def test_ragged_reductions() -> None:
    """Minimum and maximum ignore tokens that do not exist, though zeros stand there; a mean counts those that do."""
    built = body(
        "axis J = k // 8\nlet low[J] = min(t in J) K[t] . K[t]\nlet high[J] = max(t in J) -(K[t] . K[t])\n"
        "let rows[J] = max(t in J) K[t]\nlet zero[J] = min(r < 8) K[J * 8 + r] . K[J * 8 + r]\n"
        "keep J in top 1 by low[J]"
    )
    q, k = tensors(13, "noise")
    squares = (k * k).sum(-1).repeat_interleave(2, 1)
    low = torch.stack([squares[..., :8].amin(-1), squares[..., 8:].amin(-1)], -1)
    wide = k.repeat_interleave(2, 1)
    rows = torch.stack([wide[:, :, :8].amax(2), wide[:, :, 8:].amax(2)], 2)
    high = -torch.stack([squares[..., :8].amin(-1), squares[..., 8:].amin(-1)], -1)
    assert torch.allclose(score_of(built, "low", q, k, k, SCALE, {}), low)
    assert torch.allclose(score_of(built, "high", q, k, k, SCALE, {}), high)
    assert torch.equal(score_of(built, "rows", q, k, k, SCALE, {}), rows)
    assert (score_of(built, "zero", q, k, k, SCALE, {})[..., 1] == 0).all()


def test_a_threshold_between_scores() -> None:
    built = body(
        "axis I = q // 4\nlet s[I, k] = (mean(t in I) Q[t]) . K[k]\nlet top[I] = max(t in I) Q[t] . Q[t]\n"
        "keep s[I, k] >= top[I] - 12"
    )
    assert [(c.key, c.query) for c in built.choices] == [("k", "I")]
    q, k = tensors(10, "noise")
    got = selected(built, q, k, k, SCALE, {})
    for h in range(HEADS):
        for t in range(10):
            cell = q[0, h, t // 4 * 4 : t // 4 * 4 + 4]
            limit = float((cell * cell).sum(-1).max()) - 12
            assert got[0, h, t].tolist() == [float(cell.mean(0) @ key) >= limit for key in k[0, h // 2]]


def test_few_queries_are_the_last_rows() -> None:
    """Where a row's choice is its own affair, fewer queries change nothing."""
    q, k = tensors(100, "noise")
    built = program(text_of("moba"), block=16, blocks=2)
    whole = selected(built, q, k, k, SCALE, {})
    assert torch.equal(selected(built, q[:, :, -13:], k, k, SCALE, {}), whole[:, :, -13:])
