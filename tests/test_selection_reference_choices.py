"""What choices keep by the dense definition, against loops over pairs; their scores are checked elsewhere."""

import math
from collections.abc import Callable, Collection, Sequence
from fractions import Fraction

import pytest
import torch

from tests.selection_loops import GROUPS, HEADS, SCALE, body, program, row_rule, tensors
from weft.codegen.select_reference import score_of, selected
from weft.compiler.selection import Program

SHARED = HEADS // GROUPS
LENGTHS = (1, 6, 13, 40)
# The keys that are kept of those up to the query: (batch element, head, query).
Keeps = Callable[[int, int, int], Collection[int]]


def keeps(built: Program, q: torch.Tensor, k: torch.Tensor, wanted: Keeps, **givens: torch.Tensor) -> None:
    """The reference keeps what is wanted of each query, causally."""
    got = selected(built, q, k, k, SCALE, givens)
    n, m = k.shape[2], q.shape[2]
    for b in range(q.shape[0]):
        for h in range(HEADS):
            for t in range(n - m, n):
                row = wanted(b, h, t)
                assert got[b, h, t - n + m].tolist() == [j <= t and j in row for j in range(n)], (
                    f"batch {b}, head {h}, query {t}"
                )


def scores(built: Program, name: str, q: torch.Tensor, k: torch.Tensor, **givens: torch.Tensor) -> torch.Tensor:
    return score_of(built, name, q, k, k, SCALE, givens)


def best(count: float, score: list[float], seen: Sequence[int], forced: tuple[int, ...] = ()) -> set[int]:
    """The largest by score of what is seen, ties to the lower; what is forced counts."""
    return row_rule("top", 0, math.floor(count), score, list(seen), [j for j in forced if j in seen])


