"""Printing: parsing gives the tree back, printing twice changes nothing, comments survive."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import any_files, expressions, files
from weft.dsl import syntax as s
from weft.dsl.automaton import terminals
from weft.dsl.parser import parse, parse_expression
from weft.dsl.printer import format_expression, format_file
from weft.dsl.scanner import scan
from weft.dsl.source import Source

PATTERNS = sorted((Path(__file__).resolve().parent.parent / "patterns").glob("*.sparse"))


def reparse(text: str) -> s.File:
    return parse(Source("printed.sparse", text))


@given(expressions())
def test_expressions_round_trip(expr: s.Expr) -> None:
    text = format_expression(expr)
    assert text.isascii() and "\n" not in text
    assert parse_expression(Source("e", text)) == expr


@given(any_files() | files())
def test_files_round_trip(file: s.File) -> None:
    text = format_file(file)
    assert reparse(text) == file
    assert format_file(reparse(text)) == text


@given(files(), st.data())
def test_comments_survive_anywhere(file: s.File, data: st.DataObject) -> None:
    """Comments after any word and blank lines anywhere: nothing is lost, nothing moves the second time."""
    plain = format_file(file)
    words = scan(Source("plain", plain), terminals()).words
    text, last = "", 0
    for number in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(last, len(plain)))
        place = next((w.span.end for w in words if w.span.start <= place < w.span.end), place)
        if any(w.span.start < place < w.span.end for w in words):
            continue
        lead = data.draw(st.sampled_from(("", " ", "\n", "\n\n")))
        text += plain[last:place] + f"{lead}# c{number}\n" + data.draw(st.sampled_from(("", "\n")))
        last = place
    text += plain[last:]
    commented = reparse(text)
    assert commented == file
    printed = format_file(commented)
    assert reparse(printed) == file
    assert sorted(c.text for c in reparse(printed).comments) == sorted(c.text for c in commented.comments)
    assert format_file(reparse(printed)) == printed


@pytest.mark.parametrize("path", PATTERNS, ids=lambda p: p.stem)
def test_shipped_patterns_round_trip(path: Path) -> None:
    file = parse(Source(path.name, path.read_text("utf-8")))
    text = format_file(file)
    assert reparse(text) == file
    assert format_file(reparse(text)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("((q)) - (k - 1)", "q - (k - 1)"),
        ("(q - k) - 1", "q - k - 1"),
        ("(a and b) or not (c or d)", "a and b or not (c or d)"),
        ("(a or b) or c", "a or b or c"),
        ("not (q < k)", "not q < k"),
        ("|(a | b)|", "|(a | b)|"),
        ("||a| - b|", "||a| - b|"),
        ("(a < b) == c", "(a < b) == c"),
        ("-(-a) * -(a + b)", "--a * -(a + b)"),
        ("k in (1)..(n//2)", "k in 1 .. n // 2"),
        ("f(x=(1), y = {1,2,})", "f(x=1, y={1, 2})"),
        ("(a << b) + (c & d) ^ e", "(a << b) + (c & d) ^ e"),
        ("a % b % c // (d * e)", "a % b % c // (d * e)"),
    ],
)
def test_fewest_parentheses(text: str, expected: str) -> None:
    assert format_expression(parse_expression(Source("e", text))) == expected


def test_layout() -> None:
    text = '''# top

import lib.window as w   # why
import lib.window
precompile  bf16  head_dim  128
# about f
pattern f( a:int=3 , # first
  # own
  b:bool ){"""One
       two."""
  keep q<k   # short

  # above
  keep ( q - k   # inside
    < a)and b # after
  causal   }   # end
pattern g(){keep q==k keep k==0}
# bottom
'''
    expected = '''# top

import lib.window as w  # why
import lib.window

precompile bf16 head_dim 128

# about f
pattern f(
    a: int = 3,  # first
    # own
    b: bool,
) {
    """One
    two.
    """
    keep q < k  # short

    # above
    # inside
    keep q - k < a and b  # after
    causal
}  # end

pattern g {
    keep q == k
    keep k == 0
}
# bottom
'''
    assert format_file(reparse(text)) == expected


def test_trailing_comments_line_up() -> None:
    text = "pattern f { keep q < k # a\n keep q - k < 30 # b\n\n keep k == 0 # c\n}"
    assert format_file(reparse(text)).splitlines()[1:5] == [
        "    keep q < k       # a",
        "    keep q - k < 30  # b",
        "",
        "    keep k == 0  # c",
    ]


def test_long_parameter_lists_wrap() -> None:
    names = [f"parameter_number_{i}" for i in range(5)]
    text = format_file(reparse(f"pattern f({', '.join(f'{n}: int' for n in names)}) {{ }}"))
    assert text.splitlines() == ["pattern f(", *(f"    {n}: int," for n in names), ") {", "}"]
