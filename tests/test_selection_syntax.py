"""Axes of other things than tokens, orders, reductions and rules in all their forms: text, and what is wrong."""

import pytest

from tests.test_selection_language import check_first, found, tree
from weft.dsl import syntax as s
from weft.dsl.parser import parse_expression
from weft.dsl.printer import format_expression, format_file
from weft.dsl.source import Source
from weft.dsl.uses import is_dynamic

PUBLISHED = [
    """pattern minference(vertical: int = 1000, slash: int = 6096, probe: tokens = 64) {
    causal
    axis t = last probe of q
    axis d = q - k
    let p[t, k] = softmax(Q[t] . K[k] * scale over k where k <= t)
    let vertical_mass[k] = sum(t) p[t, k]
    let slash_mass[d] = sum(t) p[t, t - d]
    keep k in top vertical by vertical_mass[k] counting (k < 30)
    keep d in top slash by slash_mass[d] counting (d < 100)
}
""",
    """pattern pbs(block: tokens = 128, segment: tokens = 256, mass: float = 0.9) {
    causal
    axis t = last block of q
    axis I = q // block
    let hot[k] = mean(t) softmax(Q[t] . K[k] * scale over k where k < n // segment * segment)
    order p = k by hot[k] within segment
    axis J = p // block
    let mq[I] = sum(i in I) Q[i] / block
    let mk[J] = sum(p in J) K[p] / block
    let weight[I, J] = softmax(mq[I] . mk[J] * scale over J where J * block // segment < I * block // segment)
    keep J in reach mass by weight[I, J]
    keep J == p[0] // block
    keep q // segment == k // segment
}
""",
    """pattern nsa {
    causal
    axis c = k // 16
    axis b = k // 64
    let kc[c] = mean(r < 32) K[c * 16 + r]
    let p[q, c] = softmax(Q[q] . kc[c] * scale over c where c * 16 + 31 <= q)
    let imp[q, b] = sum(h in g) sum(m2 < 2, r < 4) p[q, 4 * b + m2 + r - 1]
    keep b in top 16 by imp[q, b] counting (b == 0 or b >= q // 64 - 1)
}
""",
    """pattern indexer {
    causal
    axis e = 64
    input query[q, e]: vector
    input key[k]: vector
    input gate[q, e]: float
    let index[q, k] = sum(e) gate[q, e] * max(query[q, e] . key[k], 0)
    keep k in top 2048 by index[q, k]
}
""",
    """pattern quest {
    axis J = k // 16
    let low[J] = min(t in J) K[t]
    let high[J] = max(t in J) K[t]
    let bound[q, J] = max(Q[q], 0) . high[J] + min(Q[q], 0) . low[J]
    keep J in top 64 by bound[q, J]
}
""",
    """pattern rest(share: float[layer, head] = [[0.5, 2]], mass: float[head] = [0.5, 0.9]) {
    axis I = q // 64
    axis J = k // 64
    axis C = k // 512
    axis D = q // 64 - k // 64
    input c[I, C]: float
    let w[I, J] = sum(i in I where i % 4 == 0) abs(Q[i][0 .. 16]) . (mean(t in J) K[t][0 .. 16])
    let near[I, D] = w[I, I - D] * (sum(J where J < I) w[I, J]) + probit(I / 1000) - n // 3
    let deep[I, J] = descend(t in J) sum(h) Q[I * 64] . K[t]
    let many[I] = count(J in under 0.5 by w[I, J] counting (J == 0)) + h * 2 - g
    keep J in top many[I] by w[I, J] among (C in top 8 by c[I, C]) when many[I] < 3 and c[I, 2] >= w[I, 0]
    keep (I, J) in cover mass[h] by w[I, J] or D in top 3 by near[I, D]
    keep J in top share[layer, h] * 64 by deep[I, J] among (J < I and C in top 3 by c[I, C] among (C > 2))
}
""",
]


@pytest.mark.parametrize("text", PUBLISHED)
def test_published_rules(text: str) -> None:
    printed = format_file(tree(text))
    assert printed == text and tree(printed) == tree(text)
    assert found(text) == [] and is_dynamic(tree(text).patterns[0])


