"""The checker: what it accepts, what it finds, and that one mistake gives one finding."""

from pathlib import Path

import pytest
from hypothesis import given

from tests.strategies import any_files, files
from weft.dsl import syntax as s
from weft.dsl.checker import check
from weft.dsl.diagnostics import CompileError, Diagnostic
from weft.dsl.loader import load_file, load_text
from weft.dsl.printer import format_file

PATTERNS = sorted((Path(__file__).resolve().parent.parent / "patterns").glob("*.sparse"))


def findings(text: str) -> tuple[Diagnostic, ...]:
    return check(load_text(text, roots=()))


def codes(body: str, parameters: str = "a: int = 1, b: bool = true") -> list[str]:
    """Codes of a pattern with this body; W104 is left out."""
    text = f"pattern f({parameters}) {{ {body} }} pattern other(w: tokens, d: int = 1) {{ keep q - k < w * d }}"
    return [f.code for f in findings(text) if f.code != "W104"]


@given(files())
def test_generated_files_are_well_typed(file: s.File) -> None:
    assert [f.render() for f in findings(format_file(file)) if f.severity == "error"] == []


@given(any_files())
def test_any_file_is_checked_without_a_crash(file: s.File) -> None:
    file = s.File((), file.precompiles, file.patterns, file.stacks)
    found = findings(format_file(file))
    places = [f.span.start for f in found if f.span is not None]
    assert places == sorted(places)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("path", PATTERNS, ids=lambda p: p.stem)
def test_shipped_patterns_are_clean(path: Path) -> None:
    assert [f.render() for f in check(load_file(path))] == []


@pytest.mark.parametrize(
    "body",
    [
        "keep |q - k| <= a and b",
        "keep b or not b",
        "let w = n // 4 keep q - k < w",
        "let c = q < k let d = not c keep d",
        "keep q // a == k // a and q % (a * heads) == 0 and q << layer > k >> layers",
        "keep q in 0 .. a keep q not in {1, a} keep q in multiples(a) keep q in powers(a)",
        "let i = q // 64 keep k in sample(a, n - m, layer, h, i) keep k in sample(3, 5, 1)",
        "input doc[token]: int input parent[token]: int keep doc[parent[q]] == doc[k] and ancestor(parent)",
        "input seg[query]: int input bag[key]: int input g1[head]: int keep seg[q - 1] == bag[k + h] + g1[g]",
        "grid (y, x) over (a, 4) of 2 keep q.y == k.x and near(y, a) and near(x, a + 1, clamp)",
        "keep other(3) and other(w=n // 2) and other(a, d=a) and min(q, k, 3) < max(a, abs(k))",
        "let w = 3 keep other(w, layer)",
        "let t = a keep t < q",
    ],
)
def test_accepts(body: str) -> None:
    assert codes(body) == []


def test_accepts_tables_and_earlier_parameters() -> None:
    parameters = "a: int, c: tokens = a * 2, t: table[layer, head] = [[1, c], [-3, 4]], u: table[layer] = [1]"
    assert codes("keep t[layer, h] + u[layer + 1] < c keep part(t)", f"{parameters}, v: bool = a > 2") == ["E002"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("keep x < y and x > 2", ["E002", "E002"]),
        ("keep foo(1) and foo(2) and lib.bar()", ["E002", "E002"]),
        ("let z = x keep z < 3 and z", ["E002"]),
        ("keep later < 1 let later = 2", ["E002"]),
        ("keep q", ["E003"]),
        ("keep a == b", ["E003"]),
        ("keep q in 3", ["E003"]),
        ("keep powers(2)", ["E003"]),
        ("keep q < [1]", ["E003"]),
        ("keep q * 1.5 < 3", ["E003"]),
        ("let l = {1}", ["E003"]),
        ("keep other", ["E003"]),
        ("keep a(3)", ["E003"]),
        ("keep a[q] < 3", ["E003"]),
        ("keep q // 0 < q % -2", ["E004", "E004"]),
        ("let w = n keep q // w < q << k", ["E004", "E004"]),
        ("input d[token]: int keep q % d[q] == 0", ["E004"]),
        ("keep k in sample(n, q, h, q + k)", ["E004", "E004", "E004", "E003"]),
        ("keep q.y < 3", ["E006"]),
        ("grid (y, x) over (2, 3) keep q.z < 3 or y < 2 or near(z, 1)", ["E006", "E006", "E006"]),
        ("grid (y) over (2)", ["E006"]),
        ("grid (t, z, y, x) over (2, 2, 2, 2)", ["E006"]),
        ("grid (y, x) over (2, 2, 2)", ["E006"]),
        ("input d[batch]: int keep d[q] < 3", ["E006"]),
        ("input d[query]: int input e[key]: int keep d[k] < e[q]", ["E006", "E006"]),
        ("input d[head]: int input e[token]: int keep d[q] < e[h]", ["E006", "E006"]),
        ("input d[query]: int keep ancestor(d)", ["E006"]),
        ("keep other()", ["E007"]),
        ("keep other(1, 2, 3, 4)", ["E007"]),
        ("keep other(1, w=2)", ["E007"]),
        ("keep other(w=1, 2)", ["E007"]),
        ("keep other(x=1, w=2)", ["E007"]),
        ("keep other(q)", ["E007"]),
        ("keep abs(q, k) < min(q)", ["E007", "E007"]),
        ("keep min(a=q, k) < 3", ["E007"]),
        ("let a = 3", ["E008"]),
        ("let q = 3", ["E008"]),
        ("grid (y, y) over (2, 2)", ["E008"]),
        ("grid (y, x) over (2, 2) grid (t, z) over (2, 2)", ["E008"]),
        ("keep f()", ["E009"]),
    ],
)
def test_rejects(body: str, expected: list[str]) -> None:
    assert codes(body) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("x: double", ["E002"]),
        ("x: int = y, y: int = 1", ["E002"]),
        ("x: int = true, y: bool = 1", ["E003", "E003"]),
        ("x: table", ["E006"]),
        ("x: table[head, layer]", ["E006"]),
        ("x: int[head]", ["E006"]),
        ("x: int = q + h", ["E007"]),
        ("x: table[head] = 3", ["E007"]),
        ("x: table[head] = [[1]]", ["E007"]),
        ("x: table[layer, head] = [1, 2]", ["E007"]),
        ("x: table[layer, head] = [[1], [2, 3]]", ["E007"]),
        ("x: table[head] = [n]", ["E004"]),
        ("x: int, x: int", ["E008"]),
        ("heads: int", ["E008"]),
    ],
)
def test_rejects_parameters(parameters: str, expected: list[str]) -> None:
    assert codes("", parameters) == expected


