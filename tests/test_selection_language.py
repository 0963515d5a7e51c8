"""Axes, scores and selections: how they are written, and what is wrong with them."""

import pytest

from weft.compiler.lower import lower
from weft.compiler.plan import Shape
from weft.dsl import syntax as s
from weft.dsl.checker import check
from weft.dsl.diagnostics import CompileError
from weft.dsl.loader import load_text
from weft.dsl.parser import parse, parse_expression
from weft.dsl.printer import format_expression, format_file
from weft.dsl.source import Source
from weft.dsl.uses import is_dynamic

XATTENTION = '''pattern xattention(block: tokens = 128, stride: tokens = 16, mass: float = 0.9) {
    """XAttention (arXiv:2503.16428): antidiagonal sums rank blocks."""
    causal
    axis i = q // stride
    axis j = k // stride
    axis I = q // block
    axis J = k // block
    let score[i, j] = sum(r < stride) Q[i * stride + stride - 1 - r] . K[j * stride + r] * scale / stride
    let weight[I, J] = sum(i in I, j in J) softmax(score[i, j] over j where j <= i)
    keep J in cover mass by weight[I, J] counting (J == 0 or J == I)
}
'''
AXES = "axis I = q // 64 axis J = k // 64 axis i = q // 16 axis j = k // 16 "
RULES = [
    "let s[I, J] = (mean(t in I) Q[t]) . (mean(t in J) K[t]) keep J in top 100 by s[I, J]",
    "let mq[I] = mean(t in I) Q[t] let mk[J] = mean(t in J) K[t] "
    "let w[I, J] = softmax(mq[I] . mk[J] * scale over J where J <= I) keep J in under 0.95 by w[I, J]",
    "let p[k] = sum(t in last 64 of q) softmax(Q[t] . K[k] * scale over k where k <= t) "
    "keep k in top 1000 by p[k] counting (k < 30)",
    "input gq[I]: vector input gk[J]: vector "
    "let gate[I, J] = softmax(gq[I] . gk[J] * 0.088 over J where J <= I) keep gate[I, J] >= 0.0005",
    "let mk[J] = mean(t in J) K[t] let s[q, J] = Q[q] . mk[J] keep J in top 3 by s[q, J] counting (J == q // 64)",
    "input w[I, J]: float keep J in top 5% of triangle by w[I, J] among (J < I) or J == I or w[I, J] > 1 / 2",
    "let a[I, j] = max(t in I) -|exp(Q[t] . K[j * 16]) - 1| let b[I, J] = max(0, max(j in J) a[I, j]) "
    "keep J in reach 2 * 3 by b[I, J]",
]


def dynamic(body: str) -> str:
    return f"pattern f {{ {AXES}{body} }}"


def tree(text: str) -> s.File:
    return parse(Source("t.sparse", text))


def found(text: str) -> list[str]:
    """Findings without those about unused names: code, message and the text they point at."""
    out: list[str] = []
    for finding in check(load_text(text)):
        where = finding.span.source.text[finding.span.start : finding.span.end] if finding.span else ""
        if not finding.message.startswith(("axis ", "input ")):
            out.append(f"{finding.code} {finding.message} | {where}")
    return out


def test_statements() -> None:
    (pattern,) = tree(XATTENTION).patterns
    causal, i, _, _, _, score, weight, keep = pattern.statements
    stride, one, r = s.Name("stride"), s.Number(1), s.Name("r")
    assert causal == s.Causal() and i == s.Axis("i", s.Binary("//", s.Name("q"), stride))
    forward = s.Binary("+", s.Binary("*", s.Name("i"), stride), stride)
    rows = (
        s.Index("Q", (s.Binary("-", s.Binary("-", forward, one), r),)),
        s.Index("K", (s.Binary("+", s.Binary("*", s.Name("j"), stride), r),)),
    )
    product = s.Divide(s.Binary("*", s.Dot(*rows), s.Name("scale")), stride)
    assert score == s.Score("score", ("i", "j"), s.Reduce("sum", (s.Binder("r", stride, None),), product))
    before = s.Comparison((s.Name("j"), s.Name("i")), ("<=",))
    softmax = s.Softmax(s.Index("score", (s.Name("i"), s.Name("j"))), "j", before)
    binders = (s.Binder("i", None, "I"), s.Binder("j", None, "J"))
    assert weight == s.Score("weight", ("I", "J"), s.Reduce("sum", binders, softmax))
    assert isinstance(keep, s.Keep) and isinstance(keep.condition, s.Membership)
    rule = keep.condition.members
    assert isinstance(rule, s.Chosen) and (rule.rule, rule.amount, rule.percent) == ("cover", s.Name("mass"), False)
    assert rule.by == s.Index("weight", (s.Name("I"), s.Name("J"))) and rule.among is None
    assert rule.counting == parse_expression(Source("e", "J == 0 or J == I"))