def test_statements() -> None:
    (pattern,) = tree(
        "pattern f { axis t = last 3 * 2 of k axis e = 8 axis d = q // 2 - k // 2 "
        "order p = k by a[k] within 4 keep (I, J) in top 1 by w when a < b and c > 2 }"
    ).patterns
    by, half = s.Index("a", (s.Name("k"),)), [s.Binary("//", s.Name(side), s.Number(2)) for side in "qk"]
    when = s.Logical("and", tuple(parse_expression(Source("e", text)) for text in ("a < b", "c > 2")))
    rule = s.Chosen("top", s.Number(1), False, None, s.Name("w"), None, None, "I")
    assert pattern.statements == (
        s.Axis("t", s.Binary("*", s.Number(3), s.Number(2)), "k"),
        s.Axis("e", s.Number(8)),
        s.Axis("d", s.Binary("-", *half)),
        s.Order("p", by, s.Number(4)),
        s.Keep(s.Membership(s.Name("J"), rule), when),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sum(J) w[J] * 2", "sum(J) w[J] * 2"),
        ("sum(J) (-w[J])", "sum(J) (-w[J])"),
        ("sum(J) - w[J]", "sum(J) - w[J]"),
        ("max(I, J) (2)", "max(I, J) 2"),
        ("max(I, J) * (2)", "max(I, J) * 2"),
        ("sum(h in g, J where J < (3)) mean(t) (top)", "sum(h in g, J where J < 3) mean(t) (top)"),
        ("sum(r < 2, where) where", "sum(r < 2, where) where"),
        (
            "sum(t in last where C) a + mean(t in last (where) of q) b",
            "sum(t in last where C) a + mean(t in last (where) of q) b",
        ),
        ("descend(t in C) (a + b)", "descend(t in C) (a + b)"),
        ("K[t][0 .. 2 * 8] . Q[t]", "K[t][0 .. 2 * 8] . Q[t]"),
        ("(a + b)[(0) .. 2][1 .. 2]", "(a + b)[0 .. 2][1 .. 2]"),
        ("max(Q[q], 0) . (exp(K[k]))", "max(Q[q], 0) . exp(K[k])"),
        ("count(J in top 2 by w[J]) + count(J)", "count(J in top 2 by w[J]) + count(J)"),
        ("(I, J) in reach (0.5) by w", "(I, J) in reach 0.5 by w"),
        ("J in top 1 by w among (C in top 2 by c and J < 2)", "J in top 1 by w among (C in top 2 by c and J < 2)"),
    ],
)
def test_canonical_form(text: str, expected: str) -> None:
    parsed = parse_expression(Source("e", text))
    assert format_expression(parsed) == expected
    assert parse_expression(Source("e", expected)) == parsed


def test_what_a_reduction_is() -> None:
    """A name after the bracket makes one of `sum(J)`; an operator makes it a call, as it always was."""
    assert parse_expression(Source("e", "max(a, b) w")) == s.Reduce(
        "max", (s.Binder("a", None, None), s.Binder("b", None, None)), s.Name("w")
    )
    assert isinstance(parse_expression(Source("e", "max(a, b) + w")), s.Binary)
    assert found("pattern f { let a = max(q, k) keep a - min(q, k) < 3 keep max(q, k) < 9 causal }") == []


