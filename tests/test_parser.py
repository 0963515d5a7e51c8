"""Parsing: the trees, the positions, and every syntax error of a text in one go."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.dsl import syntax as s
from weft.dsl.diagnostics import CompileError, Diagnostic
from weft.dsl.parser import parse, parse_expression
from weft.dsl.source import Source

ROOT = Path(__file__).resolve().parent.parent

q, k, a, b, c, d = (s.Name(n) for n in "qkabcd")


def expr(text: str) -> s.Expr:
    return parse_expression(Source("e", text))


def file(text: str) -> s.File:
    return parse(Source("t.sparse", text))


def errors(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(CompileError) as caught:
        file(text)
    return caught.value.diagnostics


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a or b and not c", s.Logical("or", (a, s.Logical("and", (b, s.Not(c)))))),
        ("a or (b or c) or d", s.Logical("or", (a, b, c, d))),
        ("a | b ^ c & d", s.Binary("|", a, s.Binary("^", b, s.Binary("&", c, d)))),
        ("a & b << c + d", s.Binary("&", a, s.Binary("<<", b, s.Binary("+", c, d)))),
        ("a - b - c", s.Binary("-", s.Binary("-", a, b), c)),
        ("a + b * -c", s.Binary("+", a, s.Binary("*", b, s.Negate(c)))),
        ("-a // b % c", s.Binary("%", s.Binary("//", s.Negate(a), b), c)),
        ("a <= b < c", s.Comparison((a, b, c), ("<=", "<"))),
        ("a == b + 1", s.Comparison((a, s.Binary("+", b, s.Number(1))), ("==",))),
        ("not a in b", s.Not(s.Membership(a, b))),
        ("a not in 1 .. b | c", s.Membership(a, s.Range(s.Number(1), s.Binary("|", b, c)), True)),
        ("a in {1, -2,}", s.Membership(a, s.SetLiteral((s.Number(1), s.Negate(s.Number(2)))))),
        ("1..2", None),
        ("a in 1..2", s.Membership(a, s.Range(s.Number(1), s.Number(2)))),
        ("|q - k|", s.Absolute(s.Binary("-", q, k))),
        ("||a| - |b||", s.Absolute(s.Binary("-", s.Absolute(a), s.Absolute(b)))),
        ("a | |b| | c", s.Binary("|", s.Binary("|", a, s.Absolute(b)), c)),
        ("|a & b|", s.Absolute(s.Binary("&", a, b))),
        ("|(a | b)|", s.Absolute(s.Binary("|", a, b))),
        ("|a| < |b|", s.Comparison((s.Absolute(a), s.Absolute(b)), ("<",))),
        ("q.y", s.Coordinate("q", "y")),
        ("a.b()", s.Call("a", "b", ())),
        ("a(1, x=b, )", s.Call(None, "a", (s.Argument(None, s.Number(1)), s.Argument("x", b)))),
        ("a[q, k]", s.Index("a", (q, k))),
        ("[[1], [a]]", s.ListLiteral((s.ListLiteral((s.Number(1),)), s.ListLiteral((a,))))),
        ("true", s.Boolean(True)),
        ("0.50", s.Decimal("0.50")),
        ("007", s.Number(7)),
        ("2147483648", s.Number(2**31)),
        ("inside", s.Name("inside")),
        ("a # b", a),
    ],
)
def test_expressions(text: str, tree: s.Expr | None) -> None:
    if tree is None:
        with pytest.raises(CompileError, match="E001"):
            expr(text)
    else:
        assert expr(text) == tree


def test_file() -> None:
    tree = file('''
        import a.b
        import a.c as x
        precompile bf16 head_dim 128
        pattern f(w: tokens = 3, t: table[layer, head]) {
            """One.

            Two.
            """
            keep q < k require a drop b causal
            let c = 1
            input doc[token]: int
            grid (y, x) over (4, w) of 64
        }
        pattern g {}
    ''')
    assert tree.imports == (s.Import(("a", "b"), "b"), s.Import(("a", "c"), "x"))
    assert tree.precompiles == (s.Precompile("bf16", 128),)
    f, g = tree.patterns
    assert f.parameters == (
        s.Parameter("w", s.Type("tokens"), s.Number(3)),
        s.Parameter("t", s.Type("table", ("layer", "head")), None),
    )
    assert f.doc == "One.\n\nTwo."
    assert f.statements == (
        s.Keep(s.Comparison((q, k), ("<",))),
        s.Require(a),
        s.Drop(b),
        s.Causal(),
        s.Let("c", s.Number(1)),
        s.Input("doc", "token", s.Type("int")),
        s.Grid(("y", "x"), (s.Number(4), s.Name("w")), s.Number(64)),
    )
    assert g == s.PatternDef("g", (), "", ())


def test_empty_file() -> None:
    assert file("") == file("# nothing\n") == s.File((), (), ())


def test_spans() -> None:
    text = "pattern f {\n  keep (q - k) * 2 < 3  # c\n}"
    tree = file(text)
    (keep,) = tree.patterns[0].statements
    assert isinstance(keep, s.Keep) and isinstance(keep.condition, s.Comparison)
    product = keep.condition.operands[0]
    assert keep.span is not None and keep.span.where == "t.sparse:2:3"
    assert product.span is not None and text[product.span.start : product.span.end] == "(q - k) * 2"
    assert tree.patterns[0].span is not None and tree.patterns[0].span.end == len(text)
    (comment,) = tree.comments
    assert comment == s.Comment(" c", False) and comment.span is not None
    assert text[comment.span.start : comment.span.end] == "# c"


def test_docstrings() -> None:
    assert file('pattern f { """  a "b" \\ é  """ }').patterns[0].doc == 'a "b" \\ é'
    assert file('pattern f { """\n    a\r\n      b  \n\n""" }').patterns[0].doc == "a\n  b"


def test_line_endings_mean_nothing() -> None:
    text = "pattern f {\n keep a # x\n keep b\n}\n"
    assert file(text.replace("\n", "\r\n")) == file(text)
    assert [c.text for c in file(text.replace("\n", "\r\n")).comments] == [" x"]


def test_all_errors_in_one_run() -> None:
    text = "pattern f {\n keep )\n keep a\n let x 3\n keep (a\n keep b b\n}\npattern g {\n drop\n}\npattern { keep }"
    assert [(e.code, e.span.line if e.span else 0) for e in errors(text)] == [
        ("E001", 2),
        ("E001", 4),
        ("E001", 5),
        ("E001", 6),
        ("E001", 9),
        ("E001", 11),
    ]


def test_twenty_errors_are_enough() -> None:
    assert len(errors("pattern f {" + "keep ] " * 100 + "}")) == 20


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        ("keep a; keep b;", "need no `;`"),
        ("keep a = b", "`==`"),
        ("keep !a", "`not`"),
        ("keep a && b", "`and`"),
        ("keep a || b < 3", "`or`"),
        ("keep a ** b < 3", "power"),
        ("keep a <> b", "`!=`"),
        ("keep a =< b", "`<=`"),
        ("keep a if b else c", "no `if`"),
        ("if a: keep b", "no `if`"),
        ("keep a ? b", "`? :`"),
        ("for x in a", "no loops"),
        ("return a", "no `return`"),
        ("keep ~a < 3", "`not`"),
        ("keep (a < b", "`(` of line 1, column 18 is still open"),
        ("keep k in {1, 2 keep a", "`{` of line 1, column 23 is still open"),
        ("keep 1 .. 2", "to the right of `in`"),
        ("keep 'a'", "docstrings"),
        ('"""open', "a docstring ends"),
    ],
)
def test_hints(body: str, hint: str) -> None:
    found = errors(f"pattern f {{ {body} }}")
    assert hint in found[0].hint, [f.render() for f in found]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("pattern f():\n    keep a\n", "between `{` and `}`"),
        ("def f(x):\n    return x\n", "a pattern is written"),
        ("keep q < k\n", "inside `pattern"),
        ("pattern f {\n keep k in {1, 2\n}\n", "the pattern of line 1 is still open"),
        ("pattern f {\n keep a\npattern g {}\n", "the pattern of line 1 is still open"),
        ("pattern f {}\nimport a", "come first"),
        ("@weft\npattern f {}", "decorators"),
    ],
)
def test_hints_for_files(text: str, hint: str) -> None:
    found = errors(text)
    assert hint in found[0].hint, [f.render() for f in found]