def test_table_indices() -> None:
    parameters = "t: table[layer, head] = [[1]]"
    assert codes("keep t[layer] < t[h, layer]", parameters) == ["E007", "E006", "E006"]
    assert codes("keep t < t[q, q]", parameters) == ["E003", "E006", "E006"]


def test_patterns_share_a_name_space_with_imports_and_functions() -> None:
    assert [f.code for f in findings("pattern f {} pattern f {} pattern min {}")] == ["E008", "E008"]


def test_circles_are_found_once() -> None:
    found = findings("pattern a { keep b() } pattern b { keep c() and a() } pattern c { keep q < k }")
    assert [(f.code, f.message) for f in found] == [("E009", "`a` uses itself: a -> b -> a")]


def test_long_chains_of_patterns_do_not_recurse() -> None:
    chain = " ".join(f"pattern p{i} {{ keep p{i + 1}() }}" for i in range(600))
    assert [f.code for f in findings(chain + " pattern p600 { keep p0() }")] == ["E009"]


def test_inputs_of_used_patterns_need_one_axis() -> None:
    text = "pattern a { input d[token]: int keep d[q] == d[k] } pattern b { keep a() }"
    assert findings(f"{text} pattern c {{ input d[token]: int keep b() and d[q] > 0 }}") == ()
    found = findings(f"{text} pattern c {{ input d[key]: int keep b() and d[k] > 0 }}")
    assert [f.code for f in found] == ["E006"]


def test_unused_names_are_warnings() -> None:
    found = findings("pattern f(a: int, c: int = a) { let b = q input d[key]: int keep k < 3 }")
    assert [(f.code, f.severity, f.message) for f in found] == [
        ("W104", "warning", "parameter `c` is never used"),
        ("W104", "warning", "let `b` is never used"),
        ("W104", "warning", "input `d` is never used"),
    ]


def test_a_misspelt_name_is_one_finding() -> None:
    found = findings("pattern f(window: tokens = 3) { keep q - k < windw keep k - q < windw }")
    assert [(f.code, f.hint) for f in found] == [("E002", "did you mean `window`?")]


def test_imports(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "window.sparse").write_text(
        "pattern window(w: tokens) { keep q - k < w } pattern off { keep z }"
    )
    text = (
        "import lib.window as w pattern f { keep w(3) and w.window(4) and w.off() and w.none() and x.y() }"
        "pattern g { keep w() }"
    )
    found = check(load_text(text, roots=[tmp_path]))
    # The imported file's own error first, then this file's.
    assert [f.code for f in found] == ["E002", "E002", "E002", "E007"]
    assert found[0].span is not None and found[0].span.source.path.endswith("window.sparse")
    (tmp_path / "main.sparse").write_text("import lib.window pattern f { keep lib.window(3) }")
    assert [f.code for f in check(load_file(tmp_path / "main.sparse"))] == ["E002", "E002"]


def test_findings_are_not_exceptions() -> None:
    with pytest.raises(CompileError):
        findings("pattern f {")


def test_inputs_must_not_be_called_like_arguments() -> None:
    for name in ("scale", "backend", "return_lse", "tf32", "head", "kv_heads", "v", "self", "heads", "layer", "n"):
        assert codes(f"input {name}[token]: int") == ["E008"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("pattern f { kepe q < k }", "keep"),
        ("pattern f { keep q < k requre q < 3 }", "require"),
        ("patern f { keep q < k }", "pattern"),
    ],
)
def test_misspelt_keywords(text: str, meant: str) -> None:
    with pytest.raises(CompileError) as error:
        findings(text)
    assert error.value.diagnostics[0].hint == f"did you mean `{meant}`?"
