"""Stacks and claims: how they are written, what is wrong with them, and which masks their layers use."""

import re
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft
from tests.stack_trees import pile
from weft.cli import main
from weft.compiler.stack import LoweredClaim, LoweredStack, claims_of, lower_stack, repeat
from weft.dsl import syntax as s
from weft.dsl.checker import check
from weft.dsl.diagnostics import CompileError
from weft.dsl.loader import load_text
from weft.dsl.parser import parse
from weft.dsl.printer import format_file
from weft.dsl.source import Source

MASFORMER = '''import sliding_window
import causal_attention

stack masformer(depth: int = 24, dense: int = 4, window: tokens = 1024) over depth layers {
    """MASFormer (arXiv:2310.12442): full attention in the first layers, windows in the others."""
    layers 0 .. dense: causal_attention()
    layers else: sliding_window(window)
    coverage {
        complete within 12 layers at n = 131072
        density < 10% at n = 131072
    }
}
'''
WINDOW = "pattern window(size: tokens, gap: int = 1) { causal keep q - k < size * gap } pattern full { causal } "


def tree(text: str) -> s.File:
    return parse(Source("t.sparse", text))


def lowered(text: str, heads: int = 4, kv_heads: int = 0, **given: Any) -> LoweredStack:
    """The last stack of a text that has no errors."""
    module = load_text(text)
    assert [d.render() for d in check(module) if d.severity == "error"] == []
    return lower_stack(module, module.file.stacks[-1], given, heads, kv_heads or heads)


def in_stack(body: str, header: str = "tower over 6 layers") -> str:
    return f"{WINDOW} stack {header} {{ {body} }}"


def texts(stack: LoweredStack) -> list[str]:
    """What each layer uses, all heads together or with the heads named."""
    every = tuple(range(max(h for layer in stack.layers for a in layer for h in a.heads) + 1))
    shown = [[a.text if a.heads == every else f"{list(a.heads)} {a.text}" for a in layer] for layer in stack.layers]
    return ["; ".join(layer) for layer in shown]


def problem(text: str, heads: int = 4, **given: Any) -> str:
    """The one error of a stack that the checker has nothing against."""
    with pytest.raises(CompileError) as error:
        lowered(text, heads, **given)
    (found,) = error.value.diagnostics
    where = found.span.source.text[found.span.start : found.span.end] if found.span else ""
    return f"{found.code} {found.message} | {where.removeprefix('layers ').removeprefix('heads ')}"


def test_syntax() -> None:
    (stack,) = tree(MASFORMER).stacks
    call = s.Call(None, "causal_attention", ()), s.Call(None, "sliding_window", (s.Argument(None, s.Name("window")),))
    assert stack.depth == s.Name("depth") and stack.doc.startswith("MASFormer")
    assert stack.lines == (
        s.LayerLine(s.Range(s.Number(0), s.Name("dense")), (s.HeadLine(None, call[0]),)),
        s.LayerLine(s.Else(), (s.HeadLine(None, call[1]),)),
    )
    (coverage,) = stack.coverage
    assert coverage.claims == (
        s.Claim("complete", None, False, s.Number(12), s.Number(131072)),
        s.Claim("density", s.Number(10), True, None, s.Number(131072)),
    )


def test_selections_and_claims() -> None:
    body = """
        layers every 2 { heads {0, h0}: f() heads 1 .. 2 every 3: m.f(x=1) heads else: f() }
        coverage { density <= 0.5% reaches (2 * p)% within layers layers }
    """
    (stack,) = tree(f"stack t over 3 layers {{ {body} }}").stacks
    (line,) = stack.lines
    one, two, three = map(s.Number, (1, 2, 3))
    named = s.Call("m", "f", (s.Argument("x", one),))
    plain = s.Call(None, "f", ())
    assert line.layers == s.Every(None, two)
    assert line.heads == (
        s.HeadLine(s.SetLiteral((s.Number(0), s.Name("h0"))), plain),
        s.HeadLine(s.Every(s.Range(one, two), three), named),
        s.HeadLine(s.Else(), plain),
    )
    assert stack.coverage[0].claims == (
        s.Claim("density", s.Decimal("0.5"), False, None, None),
        s.Claim("reaches", s.Binary("*", two, s.Name("p")), False, s.Name("layers"), None),
    )