@pytest.mark.parametrize(
    "text", ["pattern keep {}", "pattern f(in: int) {}", "import a as of", "pattern f { let or = 3 }"]
)
def test_keywords_are_no_names(text: str) -> None:
    assert [e.code for e in errors(text)] == ["E008"]


def test_repaired_errors_do_not_cascade() -> None:
    assert len(errors("pattern f { keep a = b; keep !a < 4; }")) == 4


@given(
    st.lists(
        st.sampled_from(
            "keep pattern f { } ( ) | < in not 1 .. , = - ; stack over layers heads : every else coverage at n "
            "axis sum softmax top in q by % last of [ ] let".split()
        )
    )
)
def test_any_words_give_a_tree_or_errors(words: list[str]) -> None:
    text = " ".join(words)
    try:
        file(text)
    except CompileError as error:
        assert 1 <= len(error.diagnostics) <= 20
        places = [d.span.start for d in error.diagnostics if d.span]
        assert places == sorted(places)
        assert all(d.message and "\n" not in d.message for d in error.diagnostics)


@given(st.text(max_size=40))
def test_any_text_gives_a_tree_or_errors(text: str) -> None:
    for parser in (parse, parse_expression):
        try:
            parser(Source("t", text))
        except CompileError as error:
            assert str(error)


def test_parsing_starts_fast() -> None:
    """Importing lark, building the grammar and parsing one file: far below the 300 ms of `weft check`."""
    script = "from weft.dsl.loader import load_file; load_file('patterns/longformer.sparse')"
    times: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 1.0, times