AXES = (
    "axis I = q // 64 axis J = k // 64 axis C = k // 256 axis t = last 8 of q axis d = q - k axis e = 4 "
    "input w[I, J]: float input c[C]: float input u[e]: float input hot[k]: float input o[I]: float "
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("axis A = q * 2", "E006 this is nothing that an axis counts | q * 2"),
        ("axis A = k - q", "E006 this is nothing that an axis counts | k - q"),
        ("axis A = q // 2 - k // 4", "E006 cells of 2 tokens are no distance from cells of 4 | q // 2 - k // 4"),
        ("axis A = last 0 of q", "E005 an axis of 0 | 0"),
        ("axis A = n", "E004 how much an axis counts must be known before the kernel runs, but it depends on `n` | n"),
        ("keep t < 3", "E006 `t` stands in scores alone | t"),
        ("require e == 2", "E006 `e` stands in scores alone | e"),
        ("let a = t", "E006 `t` stands in scores alone | t"),
        ("input x[t]: float", "E006 `t` has the last tokens only | input x[t]: float"),
        ("let a[d, J] = 1", "E006 `d` and `J` both count distances and keys | let a[d, J] = 1"),
        ("let a[e] = u[I]", "E006 `I` has no value here | I"),
        ("let a[I] = u[I]", "E006 `u` has a value for each `e` of the things that are no tokens, and `I` counts "),
        ("let a[d] = hot[d]", "E006 `hot` has a value for each `k` of the keys, and `d` counts distances | d"),
        ("let a[I] = w[I, 2, 3]", "E007 `w[I, J]` takes 2 indices, not 3 | w[I, 2, 3]"),
        ("let a[I] = w[I, I < 2]", "E003 a number is wanted here, and this is a condition | I < 2"),
        ("let a[I] = sum(J) w[I, J] sum(x) 1", "E001 expected an operator or the next statement, found `sum` | sum"),
        ("let a[I] = sum(x) 1", "E002 unknown name `x` | x"),
        ("let a[I] = sum(I) 1", "E008 `I` has a meaning already | I"),
        ("let a[I] = sum(n) I", "E008 `n` has a meaning already | n"),
        ("let a[I] = sum(x in e) I", "E006 `e` has no value here | x in e"),
        ("let a[e] = sum(x in e) u[e]", "E006 `e` counts things that are no tokens, and nothing lies inside it | "),
        ("let a[I] = sum(r < 2, x in r) I", "E006 `r` is a number, and nothing lies inside it | x in r"),
        ("let a[I] = sum(t in I) I", "E006 `t` has the last tokens only, and does not lie inside `I` | t in I"),
        ("let a[I] = sum(i in I where J < 2) I", "E006 `J` has no value here | J < 2"),
        ("let a[I] = descend(r < 2) I", "E007 `descend` runs through the tokens of one cell, and has no `where` | "),
        ("let a[I] = sum(2)", "E007 `sum` says what it runs over | sum(2)"),
        ("let a[I] = probit(I, 2)", "E007 `probit` takes 1 argument, not 2 | probit(I, 2)"),
        ("let a[I] = o[I][0 .. 2] . Q[I]", "E003 a vector is wanted here, and this is a number | o[I]"),
        ("let a[I] = Q[I][2 .. 2] . Q[I]", "E005 a part from 2 to 2 has no numbers | Q[I][2 .. 2]"),
        ("let a[I] = Q[I][0 .. n] . Q[I]", "E004 a bound of a part must be known before the kernel runs, but it "),
        ("let a[I] = Q[I - J * 0] . Q[0]", "E006 `J` has no value here | I - J * 0"),
    ],
)
def test_scores(body: str, expected: str) -> None:
    check_first(f"pattern f {{ {AXES}{body} }}", expected)