def test_patterns_and_stacks_mix() -> None:
    mixed = "pattern c { causal coverage { complete } keep q == k }"
    file = tree(f"pattern a {{}} stack b over 1 layers {{}} {mixed} stack d over 2 layers {{}}")
    assert [p.name for p in file.patterns] == ["a", "c"] and [t.name for t in file.stacks] == ["b", "d"]
    assert len(file.patterns[1].statements) == 2 and len(file.patterns[1].coverage) == 1
    printed = format_file(file)
    assert [line.split()[1] for line in printed.splitlines() if line.endswith("{")] == ["a", "b", "c", "{", "d"]
    assert tree(printed) == file


@pytest.mark.parametrize("word", ["layers", "heads", "every", "complete", "density", "reaches", "within", "at", "n"])
def test_soft_keywords_stay_names(word: str) -> None:
    """Where a name or a value is wanted, the words of stacks are names, also right beside their own keywords."""
    text = f"""
        pattern {word}({word}: int) {{
            let {word} = {word} keep {word} in {word} .. {word} - {word} keep {word}({word}={word})
        }}
        stack {word}({word}: int = {word}) over {word} layers {{
            layers ({word}) .. {word} every {word} {{ heads ({word}) .. {word}: {word}.{word}({word}) }}
            layers every {word}: {word}()
            layers {{{word}}}: {word}()
            coverage {{
                complete within {word} layers at n = {word}
                density < {word}% at n = {word}
                reaches {word}% within {word} layers at n = {word}
            }}
        }}
    """
    file = tree(text)
    (stack,) = file.stacks
    assert stack.depth == s.Name(word) and stack.lines[1].layers == s.Every(None, s.Name(word))
    assert all(c.at == s.Name(word) for c in stack.coverage[0].claims)
    assert tree(format_file(file)) == file


def test_layout() -> None:
    text = """
stack t( d:int=3 ,
  w:tokens=1 )over  d*2  layers{ \"\"\"Doc.\"\"\"
  coverage{complete within 3 layers at n=8 # sure
     # shown
     density<=2.50 %}
  layers 0..(d+1) : f( w ) # first
  layers{5,} # why
   { heads every 2:f()
   # the rest
     heads else:m.f(x=w) }

  layers (every)..3:f()
  layers else { } # last
} # end
"""
    expected = '''stack t(d: int = 3, w: tokens = 1) over d * 2 layers {
    """Doc."""
    coverage {
        complete within 3 layers at n = 8  # sure
        # shown
        density <= 2.50%
    }
    layers 0 .. d + 1: f(w)  # first
    # why
    layers {5} {
        heads every 2: f()
        # the rest
        heads else: m.f(x=w)
    }

    layers (every) .. 3: f()
    layers else {
    }  # last
}  # end
'''
    assert format_file(tree(text)) == expected and format_file(tree(expected)) == expected


@given(st.lists(st.tuples(st.integers(0, 70), st.sampled_from(["", "{", "}", ":", "layers", "heads", "%", "at n"]))))
def test_broken_stacks_give_a_tree_or_errors(changes: list[tuple[int, str]]) -> None:
    words = re.findall(r"\w+|\.\.|\S", re.sub('""".*"""', "", MASFORMER))
    for place, word in changes[:4]:
        words[place % len(words)] = word
    try:
        tree(" ".join(words))
    except CompileError as error:
        assert 1 <= len(error.diagnostics) <= 20