def cells(n: int, size: int) -> range:
    return range(-(-n // size))


def held(name: str, n: int, *shape: int) -> torch.Tensor:
    """Scores with many ties, for a name."""
    torch.manual_seed(n + len(name))
    return torch.randint(0, 5, (2, HEADS, *shape)) / 4


@pytest.mark.parametrize("n", LENGTHS)
class TestDistances:
    def test_single_distances(self, n: int) -> None:
        built = body("causal\naxis d = q - k\ninput w[d]: float\nkeep d in top 3 by w[d] counting (d == 2)")
        w = held("w", n, n)
        chosen = [[best(3, w[b, h].tolist(), range(n), (2,)) for h in range(HEADS)] for b in range(2)]
        keeps(built, *tensors(n, "noise"), lambda b, h, t: {t - d for d in chosen[b][h]}, w=w)

    def test_bands_by_query_cell(self, n: int) -> None:
        """A band is a candidate where a pair of it is admissible; keys after the query are at no distance."""
        built = body(
            "require q - k < 13 and k != 5\naxis I = q // 6\naxis D = q // 4 - k // 4\ninput w[I, D]: float\n"
            "keep D in top 2 by w[I, D] among (D != 1)"
        )
        w = held("w", n, len(cells(n, 6)), len(cells(n, 4)))
        got = selected(built, *tensors(n, "noise"), tensors(n, "noise")[1], SCALE, {"w": w})

        def admissible(t: int, j: int) -> bool:
            return t - j < 13 and j != 5

        for b in range(2):
            for h in range(HEADS):
                for t in range(n):
                    tile = range(t // 6 * 6, min(n, t // 6 * 6 + 6))
                    seen = {a // 4 - j // 4 for a in tile for j in range(n) if admissible(a, j)} - {1}
                    chosen = best(2, w[b, h, t // 6].tolist(), [d for d in sorted(seen) if d >= 0])
                    assert got[b, h, t].tolist() == [admissible(t, j) and t // 4 - j // 4 in chosen for j in range(n)]

    def test_thresholds(self, n: int) -> None:
        built = body("causal\naxis D = q // 4 - k // 4\ninput w[q, D]: float\nkeep w[q, D] >= 0.5")
        w = held("w", n, n, len(cells(n, 4)))

        def wanted(b: int, h: int, t: int) -> set[int]:
            return {j for j in range(t + 1) if w[b, h, t, t // 4 - j // 4] >= 0.5}

        keeps(built, *tensors(n, "noise"), wanted, w=w)


def order_of(hot: list[float], within: int) -> list[int]:
    """The key at each place: whole segments by falling score, NaN last, the tail as it was."""
    whole = len(hot) // within * within
    out: list[int] = []
    for at in range(0, whole, within):
        out += sorted(range(at, at + within), key=lambda j: (math.isnan(hot[j]), -hot[j] if hot[j] == hot[j] else 0, j))
    return [*out, *range(whole, len(hot))]


@pytest.mark.parametrize("n", LENGTHS)
class TestOrders:
    TEXT = (
        "causal\naxis I = q // 4\ninput hot[k]: float\norder p = k by hot[k] within 6\naxis J = p // 4\n"
        "let mk[J] = mean(r in J) K[r]\nlet w[I, J] = (mean(t in I) Q[t]) . mk[J]\n"
    )

    def given(self, n: int) -> tuple[torch.Tensor, list[list[list[int]]]]:
        """Scores with ties, infinities and NaN, and the key at each place for each head."""
        hot = held("hot", n, n)
        hot[:, 1:, ::3], hot[:, 2, 1::5], hot[:, 3] = float("nan"), float("-inf"), 0
        return hot, [[order_of(hot[b, h].tolist(), 6) for h in range(HEADS)] for b in range(2)]

    def test_rows_by_place(self, n: int) -> None:
        hot, keys = self.given(n)
        built = body(self.TEXT + "keep J in top 1 by w[I, J]")
        q, k = tensors(n, "noise")
        got = scores(built, "mk", q, k, hot=hot)
        for b in range(2):
            for h in range(HEADS):
                for cell in cells(n, 4):
                    rows = k[b, h // SHARED, keys[b][h][cell * 4 : cell * 4 + 4]]
                    assert torch.allclose(got[b, h, cell], rows.mean(0))

    def test_cells_of_places(self, n: int) -> None:
        """A cell is a candidate by where its keys were; what is kept of it too."""
        hot, keys = self.given(n)
        built = body(self.TEXT + "keep J in top 2 by w[I, J] counting (J == p[0] // 4)")
        q, k = tensors(n, "noise")
        w = scores(built, "w", q, k, hot=hot)

        def wanted(b: int, h: int, t: int) -> set[int]:
            place = keys[b][h].index
            seen = {place(j) // 4 for j in range(min(n, t // 4 * 4 + 4))}
            chosen = best(2, w[b, h, t // 4].tolist(), sorted(seen), (place(0) // 4,))
            return {j for j in range(n) if place(j) // 4 in chosen}

        keeps(built, q, k, wanted, hot=hot)
        keeps(built, q[:, :, n // 8 * 4 :], k, wanted, hot=hot)

    def test_places_in_conditions(self, n: int) -> None:
        hot, keys = self.given(n)
        built = body(self.TEXT + "keep J in top 0 by w[I, J]\nkeep J == p[0] // 4\nkeep p % 4 == 1 and p[q + 3] >= 0")

        def wanted(b: int, h: int, t: int) -> set[int]:
            places = [keys[b][h].index(j) for j in range(n)]
            return {j for j, p in enumerate(places) if p // 4 == places[0] // 4 or (p % 4 == 1 and t + 3 < n)}

        keeps(built, *tensors(n, "noise"), wanted, hot=hot)


@pytest.mark.parametrize("n", LENGTHS)
class TestAmounts:
    def test_by_query_cell(self, n: int) -> None:
        """Rounded down; none where below 1, or no number, besides what counts."""
        built = body(
            "causal\naxis I = q // 4\ninput w[I, k]: float\ninput budget[I]: float\n"
            "keep k in top budget[I] by w[I, k] counting (k == 0 and I % 2 == 0)"
        )
        rows = len(cells(n, 4))
        w, budget = held("w", n, rows, n), torch.rand(2, HEADS, rows) * 6 - 1
        budget[:, 1, ::2], budget[:, 2, ::3] = float("nan"), float("inf")

        def wanted(b: int, h: int, t: int) -> set[int]:
            row = t // 4
            count = float(budget[b, h, row].nan_to_num(0).clamp(0, n))
            seen = range(min(n, row * 4 + 4))
            return best(count, w[b, h, row].tolist(), seen, (0,) if row % 2 == 0 else ())

        keeps(built, *tensors(n, "noise"), wanted, w=w, budget=budget)

    @pytest.mark.parametrize("rule", ["cover", "reach", "under"])
    def test_masses_by_head(self, n: int, rule: str) -> None:
        built = program(
            "pattern p(mass: float[head]) { causal\ninput w[q, k]: float\n"
            f"keep k in {rule} mass[h] by w[q, k] among (k != 1) }}",
            mass=[0, 0.25, 0.5, 1],
        )
        w = held("w", n, n, n)

        def wanted(b: int, h: int, t: int) -> set[int]:
            seen = [j for j in range(t + 1) if j != 1]
            return row_rule(rule, Fraction((0, 1, 2, 4)[h], 4), 0, w[b, h, t].tolist(), seen, [])

        keeps(built, *tensors(n, "noise"), wanted, w=w)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("rule", ["top", "cover", "reach", "under"])
def test_one_ranking_for_all_queries(n: int, rule: str) -> None:
    """FlexPrefill's query-aware heads: the whole map's cells compete; equal ones by query, then by key."""
    amount = 0.5 if rule == "cover" else 3
    built = body(
        "causal\naxis I = q // 4\naxis J = k // 3\ninput w[I, J]: float\n"
        f"keep (I, J) in {rule} {amount} by w[I, J] counting (I == J)"
    )
    rows, columns = len(cells(n, 4)), len(cells(n, 3))
    w = held("w", n, rows, columns)
    at = {(i, j): i * columns + j for i in range(rows) for j in range(columns)}
    seen = {cell: at[cell] for cell in at if cell[1] * 3 <= min(n - 1, cell[0] * 4 + 3)}
    forced = [where for (i, j), where in seen.items() if i == j]
    chosen = [
        [row_rule(rule, amount, 3, w[b, h].flatten().tolist(), list(seen.values()), forced) for h in range(HEADS)]
        for b in range(2)
    ]

    def wanted(b: int, h: int, t: int) -> set[int]:
        return {j for j in range(n) if at[t // 4, j // 3] in chosen[b][h]}

    keeps(built, *tensors(n, "noise"), wanted, w=w)


@pytest.mark.parametrize("n", LENGTHS)
def test_cascades(n: int) -> None:
    """HiP and NSA: finer cells are chosen among those in coarser ones, of the same queries or of more."""
    built = body(
        "causal\naxis I = q // 4\naxis S = q // 8\naxis A = k // 6\naxis B = k // 3\n"
        "input one[A]: float\ninput two[S, B]: float\ninput three[I, k]: float\n"
        "keep k in top 4 by three[I, k] counting (k == 0) among (\n"
        "    B in top 3 by two[S, B] counting (B == 0) among (A in top 2 by one[A] among (A != 1))\n)"
    )
    one, two, three = (
        held("one", n, len(cells(n, 6))),
        held("two", n, len(cells(n, 8)), len(cells(n, 3))),
        held("three", n, len(cells(n, 4)), n),
    )

    def wanted(b: int, h: int, t: int) -> set[int]:
        first = best(2, one[b, h].tolist(), [a for a in cells(n, 6) if a != 1])
        past = range(min(n, t // 8 * 8 + 8))
        second = best(
            3, two[b, h, t // 8].tolist(), sorted({x // 3 for x in past if x // 6 in first}), (0,) if 0 in first else ()
        )
        near = range(min(n, t // 4 * 4 + 4))
        third = [x for x in near if x // 3 in second]
        return best(4, three[b, h, t // 4].tolist(), third, (0,))

    keeps(built, *tensors(n, "noise"), wanted, one=one, two=two, three=three)


@pytest.mark.parametrize("n", LENGTHS)
def test_when(n: int) -> None:
    """A choice is empty for queries where a comparison fails, or is of what is no number."""
    built = body(
        "causal\naxis I = q // 4\ninput w[I, k]: float\ninput a[I]: float\ninput c[q]: float\n"
        "keep k in top 2 by w[I, k] when a[I] < 0.6 and a[I] >= 0.2\nkeep w[I, k] > 0.9 when a[I] > 0.5\n"
        "keep c[q] > 0.8"
    )
    rows = len(cells(n, 4))
    w, a, c = held("w", n, rows, n), torch.rand(2, HEADS, rows), torch.rand(2, 1, n)
    a[:, :, 1::3] = float("nan")

    def wanted(b: int, h: int, t: int) -> set[int]:
        row, level = w[b, h, t // 4].tolist(), float(a[b, h, t // 4])
        chosen = best(2, row, range(min(n, t // 4 * 4 + 4))) if 0.2 <= level < 0.6 else set[int]()
        above = {j for j in range(n) if level > 0.5 and row[j] > 0.9}
        return chosen | above | (set(range(n)) if c[b, 0, t] > 0.8 else set())

    keeps(built, *tensors(n, "noise"), wanted, w=w, a=a, c=c)


def test_fewer_queries() -> None:
    """Cells count from token 0 however many queries there are, and only theirs compete."""
    n, m = 21, 6
    q, k = tensors(n, "noise")
    q = q[:, :, -m:]
    built = body(
        "causal\naxis I = q // 4\naxis J = k // 3\naxis D = q // 4 - k // 4\n"
        "input w[I, J]: float\ninput v[I, D]: float\n"
        "keep (I, J) in top 20% of total by w[I, J]\nkeep D in top 1 by v[I, D]\n"
        "keep J in top 1 by w[I, J] when w[I, 0] > 0.5"
    )
    w, v = held("w", n, 6, 7), held("v", n, 6, 6)

    def wanted(b: int, h: int, t: int) -> set[int]:
        i, row = t // 4, w[b, h, t // 4].tolist()
        seen = {i: [j for j in range(7) if j * 3 <= min(20, i * 4 + 3)] for i in range(3, 6)}
        # A share of all cells of the three rows of cells that there are.
        joint = best(5, w[b, h].flatten().tolist(), [i * 7 + j for i, row in seen.items() for j in row])
        band = best(1, v[b, h, i].tolist(), range(i + 1))
        own = best(1, row, seen[i]) if row[0] > 0.5 else set[int]()
        return {j for j in range(n) if i * 7 + j // 3 in joint or i - j // 4 in band or j // 3 in own}

    keeps(built, q, k, wanted, w=w, v=v)