ORDER = "order p = k by hot[k] within 128 axis P = p // 64 let x[P] = sum(p in P) hot[p % 8] "


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("order p = k by 2 within 8", "E003 keys are ordered by a score of each key | 2"),
        ("order p = k by c[k] within 8", "E006 `c` has no value for each `k` | c[k]"),
        ("order p = k by hot[k] within n", "E004 a segment's size must be known before the kernel runs, but it "),
        (
            f"{ORDER} order r = k by hot[k] within 8",
            "E006 a pattern has one order of keys, and this is a second one | r",
        ),
        (f"{ORDER} let a[P] = hot[P]", "E006 `hot` has a value for each `k` of the keys, and `P` counts places | P"),
        (f"{ORDER} let a[P] = K[P * 64] . K[0]", "E006 a row is read at one place, and `P` is a part of this | P * 64"),
        (f"{ORDER} let a[P] = K[P] . K[0]", "E006 `P` counts cells of places, and a row is read at one place | P"),
        (f"{ORDER} let a[P] = sum(p in P) Q[p] . K[p]", "E006 `Q` has a row for each of the queries, and `p` counts "),
        (
            f"{ORDER} let a[P] = x[P] + (sum(J) o[J])",
            "E006 `o` has a value for each `I` of the queries, and `J` counts ",
        ),
        (f"{ORDER} let a[P] = x[P] + (sum(k) hot[k])", "E006 `a` counts keys and places of `p` at once | a"),
        (f"{ORDER} let a[J] = sum(p in J) K[p] . K[p]", "E006 `p` counts places, and does not lie inside `J` | p in J"),
        (f"{ORDER} keep p[0, 1] < 2", "E007 `p[token]` takes 1 index, not 2 | p[0, 1]"),
        (f"{ORDER} keep P in top 2 by x[P] among (C in top 2 by c[C])", "E006 `P` counts places, and `C` keys | "),
    ],
)
def test_orders(body: str, expected: str) -> None:
    check_first(f"pattern f {{ {AXES}{body} }}", expected)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("keep e in top 2 by u[e]", "E006 `e` stands in scores alone | e"),
        ("keep J in top w[I, J] by w[I, J]", "E006 `J` has no value here | J"),
        ("keep J in top o[q // 64] by w[I, J]", "E006 `q` has no value here | q // 64"),
        ("keep J in top 2 by w[I, J] counting (t < 2)", "E006 `t` has no value here | t < 2"),
        ("keep (C, J) in top 2 by w[I, J]", "E006 `C` counts keys | top 2 by w[I, J]"),
        ("keep (I, J) in top o[I] by w[I, J]", "E006 `I` has no value here | I"),
        (
            "keep J in top 2 by w[I, J] among (d in top 3 by w[0, d])",
            "E006 `J` counts keys, and `d` distances | ",
        ),
        (
            "keep C in top 2 by c[C] among (J in top 3 by w[0, J])",
            "E005 cells of 64 tokens are not made of cells of 256 | ",
        ),
        (
            "keep k in top 2 by hot[k] among (J in top 3 by w[I, J])",
            "E006 what this chooses among differs by `I`, and this ",
        ),
        (
            "keep k in top 2 by hot[k] among (C in top 2 by c[C] and k in top 3 by hot[k])",
            "E003 `among` has one rule, which chooses | ",
        ),
        ("keep J in top 2 by w[I, J] when w[I, J] > 2", "E006 `J` has no value here | J"),
        (
            "keep J in top 2 by w[I, J] when o[I] == 2",
            "E003 `when` compares scores, with `<`, `<=`, `>` or `>=` | o[I] == 2",
        ),
        (
            "keep J in top 2 by w[I, J] when o[I] < 2 or n > 3",
            "E003 `when` compares scores, with `<`, `<=`, `>` or `>=` | ",
        ),
        ("keep J == I when o[I] < 2", "E003 `when` stands after a rule or a threshold | o[I] < 2"),
        ("keep w[I, J] > 2 when w[q // 64, 2] < 3", "E006 `q` has no value here | q // 64"),
        ("let a[I, J] = count(J in top 2 by w[I, J]) + w[I, J]", "E008 `J` has a meaning already | J"),
        ("let a[J] = count(C in top 2 by w[I, C]) + hot[J]", "E006 `I` has no value here | I"),
        ("let a[I] = count(I in top 2 by w[I, J])", "E006 `I` counts queries, and a rule chooses keys | I"),
        ("keep w[I, J] > hot[d]", "E006 `J` and `d` both count keys, places or distances | w[I, J] > hot[d]"),
        ("keep (sum(i in I) w[I, J]) > 2", ""),
    ],
)
def test_rules(body: str, expected: str) -> None:
    text = f"pattern f {{ {AXES}{body} }}"
    if expected:
        check_first(text, expected)
    else:
        assert found(text) == []


@pytest.mark.parametrize(
    ("parameter", "body", "expected"),
    [
        ("a: float[q]", "", "E006 there is no float[q] | float[q]"),
        ("a: float[head] = [[1]]", "", "E007 `a` is a float[head], and this is no row of it | [[1]]"),
        ("a: float[head] = 2", "", "E007 `a` is a float[head], and this is a number | 2"),
        ("a: float[head] = [1, n < 2]", "", "E003 a number is wanted here, and this is a condition | n < 2"),
        ("a: float[head]", "keep a[h] < q", "E003 `a` is a table of real numbers and cannot be indexed | a[h]"),
        ("a: float[head]", "let x[k] = a + K[k] . K[k]", "E003 `a` has a value for each head or layer | a"),
        (
            "a: float[layer, head]",
            "let x[k] = a[h] + K[k] . K[k]",
            "E007 `a[layer, head]` takes 2 indices, not 1 | a[h]",
        ),
        (
            "a: float[head]",
            "let x[k] = a[k]",
            "E004 where `a` is read, unless it is `h`, must be known before the kernel ",
        ),
    ],
)
def test_real_tables(parameter: str, body: str, expected: str) -> None:
    check_first(f"pattern f({parameter}) {{ {body} }}", expected)
