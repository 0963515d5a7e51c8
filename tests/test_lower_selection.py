"""How a dynamic pattern's text becomes a program, and what is said of values that do not fit."""

from typing import Any

import numpy as np
import pytest

from weft.compiler.ir import Binary, Compare, Const, Expr, Table, Var
from weft.compiler.ir import Read as TableRead
from weft.compiler.lower_selection import lower_selection
from weft.compiler.plan import Shape
from weft.compiler.selection import (
    Arithmetic,
    Axis,
    Below,
    ByHead,
    Chosen,
    Count,
    Dot,
    Heads,
    Inside,
    Integer,
    Number,
    Order,
    Program,
    Read,
    Reduce,
    Row,
    Slice,
    Term,
    Threshold,
    Whole,
)
from weft.dsl.diagnostics import CompileError
from weft.dsl.loader import load_text

QUERIES, KEYS, KEY = Var("I"), Var("J"), Var("k")
S_IJ = Read("s", (QUERIES, KEYS))
AXES = "axis I = q // 8\naxis J = k // 8\naxis C = k // 32\ninput s[I, J]: float\ninput c[C]: float\n"


def program(text: str, params: dict[str, Any]) -> Program:
    module = load_text(text)
    return lower_selection(module, module.file.patterns[-1], params, Shape(True, 4, 2))


def body(lines: str) -> Program:
    return program("pattern p {\n" + lines + "\n}", {})


def test_lowering() -> None:
    built = body("axis I = q // 8\naxis J = k // 4\nlet s[I, J] = sum(t in I) Q[t] . K[J + 0]\nkeep s[I, J] > 1 / 4")
    assert [(a.name, a.side, a.size) for a in built.axes] == [
        ("q", "q", 1),
        ("k", "k", 1),
        ("I", "q", 8),
        ("J", "k", 4),
    ]
    (score,) = built.scores
    assert isinstance(score.value, Reduce) and score.value.binders == (Inside("t", "I", 1),)
    (choice,) = built.choices
    assert choice == Threshold(">", S_IJ, Number(0.25), "J", "I", "keep s[I, J] > 1 / 4")
    built = body("axis J = k // 4\nlet s[q, J] = Q[q] . K[J * 4]\nkeep J in top 2 by s[q, J] counting (J == 0)")
    (choice,) = built.choices
    assert isinstance(choice, Chosen) and choice.counting == Compare("==", Var("J"), Const(0))
    value = built.scores[0].value
    assert isinstance(value, Dot) and value.left == Row("Q", Var("q"))