def test_masformer() -> None:
    stack = lowered(MASFORMER)
    assert texts(stack) == ["causal_attention()"] * 4 + ["sliding_window(1024)"] * 20
    masks = [layer[0].mask for layer in stack.layers]
    assert masks[0] == weft.load("causal_attention").bind(4)
    assert masks[4] == weft.load("sliding_window", window=1024).bind(4)
    assert len({id(mask) for mask in masks}) == 2
    assert stack.name == "masformer" and stack.doc.startswith("MASFormer")
    assert stack.claims == (
        LoweredClaim("complete", None, False, 12, 131072, "complete within 12 layers at n = 131072"),
        LoweredClaim("density", Fraction(10), True, None, 131072, "density < 10% at n = 131072"),
    )
    shorter = lowered(MASFORMER, depth=6, dense="depth // 3", window="n // 8")
    assert texts(shorter) == ["causal_attention()"] * 2 + ["sliding_window(n // 8)"] * 4


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("layers 5 .. layers every 6: full() layers else: window(8)", "wwwwwfwwwwwf"),
        ("layers every 6: full() layers else: window(8)", "fwwwwwfwwwww"),
        ("layers else: window(8) layers {1, 5, layers - 1}: full()", "wfwwwfwwwwwf"),
        ("layers 0 .. 0: full() layers 3 .. 2: full() layers else: window(8)", "wwwwwwwwwwww"),
        ("layers 1 .. 8 every 3: full() layers else: window(8)", "wfwwfwwfwwww"),
        ("layers 0 .. layers // 2: full() layers layers // 2 .. layers: window(8)", "ffffffwwwwww"),
    ],
)
def test_layers(body: str, expected: str) -> None:
    assert "".join(text[0] for text in texts(lowered(in_stack(body, "t over 12 layers")))) == expected


def test_heads() -> None:
    body = """
        layers {0} { heads every 2: full() heads else: window(8) }
        layers {1} { heads 0 .. layer: full() heads {heads - 1}: window(4) heads else: window(8, gap=layer + 1) }
        layers {2} { heads 0 .. 0: full() heads else: window(8) }
        layers else: window(size=heads * layers)
    """
    assert texts(lowered(in_stack(body, "t over 4 layers"))) == [
        "[0, 2] full(); [1, 3] window(8)",
        "[0] full(); [3] window(4); [1, 2] window(8, gap=2)",
        "window(8)",
        "window(size=16)",
    ]


def test_tables() -> None:
    header = "t(sizes: table[layer] = [1, 2, 4], rows: table[layer, head] = [[1, 2], [1, 2], [5, 6]]) over 3 layers"
    heads = "pattern by_head(w: table[layer, head], flag: bool = false) { keep q - k < w[layer, h] or flag }"
    body = "layers {1}: window(sizes[layer] * 8) layers else: by_head(rows, flag=sizes[layer] > 3)"
    stack = lowered(heads + in_stack(body, header), 2)
    rows = "[[1, 2], [1, 2], [5, 6]]"
    assert texts(stack) == [f"by_head({rows}, flag=false)", "window(16)", f"by_head({rows}, flag=true)"]
    assert [layer[0].mask.tables[0].values for layer in stack.layers if layer[0].mask.tables] == [(1, 2), (5, 6)]
    assert "table `w` has 2 heads" in problem(heads + in_stack("layers else: by_head(rows)", header))
    moa = "import moa stack t(a: table[layer, head], b: table[layer, head]) over 2 layers { layers else: moa(a, b) }"
    pattern = weft.load("moa", alpha=[[64] * 9, [128] * 9], beta_eighths=[[1] * 9, [2] * 9])
    stack = lowered(moa, 9, a=[[64] * 9, [128] * 9], b=[[1] * 9, [2] * 9])
    assert texts(stack) == ["moa([..], [..])"] * 2
    assert [layer[0].mask for layer in stack.layers] == [pattern.bind(9, 9, layer, 2) for layer in range(2)]


