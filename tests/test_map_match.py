"""Which terms one kernel computes: maps of products of rows, their folds, weights read at shifted places."""

import pytest
import torch

from weft.codegen.map_match import Match, Side, matched
from weft.codegen.score_call import Call
from weft.codegen.scores import call_of
from weft.compiler import ir
from weft.compiler.lower_selection import lower_selection
from weft.compiler.plan import Shape
from weft.compiler.selection import Apply, Dot, Heads, Inside, Integer, Number, Program, Read, Row, Scale, Whole
from weft.compiler.terms import within
from weft.dsl.loader import load_text

AXES = """axis i = q // 4  axis j = k // 4  axis I = q // 8  axis J = k // 8  axis t = last 12 of q  axis e = 3
"""
MEANS = "let mk[J] = mean(u in J) K[u] let mq[I] = mean(u in I) Q[u] "
SCORE = MEANS + "let s[q, J] = Q[q] . mk[J] * scale "
ROWS = "let w[q, k] = softmax(Q[q] . K[k] * scale over k where k <= q) "


def program(scores: str) -> Program:
    module = load_text("pattern p {\n" + AXES + scores + "\nkeep k == q\n}")
    return lower_selection(module, module.file.patterns[-1], {}, Shape(True, 4, 2))


def call_for(built: Program, n: int, m: int) -> Call:
    q, k, v = (torch.randn(1, heads, count, 16) for heads, count in ((4, m), (2, n), (2, n)))
    counts = {axis.name: axis.count or -(-n // axis.size) for axis in built.axes} | {"q": n, "k": n}
    shapes = {x.name: (1, 4, *(counts[axis] for axis in x.axes), *[8] * x.vector) for x in built.givens}
    return call_of(built, q, k, v, 0.25, {name: torch.randn(shape) for name, shape in shapes.items()})


def last(scores: str) -> Match | None:
    built = program(scores)
    score, call = built.scores[-1], call_for(built, 40, 40)
    return matched(score.value, built, {axis: call.domain(axis) for axis in score.axes})


def named(*names: str) -> tuple[ir.Expr, ...]:
    return tuple(ir.Var(name) for name in names)


def test_largest_score_of_a_block() -> None:
    """Rows inside a cell, all columns, and the definition of the score that is read."""
    found = last(SCORE + "let x[I] = max(i2 in I, J where J * 8 <= i2) s[i2, J]")
    assert found is not None
    assert found.op == "max" and found.row == Side("i2", "I", Inside("i2", "I", 1))
    assert found.column == Side("J", "", Whole("J"))
    assert found.dots == (Dot(Row("Q", ir.Var("i2")), Read("mk", named("J"))),)
    assert found.where == ir.Compare("<=", ir.Binary("*", ir.Var("J"), ir.Const(8)), ir.Var("i2"))


def test_what_depends_on_one_side_is_made_beforehand() -> None:
    """The cell that is folded inside is the one that a row lies in."""
    found = last(SCORE + "let a[I] = sum(i in I) 2 let x[I, J] = sum(u in I) exp(s[u, J] - a[I])")
    assert found is not None
    assert found.numbers == (Read("a", (ir.Binary("//", ir.Var("u"), ir.Const(8)),)),)
    assert isinstance(found.body, Apply) and (found.row.outer, found.column.outer) == ("I", "J")


def test_rows_stand_on_the_left() -> None:
    found = last("let x[q, k] = max(K[k] . Q[q], 0)")
    assert found is not None and found.dots == (Dot(Row("Q", ir.Var("q")), Row("K", ir.Var("k"))),)


def test_things_and_heads_are_looped_over() -> None:
    found = last("input f[q, e]: vector input c[k]: vector let x[q, k] = sum(e) abs(f[q, e] . c[k])")
    assert found is not None and found.loops == (Whole("e"),)
    found = last(SCORE + "let x[q, J] = max(h) s[q, J]")
    assert found is not None and found.op == "max" and found.loops == (Heads(False),)


def test_weights_at_shifted_places() -> None:
    """4 b + a + r - 1 for a < 4 and r < 2: the ends once, the others twice."""
    found = last(
        "let p[q, j] = softmax(Q[q] . K[j * 4] * scale over j where j * 4 <= q)"
        "axis b = k // 16 let x[q, b] = sum(h in g) sum(a < 4, r < 2) p[q, b * 4 + a + r - 1]"
    )
    assert found is not None and found.weights and found.loops == (Heads(True),)
    assert (found.inner, found.factor) == ("j", 4) and found.column == Side("b", "b")
    assert found.shifts == ((-1, 1), (0, 2), (1, 2), (2, 2), (3, 1))
    assert found.statistics.op == "logsumexp" and found.statistics.column == Side("j", "", Whole("j"))


def test_a_softmax_under_any_condition() -> None:
    found = last("let x[q, k] = softmax(Q[q] . K[k] over k where k <= q and k % 3 != 1)")
    assert found is not None and found.weights and found.shifts == ((0, 1),)
    assert isinstance(found.where, ir.And)


def test_counting_where_a_condition_holds() -> None:
    found = last("let x[q] = sum(k where k <= q) 1")
    assert found is not None and found.body == Number(1.0) and not found.dots


def test_numbers_and_integers_are_written_into_the_kernel() -> None:
    found = last("let x[q, k] = (Q[q] . K[k] * scale - 2) / (q + 1)")
    assert found is not None and not found.numbers
    assert {type(part) for part in within(found.body)} >= {Scale, Number, Integer}


@pytest.mark.parametrize(
    "scores",
    [
        MEANS,
        MEANS + "let x[J] = mk[J] . mk[J]",
        "let x[q, k] = min(q, k)",
        "let x[q, k] = probit(Q[q] . K[k])",
        "let x[q, k] = (Q[q] + K[k]) . K[k]",
        "let x[I] = sum(q, k where q // 8 == I) Q[q] . K[k]",
        "let s[q, k] = Q[q] . K[k] let x[q] = max(k) s[q, k] * s[q, k - 1]",
        MEANS + "let x[I, J] = max(u in J) softmax(K[u] . mq[I] over u)",
        ROWS + "let x[q] = max(k) w[q, k] * w[q, k]",
        ROWS + "let x[q, J] = max(u in J) w[q, u]",
    ],
    ids=(
        "rows one_side no_product function both_sides_in_a_row both_sides_whole a_cell_that_may_not_exist no_axis"
        " weights_inside largest_weight"
    ).split(),
)
def test_what_is_something_else(scores: str) -> None:
    assert last(scores) is None
