"""What a pattern means: the compiler's dense mask against a plain interpreter of the syntax tree, and laws of masks."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import weft
from tests.brute import PATTERNS, Bools
from tests.oracle import SMALL, small_inputs
from tests.scalar import World, scalar_mask
from tests.strategies import HEADS, LAYERS, files, load
from weft.dsl import syntax as s
from weft.dsl.parser import parse
from weft.dsl.printer import format_file
from weft.dsl.source import Source

N = TypeVar("N")
worlds = st.builds(
    World,
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    heads=st.just(HEADS),
    kv_heads=st.integers(1, HEADS),
    layer=st.integers(0, LAYERS - 1),
    layers=st.just(LAYERS),
)


def compiled(file: s.File, world: World, seed: int = 0, pattern: weft.Pattern | None = None) -> tuple[Bools, World]:
    """The compiler's mask of a file's last pattern, and the world with the inputs it read."""
    pattern = pattern or load(file, file.patterns[-1].name)
    inputs: dict[str, Any] = {**small_inputs(pattern, world.n, world.m, seed, world.heads)}
    layers = {"layer": world.layer, "layers": world.layers}
    mask = pattern.mask(world.n, world.m, heads=world.heads, kv_heads=world.kv_heads, **layers, **inputs)
    lists = {name: x.tolist() for name, x in inputs.items()}
    return np.broadcast_to(mask, (world.heads, world.m, world.n)), dataclasses.replace(world, inputs=lists)


def main_of(file: s.File) -> s.PatternDef:
    return file.patterns[-1]


def with_main(file: s.File, statements: tuple[s.Statement, ...]) -> s.File:
    main = dataclasses.replace(main_of(file), statements=statements)
    return s.File((), (), (*file.patterns[:-1], main))


def rewritten(node: N, change: Callable[[Any], Any]) -> N:
    """The tree with `change` applied to every node, from the leaves up."""

    def visit(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(map(visit, cast("tuple[Any, ...]", x)))
        if not isinstance(x, s.Node):
            return x
        values = {f.name: visit(getattr(x, f.name)) for f in dataclasses.fields(x) if f.name != "span"}
        return change(dataclasses.replace(x, **values))

    return visit(node)


def assert_same(one: s.File, other: s.File, world: World) -> None:
    assert np.array_equal(compiled(one, world)[0], compiled(other, world)[0]), format_file(other)


@given(files(), worlds, st.integers(0, 9))
def test_the_compiler_means_what_the_tree_says(file: s.File, world: World, seed: int) -> None:
    """Printed, parsed, lowered and evaluated on arrays; against the tree itself, pair by pair."""
    mask, world = compiled(file, world, seed)
    wrong = np.argwhere(mask != scalar_mask(file, world))
    assert not len(wrong), f"[head, row, key] {wrong[:5].tolist()} in\n{format_file(file)}"


@pytest.mark.parametrize("path", sorted(PATTERNS.glob("*.sparse")), ids=lambda p: p.stem)
def test_shipped_patterns_mean_what_their_trees_say(path: Any) -> None:
    file = parse(Source(path.name, path.read_text()))
    params = SMALL.get(path.stem, {})
    chosen = next(p for p in file.patterns if p.name == path.stem)
    values: dict[str, Any] = {name: literal(value) for name, value in params.items()}
    parameters = tuple(dataclasses.replace(p, default=values.get(p.name, p.default)) for p in chosen.parameters)
    chosen = dataclasses.replace(chosen, parameters=parameters)
    file = s.File((), (), (*(p for p in file.patterns if p.name != path.stem), chosen))
    pattern = weft.load(format_file(file), path.stem)
    for n, m in ((40, 40), (23, 9), (9, 12)):
        mask, world = compiled(file, World(n, m, 4, 2), pattern=pattern)
        assert np.array_equal(mask, scalar_mask(file, world))


def literal(value: Any) -> s.Expr:
    return s.ListLiteral(tuple(map(literal, cast("list[Any]", value)))) if isinstance(value, list) else s.Number(value)


# --- laws -------------------------------------------------------------------------------------------------------------


@given(files(), worlds, st.randoms(use_true_random=False))
def test_the_order_of_clauses_does_not_matter(file: s.File, world: World, random: Any) -> None:
    declared = [x for x in main_of(file).statements if isinstance(x, s.Grid | s.Input | s.Let)]
    clauses = [x for x in main_of(file).statements if not isinstance(x, s.Grid | s.Input | s.Let)]
    random.shuffle(clauses)
    assert_same(file, with_main(file, (*declared, *clauses)), world)


@given(files(), worlds)
def test_a_clause_said_twice_changes_nothing(file: s.File, world: World) -> None:
    statements = main_of(file).statements
    clauses = [x for x in statements if not isinstance(x, s.Grid | s.Input | s.Let)]
    assert_same(file, with_main(file, (*statements, *clauses)), world)


@given(files(), worlds)
def test_names_do_not_matter(file: s.File, world: World) -> None:
    """Parameters and lets are p0, p1, .., l0, l1, ..: all of them renamed, in both patterns."""

    def renamed(name: str) -> str:
        return f"another_{name}" if name[0] in "pl" and name[1:].isdigit() else name

    def change(node: Any) -> Any:
        match node:
            case s.Name(name) | s.Index(name, _) | s.Parameter(name, _, _) | s.Let(name, _):
                return dataclasses.replace(node, name=renamed(name))
            case s.Argument(str(keyword), _):
                return dataclasses.replace(node, keyword=renamed(keyword))
            case _:
                return node

    assert_same(file, rewritten(file, change), world)


@given(files(), worlds)
def test_a_let_is_its_value(file: s.File, world: World) -> None:
    """Every let written out where it is used."""
    values: dict[str, s.Expr] = {}

    def change(node: Any) -> Any:
        return values.get(node.name, node) if isinstance(node, s.Name) else node

    statements: list[s.Statement] = []
    for statement in main_of(file).statements:
        changed = rewritten(statement, change)
        if isinstance(changed, s.Let):
            values[changed.name] = changed.value
        else:
            statements.append(changed)
    assert_same(file, with_main(file, tuple(statements)), world)


@given(files(), worlds)
def test_not_not_and_de_morgan(file: s.File, world: World) -> None:
    """`not not c` is `c`; `keep a or b` is `keep not (not a and not b)`."""

    def change(statement: s.Statement) -> s.Statement:
        match statement:
            case s.Keep(s.Logical("or", operands)):
                return s.Keep(s.Not(s.Logical("and", tuple(s.Not(operand) for operand in operands))))
            case s.Keep(condition) | s.Require(condition) | s.Drop(condition):
                return dataclasses.replace(statement, condition=s.Not(s.Not(condition)))
            case _:
                return statement

    assert_same(file, with_main(file, tuple(map(change, main_of(file).statements))), world)


@given(files(), worlds)
def test_drop_is_require_not(file: s.File, world: World) -> None:
    statements = [s.Require(s.Not(x.condition)) if isinstance(x, s.Drop) else x for x in main_of(file).statements]
    assert_same(file, with_main(file, tuple(statements)), world)


@given(files(), worlds)
def test_a_used_pattern_is_the_pattern(file: s.File, world: World) -> None:
    """`keep main()` in another pattern means what `main` means."""
    user = s.PatternDef("user", (), "", (s.Keep(s.Call(None, "main", ())),))
    assert_same(file, s.File((), (), (*file.patterns, user)), world)


@given(files(inputs=False), worlds)
def test_fewer_queries_are_the_last_ones(file: s.File, world: World) -> None:
    """Unless the pattern asks for m, m queries give the last m rows of n."""
    asks = list[str]()
    rewritten(file, lambda node: (asks.append(node.name) if isinstance(node, s.Name) else None, node)[1])
    if "m" not in asks and world.m < world.n:
        square = dataclasses.replace(world, m=world.n)
        few, all_rows = compiled(file, world)[0], compiled(file, square)[0]
        assert np.array_equal(few, all_rows[:, world.n - world.m :])


# --- corners of the definition ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fact",
    """
    -1 // 4 == -1 and -1 % 4 == 3 and -8 // 4 == -2 and 7 // 2 * 2 + 7 % 2 == 7
    -1 & 6 == 6 and (-8 | 3) == -5 and -1 ^ 5 == -6 and -3 >> 1 == -2 and -3 << 2 == -12
    (q - 9) // 4 * 4 + (q - 9) % 4 == q - 9 and 0 <= (q - 9) % 4 < 4
    (q - k) & 7 == (q - k) % 8 and (q - k) >> 3 == (q - k) // 8 and (q ^ k) == (q | k) - (q & k)
    (q - 9 | 6) == q - 9 + 6 - (q - 9 & 6) and (q - 9 ^ 5) & 1 == 1 - (q - 9) % 2
    |q - k| == max(q - k, k - q) and min(q, k, 3) <= 3 and abs(-q) == q and -|q| == 0 - q
    1 + 2 * 3 == 7 and 2 - 3 - 4 == -5 and 16 // 4 // 2 == 2 and 1 << 2 + 1 == 8 and - 2 * 3 == -6
    1 in powers(3) and 9 in powers(3) and 0 not in powers(2) and -4 not in powers(2) and 6 not in powers(2)
    0 in multiples(3) and -6 in multiples(3) and 7 not in multiples(3) and 5 in multiples(1)
    3 in 3 .. 5 and 5 not in 3 .. 5 and 0 not in 0 .. 0 and 4 in {1, 4, 9} and 5 not in {1, 4, 9}
    not false or false and false
    """.strip().split("\n"),
)
def test_facts_hold_for_all_pairs(fact: str) -> None:
    assert weft.load(f"pattern p {{ keep {fact} }}").mask(20, 15).all()


def test_reads_outside_an_input_are_minus_one() -> None:
    pattern = weft.load("pattern p { input doc[token]: int\n keep doc[q + 2] == -1\n keep doc[k - 1] == 5 }")
    expected = np.zeros((4, 4), dtype=bool)
    expected[2:] = True
    expected[:, 1] = True
    assert np.array_equal(pattern.mask(4, doc=[5, 6, 7, 8]), expected)


def test_samples_are_distinct_and_belong_to_their_keys() -> None:
    """`count` keys in every row, the same for the same block of queries, all keys when there are few."""
    mask = weft.load("pattern p { keep k in sample(5, n, 3, h, q // 8) }").mask(64, heads=3)
    assert (mask.sum(-1) == 5).all()
    assert np.array_equal(mask, np.repeat(mask[:, ::8], 8, axis=1))
    assert len({mask[h, row].tobytes() for h in range(3) for row in range(0, 64, 8)}) > 20
    assert weft.load("pattern p { keep k in sample(9, n, 3) }").mask(7).all()


def test_the_draw_never_changes() -> None:
    """These numbers are part of the language: a trained model depends on them."""
    mask = weft.load("pattern p { keep k in sample(4, n, 7, q // 2) }").mask(12)
    drawn = [[0, 5, 6, 8], [2, 4, 7, 10], [0, 3, 5, 11], [0, 2, 5, 10], [3, 6, 8, 9], [3, 4, 6, 11]]
    assert [np.nonzero(row)[0].tolist() for row in mask[::2]] == drawn