def test_patterns_know_their_layer_and_heads() -> None:
    text = "pattern f(w: int = layer + 1) { keep q - k < w + h // heads + layers or layer % 2 == 0 and g == h }"
    stack = lowered(f"{text} stack t over 4 layers {{ layers else: f() }}", 4, 2)
    module = load_text(text)
    again = repeat(module, module.file.patterns[0], {}, 4, 4, 2)
    assert stack.layers == again.layers
    expected = [weft.load(text).bind(4, 2, layer, 4) for layer in range(4)]
    assert [layer[0].mask for layer in stack.layers] == expected


def test_equal_masks_are_one() -> None:
    text = "pattern f { keep q - k < 4 + layer % 2 }"
    stack = lowered(f"{text} stack t over 8 layers {{ layers else: f() }}")
    assert len({id(layer[0].mask) for layer in stack.layers}) == 2


def test_repeat() -> None:
    text = """
        pattern window(size: tokens = 64, gap: int = 1) {
            keep q - k < size * gap
            coverage { complete within layers layers density < 12.5% at n = size * 4 reaches gap% within gap layers }
        }
    """
    module = load_text(text)
    assert check(module) == ()
    stack = repeat(module, module.file.patterns[0], {"size": 8, "gap": "1 + 1"}, 3, 4, 2)
    assert texts(stack) == ["window(size=8, gap=2)"] * 3 and len({id(layer[0].mask) for layer in stack.layers}) == 1
    assert [(c.kind, c.percent, c.within, c.n) for c in stack.claims] == [
        ("complete", None, 3, None),
        ("density", Fraction(25, 2), None, 32),
        ("reaches", Fraction(2), 2, None),
    ]
    by_layer = repeat(module, module.file.patterns[0], {"gap": 1, "size": "8 << layer"}, 1, 4, 2)
    assert by_layer.claims[1].n == 32
    with pytest.raises(CompileError, match="the same for all layers"):
        repeat(module, module.file.patterns[0], {"size": "8 << layer"}, 3, 4, 2)
    for layers, heads, kv_heads in ((0, 1, 1), (1025, 1, 1), (2, 4, 3), (2, 0, 0), (2, 1 << 20, 1)):
        with pytest.raises(ValueError, match="`window`"):
            repeat(module, module.file.patterns[0], {}, layers, heads, kv_heads)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("layers 0 .. 7: full()", "E005 there is no layer 6 among 6 | 0 .. 7"),
        ("layers -1 .. 2: full()", "E005 there is no layer -1 among 6 | -1 .. 2"),
        ("layers {6}: full() layers else: full()", "E005 there is no layer 6 among 6 | {6}"),
        ("layers 0 .. 99999999 every 3: full()", "E005 there is no layer 99999998 among 6 | 0 .. 99999999"),
        ("layers every 1 - 1: full()", "E004 every 0 | 1 - 1"),
        ("layers 0 .. 3: full() layers {2}: window(1)", "E008 layer 2 is named twice | {2}: window(1)"),
        ("layers else: full() layers {3, 3}: full()", "E008 layer 3 is named twice | {3, 3}: full()"),
        ("layers else { heads 0 .. 5: full() }", "E005 there is no head 4 among 4 | 0 .. 5"),
        ("layers else { heads {1}: full() heads every 1: full() }", "E008 head 1 is named twice | every 1: full()"),
        ("layers else { heads {1}: full() }", "E013 no line names head 0 and 2 more | else { heads {1}: full() }"),
        ("layers else { }", "E013 no line names head 0 and 3 more | else { }"),
        ("layers else: window(-layer)", "E005 `size` is a count of tokens, and -1 is negative | -layer"),
        ("layers else: full() coverage { reaches 101% }", "E005 a percentage is 0 to 100 | 101"),
        (
            "layers else: full() coverage { reaches 0.000000000000000000001% }",
            "E005 a percentage is 0 to 100 | 0.000000000000000000001",
        ),
        ("layers else: full() coverage { complete at n = 1 - 1 }", "E005 a length is 1 to 2097152, not 0 | 1 - 1"),
    ],
)
def test_errors_of_values(body: str, expected: str) -> None:
    assert problem(in_stack(body)) == expected


