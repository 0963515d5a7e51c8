"""Which scores are sums of softmaxes of products of rows, and that the evaluator's values are then the fused ones."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from weft.codegen import weigh_call
from weft.codegen.named import Value
from weft.codegen.score_call import Call
from weft.codegen.scores import call_of, evaluate
from weft.codegen.views import Domain
from weft.codegen.weigh_call import fused
from weft.codegen.weigh_fused import Affine
from weft.codegen.weigh_match import Made, Match, Tokens, matched
from weft.compiler import ir
from weft.compiler.lower_selection import lower_selection
from weft.compiler.plan import Shape
from weft.compiler.selection import Dot, Heads, Inside, Program, Read, Reduce, Row, Softmax, Term
from weft.dsl.loader import load_text

AXES = "axis i = q // 4\naxis j = k // 4\naxis I = q // 8\naxis J = k // 16\n"
SCORE = "let s[i, j] = (sum(r < 4) Q[i * 4 + 3 - r] . K[j * 4 + r]) * scale / 4\n"
MEANS = "let a[I] = mean(t in I) Q[t]\nlet b[J] = mean(t in J) K[t]\n"
WEIGHTS = SCORE + "let w[I, J] = sum(i in I, j in J) softmax(s[i, j] over j where j <= i)"


def program(scores: str) -> Program:
    module = load_text("pattern p {\n" + AXES + scores + "\nkeep k == q\n}")
    return lower_selection(module, module.file.patterns[-1], {}, Shape(True, 4, 2))


def last(scores: str, n: int = 100) -> Match | None:
    built = program(scores)
    return matched(built.scores[-1].value, built, n, n)


def test_antidiagonals() -> None:
    found = last(WEIGHTS)
    assert found == Match(
        *(Tokens("Q", 4, -1, 3), Tokens("K", 4, 1, 0), "i", "j", 0.25, 1, 4, Affine(1, 1, 0)),
        *(Inside("i", "I", 4), Inside("j", "J", 4)),
    )


def test_numbers_may_stand_inside_the_sum() -> None:
    inside = "let s[i, j] = sum(r < 4) Q[i * 4 + 3 - r] . K[j * 4 + r] * scale / 4\n"
    assert last(inside + WEIGHTS.removeprefix(SCORE)) == last(WEIGHTS)


def test_means() -> None:
    found = last(MEANS + "let w[I, J] = softmax(-(a[I] . b[J]) / scale over J where J * 16 < (I + 1) * 8)")
    left, right = Made(Read("a", (ir.Var("I"),)), "I"), Made(Read("b", (ir.Var("J"),)), "J")
    assert found == Match(left, right, "I", "J", -1.0, -1, 1, Affine(16, 8, 7))


def test_keys_on_the_left_and_no_condition() -> None:
    found = last("let w[q, j] = softmax(K[j * 4] . Q[q] over j)")
    assert found == Match(Tokens("Q", 1, 0, 0), Tokens("K", 4, 0, 0), "q", "j", 1.0, 0, 1, None)


@pytest.mark.parametrize(
    ("condition", "where"),
    [
        ("j < i", Affine(1, 1, -1)),
        ("i >= j + 2", Affine(1, 1, -2)),
        ("3 * j > i", Affine(-3, -1, -1)),
        ("j <= n // 8 * 2", Affine(1, 0, 24)),
    ],
)
def test_conditions(condition: str, where: Affine) -> None:
    found = last(WEIGHTS.replace("j <= i", condition))
    assert found and found.where == where


@pytest.mark.parametrize(
    "scores",
    [
        SCORE,
        WEIGHTS.replace("sum(i in I", "max(i in I"),
        WEIGHTS.replace("j <= i", "j <= i and j > 2"),
        WEIGHTS.replace("j <= i", "j // 2 <= i"),
        WEIGHTS.replace("j <= i", "j <= i + h"),
        WEIGHTS.replace("j <= i", "i > 3"),
        WEIGHTS.replace("K[j * 4 + r]", "K[j * 4 + r % 2]"),
        WEIGHTS.replace("scale / 4", "scale + 1"),
        WEIGHTS.replace("K[j", "Q[i").replace(" where j <= i", ""),
        MEANS + "let w[I, J] = softmax(abs(a[I] . b[J]) over J)",
    ],
)
def test_what_is_something_else(scores: str) -> None:
    assert last(scores) is None


def call_for(built: Program, n: int, m: int) -> Call:
    generator = torch.Generator().manual_seed(n)
    q, k, v = (torch.randn(2, *size, 16, generator=generator) for size in ((4, m), (2, n), (2, n)))
    return call_of(built, q, k, v, 0.25, {})


def by_kernel(term: Term, call: Call, names: Mapping[str, Domain]) -> Value:
    assert isinstance(term, Reduce | Softmax)
    found = fused(term, call, names, evaluate)
    assert found is not None
    return found


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter runs the kernels on CPU tensors."""

    def always(*_: Any) -> bool:
        return True

    monkeypatch.setattr(weigh_call, "suits", always)


