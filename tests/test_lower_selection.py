"""How a dynamic pattern's text becomes a program, and what is said of values that do not fit."""

from typing import Any

import numpy as np
import pytest

from weft.compiler.ir import Compare, Const, Var
from weft.compiler.lower_selection import lower_selection
from weft.compiler.plan import Shape
from weft.compiler.selection import Chosen, Dot, Inside, Number, Program, Read, Reduce, Row, Threshold
from weft.dsl.diagnostics import CompileError
from weft.dsl.loader import load_text


def program(text: str, params: dict[str, Any]) -> Program:
    module = load_text(text)
    return lower_selection(module, module.file.patterns[-1], params, Shape(True, 4, 2))


def body(lines: str) -> Program:
    return program("pattern p {\n" + lines + "\n}", {})


def test_lowering() -> None:
    built = body("axis I = q // 8\naxis J = k // 4\nlet s[I, J] = sum(t in I) Q[t] . K[J]\nkeep s[I, J] > 1 / 4")
    assert [(a.name, a.side, a.size) for a in built.axes] == [
        ("q", "q", 1),
        ("k", "k", 1),
        ("I", "q", 8),
        ("J", "k", 4),
    ]
    (score,) = built.scores
    assert isinstance(score.value, Reduce) and score.value.binders == (Inside("t", "I", 1),)
    (choice,) = built.choices
    assert choice == Threshold(">", Read("s", ("I", "J")), Number(0.25), "J", "I", "keep s[I, J] > 1 / 4")
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
            "axis i = k // 3\naxis J = k // 8\nlet a[i] = K[i] . K[i]\nlet s[J] = sum(i in J) a[i]\nkeep k == q",
            "E005",
            "of 3",
        ),
        ("axis J = k // 8\nlet s[J] = sum(r < 0) K[r] . K[J]\nkeep k == q", "E005", "nothing"),
        ("let s[k] = K[k] . K[k] / (2 - 2)\nkeep k == q", "E004", "division by 0"),
        ("let s[k] = K[k] . K[k]\nkeep k in top 120% by s[k]", "E005", "0% to 100%"),
        ("let s[k] = K[k] . K[k]\nkeep k in top 1.5 by s[k]", "E005", "whole number"),
        ("let s[k] = K[k] . K[k]\nkeep k in cover 1.5 by s[k]", "E005", "from 0 to 1"),
        ("let s[k] = K[k] . K[k]\nkeep k in reach (0 - 1) by s[k]", "E005", "0 or more"),
        ("let s[k] = K[k] . K[k]\nkeep s[k] > 1 and k < q", "E003", "stands alone"),
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