def test_inputs_and_tokens() -> None:
    (pattern,) = tree("pattern f { axis T = k input a[T]: float input b[q, T]: vector input c[key]: int }").patterns
    assert pattern.statements == (
        s.Axis("T", s.Name("k")),
        s.Given("a", ("T",), s.Type("float")),
        s.Given("b", ("q", "T"), s.Type("vector")),
        s.Input("c", "key", s.Type("int")),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum(r < 4) a * b + c", "sum(r < 4) a * b + c"),
        ("(sum(r < 4) a) * b", "(sum(r < 4) a) * b"),
        ("b * sum(r < 4) a * c", "b * (sum(r < 4) a * c)"),
        ("-max(i in I, t in last n of q) -a", "-(max(i in I, t in last n of q) -a)"),
        ("a / (b / c) / d", "a / (b / c) / d"),
        ("-Q[i] . (K[j]) * 2", "-Q[i] . K[j] * 2"),
        ("(a) . (b + c)", "(a) . (b + c)"),
        ("softmax((a) over j where (j <= i))", "softmax(a over j where j <= i)"),
        ("J in top (5)% of total by (w[J]) counting ((J == 0)) among (c)", None),
        ("J in top n % 4 by w", "J in top n % 4 by w"),
        ("J in top n % (by) by w", "J in top (n % by) by w"),
        ("k in (top) .. top", "k in (top) .. top"),
        ("sum((i in I), 2)", "sum((i in I), 2)"),
    ],
)
def test_canonical_form(text: str, expected: str | None) -> None:
    expected = expected or "J in top 5% of total by w[J] counting (J == 0) among (c)"
    parsed = parse_expression(Source("e", text))
    assert format_expression(parsed) == expected
    assert parse_expression(Source("e", expected)) == parsed


@pytest.mark.parametrize("text", [XATTENTION, *map(dynamic, RULES)])
def test_rules(text: str) -> None:
    printed = format_file(tree(text))
    assert tree(printed) == tree(text) and format_file(tree(printed)) == printed
    assert printed == text or text != XATTENTION
    assert found(text) == []
    assert is_dynamic(tree(text).patterns[0])


def test_words_stay_names() -> None:
    words = "axis sum mean softmax top cover reach under by counting among where last visible total triangle".split()
    words += "order within when count descend probit".split()
    text = f"pattern f({', '.join(f'{w}: int = 1' for w in words)}) {{ "
    text += " ".join(f"keep {w} < {w} - k and k in {w} .. {w} + 1" for w in words) + " }"
    assert found(text) == []
    assert format_file(tree(text)).count("sum") == 5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("axis I = k", "E008 `I` is defined twice | I"),
        ("axis K0 = k // 0", "E004 cells of 0 tokens | 0"),
        ("axis A = q // n", "E004 a cell's size must be known before the kernel runs, but it depends on `n` | n"),
        ("let a[I, i] = 1", "E006 `I` and `i` both count queries | let a[I, i] = 1"),
        ("let a[X] = 1", "E006 there is no axis `X` | X"),
        ("let a[I, J] = Q[I * 64] . Q[I * 64]", "E006 `a[I, J]` does not depend on `J` | a"),
        ("let a[I] = Q[I * 64] . K[J * 64]", "E006 `J` has no value here | J * 64"),
        (
            "let a[I] = Q[I * 64] . K[I * 64]",
            "E006 `K` has a row for each of the keys, and `I` counts queries | I * 64",
        ),
        (
            "let a[J] = Q[J * 64] . K[J * 64]",
            "E006 `Q` has a row for each of the queries, and `J` counts keys | J * 64",
        ),
        ("let a[I] = b[I]", "E002 unknown name `b` | b[I]"),
        ("input b[I, J]: float let a[I] = b[I]", "E007 `b[I, J]` takes 2 indices, not 1 | b[I]"),
        (
            "input b[I]: float let a[J] = b[J]",
            "E006 `b` has a value for each `I` of the queries, and `J` counts keys | J",
        ),
        ("input b[I]: float let a[i] = b[i]", "E006 `b` has a value for each `I`, and `i` counts other cells | i"),
        (
            "input b[I]: vector let a[I] = descend(t in I) b[I]",
            "E003 a number is wanted here, and this is a vector | b[I]",
        ),
        ("input b[I]: float let a[I] = b[I] . b[I]", "E003 a vector is wanted here, and this is a number | b[I]"),
        ("input b[I]: float let a[I] = b", "E003 `b` has a value for each cell | b"),
        ("let a[I] = J * 2", "E006 `J` has no value here | J * 2"),
        ("let a[I] = sum(I) 1", "E008 `I` has a meaning already | I"),
        ("let a[I] = sum(i in J) 1", "E006 `J` has no value here | i in J"),
        ("let a[I] = sum(j in I) 1", "E006 `j` counts keys, and does not lie inside `I` | j in I"),
        ("axis A = q // 7 let a[I] = sum(A in I) 1", "E005 cells of 64 tokens are not made of cells of 7 | A in I"),
        ("let a[I] = sum(n in I) 1", "E008 `n` has a meaning already | n in I"),
        ("let a[I] = softmax(1 over J)", "E006 `J` has no value here | softmax(1 over J)"),
        ("let a[I] = softmax(1 over I where J > 0)", "E006 `J` has no value here | J > 0"),
        ("let a[I] = 1 < 2", "E003 a number is wanted here, and this is a condition or a set | 1 < 2"),
        ("input b[I, J]: int", "E003 the numbers of an input over cells are `float`, its rows `vector` | int"),
        ("input scale[I]: float", "E008 `scale` is an argument of every call | scale"),
        ("let Q = 1 keep q - k < Q", "E008 `Q` is what a call gives, where a pattern selects by content | Q"),
    ],
)
def test_scores(body: str, expected: str) -> None:
    check_first(dynamic(body), expected)