@pytest.mark.parametrize(
    ("lines", "code", "message"),
    [
        ("axis I = q // 0\nkeep k == q", "E004", "division by 0"),
        (
            "axis i = k // 3\naxis J = k // 8\nlet a[i] = K[3 * i] . K[0]\nlet s[J] = sum(i in J) a[i]\nkeep k == q",
            "E005",
            "of 3",
        ),
        ("axis J = k // 8\nlet s[J] = sum(r < 0) K[r] . K[J * 8]\nkeep k == q", "E005", "nothing"),
        ("let s[k] = K[k] . K[k] / (2 - 2)\nkeep k == q", "E004", "division by 0"),
        ("let s[k] = K[k] . K[k]\nkeep k in top 120% by s[k]", "E005", "0% to 100%"),
        ("let s[k] = K[k] . K[k]\nkeep k in top 1.5 by s[k]", "E005", "whole number"),
        ("let s[k] = K[k] . K[k]\nkeep k in cover 1.5 by s[k]", "E005", "from 0 to 1"),
        ("let s[k] = K[k] . K[k]\nkeep k in reach (0 - 1) by s[k]", "E005", "0 or more"),
        ("let s[k] = K[k] . K[k]\nkeep s[k] > 1 and k < q", "E003", "stands alone"),
        ("axis e = 2 - 2\nkeep k == q", "E005", "0 things"),
        ("axis t = last 3 - 4 of k\nkeep k == q", "E005", "-1 things"),
        ("axis d = q // 2 - k // 4\nkeep k == q", "E006", "cells of 2 tokens"),
        ("let s[k] = K[k] . K[k]\norder p = k by s[k] within 1 - 1\nkeep k == q", "E005", "segments of 0"),
        ("let s[k] = K[k][4 .. 2 + 2] . K[k]\nkeep k == q", "E005", "from 4 to 4"),
        (
            "let s[k] = K[k] . K[k]\nkeep k in top 2 by s[k] among (k in top 1 by s[k] among (k % 2))",
            "E003",
            "condition",
        ),
        (
            "axis C = k // 3\ninput s[C]: float\ninput u[k]: float\n"
            "axis e = k // 2\ninput w[e]: float\nkeep e in top 2 by w[e] among (C in top 1 by s[C])",
            "E005",
            "cells of 3 tokens are not made of cells of 2",
        ),
    ],
)
def test_values_that_do_not_fit(lines: str, code: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        body(lines)
    (found,) = caught.value.diagnostics
    assert found.code == code and message in found.message and found.span is not None


def test_float_parameters() -> None:
    text = "pattern p(a: float = 0.5, c: int = 3, b: float) {\nlet s[k] = K[k] . K[k] * a + b\nkeep s[k] > c\n}"
    for value in (2, 2.0, np.float32(2), "4 / 2"):
        (score,) = program(text, {"b": value}).scores
        assert score == program(text, {"b": 2.0}).scores[0]
    for wrong, code in (({}, "E007"), ({"b": float("nan")}, "E003"), ({"b": True}, "E003"), ({"d": 1}, "E007")):
        with pytest.raises(CompileError) as caught:
            program(text, wrong)
        assert caught.value.diagnostics[0].code == code
    with pytest.raises(CompileError):
        program(text, {"b": 1.0, "c": 0.5})


def value(text: str, axes: str = "I, J") -> Term:
    return body(f"{AXES}let x[{axes}] = {text}\nkeep k == q").scores[0].value


def test_axes() -> None:
    built = body(
        "axis t = last 16 of q\naxis D = q // 8 - k // 8\naxis d = q - k\naxis e = 2 * 3\n"
        "let hot[k] = K[k] . K[k]\norder p = k by hot[k] within 64\naxis J = p // 8\n"
        "keep D == d\nkeep J == p[2]"
    )
    assert built.axes[2:] == (
        Axis("t", "q", 1, last=16),
        Axis("D", "d", 8),
        Axis("d", "d", 1),
        Axis("e", "", 1, count=6),
        Axis("p", "k", 1, order="p"),
        Axis("J", "k", 8, order="p"),
    )
    assert built.orders == (Order("p", Read("hot", (KEY,)), 64),)
    assert built.limits.tables == (Table("p", "order", "none"),)

    def place(token: Expr) -> Expr:
        head = Binary("*", Var("h"), Binary("+", Var("n"), Const(1)))
        return Binary("//", TableRead("p", Binary("+", head, token)), Const(8))

    distance, places = (clause.formula for clause in built.keeps)
    cells = Binary("-", Binary("//", Var("q"), Const(8)), Binary("//", KEY, Const(8)))
    assert distance == Compare("==", cells, Binary("-", Var("q"), KEY))
    other = place(Binary("min", Const(2), Var("n")))
    assert isinstance(other, Binary)
    assert places == Compare("==", place(KEY), other.left)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s[I, J] + I * 2 - 3", Arithmetic(
            "-", Arithmetic("+", S_IJ, Integer(Binary("*", QUERIES, Const(2)))), Number(3.0))),
        ("s[I, J] * (30 + I / 10)", Arithmetic(
            "*", S_IJ, Arithmetic("+", Number(30.0), Arithmetic("/", Integer(QUERIES), Number(10.0))))),
        ("s[I, J - n % 3]", Read("s", (QUERIES, Binary("-", KEYS, Binary("%", Var("n"), Const(3)))))),
        ("sum(h, r < 2) s[r, J]", Reduce("sum", (Heads(False), Below("r", 2)), Read("s", (Var("r"), KEYS)))),
        ("max(h in g) s[I, J]", Reduce("max", (Heads(True),), S_IJ)),
        ("sum(C where C < I + h) c[C]", Reduce(
            "sum", (Whole("C"),), Read("c", (Var("C"),)), Compare("<", Var("C"), Binary("+", QUERIES, Var("h"))))),
        ("descend(t in J) K[t][1 .. 3] . K[0]", Reduce(
            "descend", (Inside("t", "J", 1),), Dot(Slice(Row("K", Var("t")), 1, 3), Row("K", Const(0))))),
    ],
)  # fmt: skip
def test_terms(text: str, expected: Term) -> None:
    assert value(text) == expected