def test_errors_of_stacks() -> None:
    missing = problem(in_stack("layers 1 .. 6: full()"))
    assert missing.startswith("E013 no line names layer 0 | stack tower")
    assert problem(in_stack("layers else: full()", "t(a: int) over a layers")).startswith("E007 parameter `a` has no")
    assert "depends on `layer`" in problem(MASFORMER, window="8 << layer")
    assert problem(MASFORMER, dense="layers").startswith("E004 `dense` must be known before `layers` is")
    assert problem(MASFORMER, depth="n").startswith("E004 the number of layers must be known")
    assert problem(MASFORMER, width=3).startswith("E007 `masformer` has no parameter `width`")


def test_every_line_is_reported() -> None:
    body = "layers 0 .. 7: full() layers {1}: full() layers {1}: full() layers every 0: full()"
    with pytest.raises(CompileError) as error:
        lowered(in_stack(body))
    assert [d.code for d in error.value.diagnostics] == ["E005", "E008", "E004"]


def test_claims_as_text() -> None:
    assert claims_of(["density<=2.5%at n=64", "complete within 2 * 3 layers"]) == (
        LoweredClaim("density", Fraction(5, 2), False, None, 64, "density <= 2.5% at n = 64"),
        LoweredClaim("complete", None, False, 6, None, "complete within 2 * 3 layers"),
    )
    for text in ("", "compete", "complete complete", "density < 5", "reaches layers%", "reaches 101%", "reaches f()%"):
        with pytest.raises(CompileError):
            claims_of([text])


def test_large_stacks_are_fast_or_refused() -> None:
    lines = " ".join(f"heads {{{h}}}: window(64 * {h + 1}, layer + 1)" for h in range(32))
    start = time.process_time()
    stack = lowered(in_stack(f"layers else {{ {lines} }}", "t over 64 layers"), 32)
    assert time.process_time() - start < 1 and sum(map(len, stack.layers)) == 64 * 32
    many = " ".join(f"heads {{{h}}}: window(64 * {h + 1}, layer + 1)" for h in range(200))
    start = time.process_time()
    with pytest.raises(CompileError, match="E011"):
        lowered(in_stack(f"layers else {{ {many} }}", "t over 1024 layers"), 200)
    assert "E005" in problem(in_stack("layers else: full()", "t over 1000000000 layers"))
    assert time.process_time() - start < 8


@given(pile("full"), st.integers(1, 6))
def test_each_layer_has_one_line(stack: s.StackDef, heads: int) -> None:
    """Against the plain reading of the selections that `pile` draws."""
    whole = len(stack.lines[0].heads) != 1 and len(stack.lines[1].heads) != 1
    text = WINDOW + format_file(s.File((), (), (), (stack,)))
    step = next(line.layers.step for line in stack.lines if isinstance(line.layers, s.Every))
    assert isinstance(step, s.Number) and not whole
    try:
        made = lowered(text, heads)
    except CompileError as error:
        # Without `heads else` the heads between the steps are left over.
        assert step.value > 1 < heads and {d.code for d in error.diagnostics} == {"E013"}
        return
    for layer, assignments in enumerate(made.layers):
        assert sorted(h for a in assignments for h in a.heads) == list(range(heads))
        assert layer % step.value == 0 or len(assignments) == 1
        assert layer % step.value or assignments[0].heads == tuple(range(0, heads, step.value))


def test_check_takes_files_of_stacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "masformer.sparse"
    path.write_text(MASFORMER)
    assert main(["check", "--strict", str(path)]) == 0 and main(["fmt", "--check", str(path)]) == 0
    path.write_text(MASFORMER.replace("dense: int = 4", "dense: int = 40"))
    assert main(["check", str(path)]) == 1
    assert "there is no layer 39 among 24" in capsys.readouterr().out