GATE = "input w[I, J]: float input rows[I, J]: vector input o[I]: float "


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("keep I in top 3 by w[I, J]", "E006 `I` counts queries, and a rule chooses keys | I"),
        ("keep n in top 3 by w[I, J]", "E006 a rule chooses cells of an axis | n"),
        ("keep j in top 3 by w[I, J]", "E006 this score has no value for each `j` | w[I, J]"),
        ("keep J in top 3 by o[I]", "E006 this score has no value for each `J` | o[I]"),
        ("keep J in top 3 by rows[I, J]", "E003 a number is wanted here, and this is a vector | rows[I, J]"),
        ("keep J in top 3 by 2", "E003 cells are ranked by a score | 2"),
        ("keep J in cover 90% by w[I, J]", "E007 only `top` takes a percentage | 90"),
        ("keep J in top w[I, J] by w[I, J]", "E006 `J` has no value here | J"),
        ("keep J in top 3 by w[I, J] counting (k == 0)", "E006 `k` has no value here | k == 0"),
        ("keep J in top 3 by w[I, J] counting (J)", "E003 a condition is wanted here, and this is a number | J"),
        ("keep J not in top 3 by w[I, J]", "E003 what a rule does not choose is no selection | "),
        ("keep J in top 3 by w[I, J] and k < 3", "E003 a selection stands alone in its `keep` | "),
        ("keep w[I, J] == 3", "E003 a threshold is one comparison, with `<`, `<=`, `>` or `>=` | w[I, J] == 3"),
        ("keep w[I, J] > 3 and J < 2", "E003 a selection stands alone in its `keep` | w[I, J] > 3 and J < 2"),
        ("require w[I, J] > 3", "E003 scores select in a `keep` alone | w[I, J] > 3"),
        ("drop J in top 3 by w[I, J]", "E003 scores select in a `keep` alone | J in top 3 by w[I, J]"),
        ("let a = w[I, J]", "E003 this depends on what `Q`, `K` or inputs hold, which is only known "),
        ("keep k / 2 < q", "E003 `/` makes a real number, and an integer is wanted here | k / 2"),
        ("let s[I, J] = w[I, J]", "W104 score `s` is never used | s"),
    ],
)
def test_selections(body: str, expected: str) -> None:
    check_first(dynamic(GATE + body), expected)


def check_first(text: str, expected: str) -> None:
    try:
        first = next(f for f in found(text) if expected.startswith("W") or not f.startswith("W"))
    except CompileError as error:
        d = error.diagnostics[0]
        first = f"{d.code} {d.message} | {d.span.source.text[d.span.start : d.span.end] if d.span else ''}"
    assert first == expected or (expected.endswith(" ") and first.startswith(expected))


def test_float_parameters() -> None:
    assert found("pattern f(a: float = 0.5, b: float = -1.5, c: float = 2) { keep q < a keep q < b keep q < c }") == [
        f"E003 a number is wanted here, and this is a real number | {name}" for name in "abc"
    ]
    check_first("pattern f(a: float = true) {}", "E003 a number is wanted here, and this is a condition | true")


@pytest.mark.parametrize("text", [XATTENTION, dynamic(RULES[0]), dynamic(RULES[2])])
def test_no_fixed_mask(text: str) -> None:
    """What needs a fixed mask says so, once: alone, in another pattern, in a stack."""
    module = load_text(text)
    (pattern,) = module.file.patterns
    with pytest.raises(CompileError) as error:
        lower(module, pattern, {}, Shape(True))
    (finding,) = error.value.diagnostics
    message = f"`{pattern.name}` selects by content: it has no fixed mask"
    assert (finding.code, finding.message) == ("E015", message)
    user = (
        f"{text} pattern user {{ keep {pattern.name}() }} stack all over 2 layers {{ layers else: {pattern.name}() }}"
    )
    assert found(user) == [f"E015 {message} | {pattern.name}()"] * 2