@pytest.mark.usefixtures("anywhere")
@pytest.mark.parametrize(("n", "m"), [(3, 3), (61, 61), (61, 27)])
@pytest.mark.parametrize(
    "scores",
    [
        WEIGHTS,
        SCORE + "let w[i, J] = sum(j in J) softmax(s[i, j] over j where j <= i)",
        MEANS + "let w[I, J] = softmax(a[I] . b[J] * scale over J where J * 16 < (I + 1) * 8)",
        MEANS + "let w[q, J] = softmax(Q[q] . b[J] * scale over J where J * 16 + 15 <= q)",
        "axis t = last 5 of q\nlet w[j] = sum(t) softmax(Q[t] . K[j * 4] over j where j * 4 <= t)",
        "let w[j] = sum(t in last 5 of q) softmax(Q[t] . K[j * 4] over j where j * 4 <= t)",
    ],
)
def test_values_are_the_evaluators(scores: str, n: int, m: int) -> None:
    built = program(scores)
    score, call = built.scores[-1], call_for(built, n, m)
    names = {axis: call.domain(axis) for axis in score.axes}
    first, whole = score.axes[0], names[score.axes[0]]
    for start in {0, whole.count // 2} if len(names) > 1 else {0}:
        names[first] = whole.part(whole.start + start, whole.count - start)
        right = evaluate(score.value, call, names).over(score.axes)
        got = by_kernel(score.value, call, names).over(score.axes)
        torch.testing.assert_close(got, right, rtol=2e-5, atol=2e-6)


@pytest.mark.usefixtures("anywhere")
def test_heads_of_a_group() -> None:
    built = program(WEIGHTS)
    value, call = built.scores[-1].value, call_for(built, 61, 61)
    assert isinstance(value, Reduce)
    names = {axis: call.domain(axis) for axis in ("I", "J")}
    alone = by_kernel(value, call, names).tensor
    together = by_kernel(Reduce("sum", (Heads(True), *value.binders), value.body), call, names).tensor
    torch.testing.assert_close(together, alone.sum(2, keepdim=True))


@pytest.mark.usefixtures("anywhere")
def test_part_of_a_softmax_is_left_to_the_evaluator() -> None:
    built = program(WEIGHTS)
    value, call = built.scores[-1].value, call_for(built, 61, 61)
    assert isinstance(value, Reduce)
    assert fused(value, call, {"I": call.domain("I"), "J": call.domain("J").part(1, 2)}, evaluate) is None


def test_nothing_is_fused_on_a_cpu() -> None:
    built = program(WEIGHTS)
    value, call = built.scores[-1].value, call_for(built, 18, 18)
    assert isinstance(value, Reduce)
    assert fused(value, call, {axis: call.domain(axis) for axis in ("I", "J")}, evaluate) is None


def test_a_row_that_depends_on_the_head_is_no_run_of_tokens() -> None:
    built = program(MEANS)
    rows = Row("Q", ir.Var("q")), Row("K", ir.Binary("+", ir.Var("k"), ir.Var("h")))
    found = matched(Softmax(Dot(*rows), "k", None), built, 9, 9)
    assert found and found.left == Tokens("Q", 1, 0, 0) and found.right == Made(rows[1], "k")