def test_rules() -> None:
    built = body(
        f"{AXES}let a[I] = count(J in under 0.5 by s[I, J])\n"
        "keep J in top a[I] / 2 by s[I, J] among (J > 1 and C in top 2 by c[C]) when a[I] > 1 and n < 99\n"
        "keep (I, J) in cover 0.5 by s[I, J] or s[I, J] < 0.5 when a[I] <= 2"
    )
    count = built.scores[0].value
    assert isinstance(count, Count)
    assert (count.chosen.key, count.chosen.query, count.chosen.amount) == ("J", "I", Number(0.5))
    first, second, third = built.choices
    assert isinstance(first, Chosen) and isinstance(second, Chosen) and isinstance(third, Threshold)
    many = Read("a", (QUERIES,))
    assert first.amount == Arithmetic("/", many, Number(2.0)) and not first.joint
    assert first.among == Compare(">", KEYS, Const(1)) and first.inside is not None
    assert (first.inside.key, first.inside.query, first.inside.by) == ("C", None, Read("c", (Var("C"),)))
    assert first.when == (
        Threshold(">", many, Number(1.0), None, "I", "a[I] > 1"),
        Threshold("<", Integer(Var("n")), Number(99.0), None, None, "n < 99"),
    )
    assert (second.joint, second.when) == (True, third.when) and third.when[0].op == "<="


def test_real_tables() -> None:
    text = (
        "pattern p(a: float[layer, head] = [[0.5, 0.5], [1, 0.25]], b: float[head] = [1, 2], c: float[layer] = [7]) {\n"
    )
    text += "let s[k] = K[k] . K[k] * a[layer, h] + b[h] * b[1] + c[0]\nkeep k in cover a[1, h] by s[k]\n}"
    module = load_text(text)
    right: list[dict[str, Any]] = [{}, {"b": [1.0, 2.0]}, {"b": np.array([1, 2])}, {"b": "[4 / 4, 2]", "c": (7.0,)}]
    for given in right:
        built = lower_selection(module, module.file.patterns[-1], given, Shape(True, 2, 1))
        score = built.scores[0].value
        by_head = Arithmetic("*", ByHead((1.0, 2.0)), Number(2.0))
        key = Row("K", KEY)
        dot = Arithmetic("*", Dot(key, key), Number(0.5))
        assert score == Arithmetic("+", Arithmetic("+", dot, by_head), Number(7.0))
        assert isinstance(built.choices[0], Chosen) and built.choices[0].amount == ByHead((1.0, 0.25))
    for wrong in (
        {"b": 1.0},
        {"b": [[1.0]]},
        {"b": []},
        {"b": [float("inf"), 1]},
        {"a": [[1, 2], [1]]},
        {"b": [1, 2, 3]},
    ):
        with pytest.raises(CompileError) as caught:
            lower_selection(module, module.file.patterns[-1], wrong, Shape(True, 2, 1))
        assert caught.value.diagnostics[0].code == "E007"


@pytest.mark.parametrize(
    ("lines", "code", "message"),
    [
        ("axis e = 2097152\ninput u[e]: float\nlet x[J] = c[J // 4] * sum(e) u[e]", "E005", "counts 2097152"),
        ("let x[I] = sum(q) Q[q][0 .. 1] . Q[I * 8] / sum(r < 2000, u < 2000) I", "E005", "4000000"),
        ("axis e = 3\naxis f = 4\ninput u[e]: float\nlet x[f] = u[f]", "E006", "3 values"),
        ("let x[I, C] = s[I, C]", "E006", "cells of 8 tokens along `J`"),
    ],
)
def test_judged(lines: str, code: str, message: str) -> None:
    with pytest.raises(CompileError) as caught:
        body(f"{AXES}{lines}\nkeep k == q")
    (found,) = caught.value.diagnostics
    assert found.code == code and message in found.message
