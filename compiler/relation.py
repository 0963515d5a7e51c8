"""Masks as Presburger relations: which tiles are touched and which are full. The only module that imports isl."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from threading import RLock
from typing import assert_never, cast

import islpy as isl

from .evaluate import powers
from .intervals import interval
from .ir import (
    And,
    Binary,
    Compare,
    Const,
    Expr,
    Formula,
    InPowers,
    Not,
    Op,
    Or,
    Read,
    Truth,
    Var,
    conjunction,
    disjunction,
)
from .plan import Shape
from .walk import differ_in_one_bit, holds_on_diagonal, operations, variables

TileSet = isl.Set

# isl counts operations for the whole process: two analyses at once would spend each other's budget.
_ONE_AT_A_TIME = RLock()

# Operations isl may spend on one analysis; a catalogue pattern needs under a tenth of it.
BUDGET = 1_000_000


class UndecidedError(Exception):
    """isl could not hold a formula, or not within its budget."""


@contextmanager
def budget(operations: int = BUDGET) -> Generator[None]:
    """Bound the work isl does inside; raises UndecidedError when it is used up."""
    context = isl.DEFAULT_CONTEXT
    with _ONE_AT_A_TIME:
        context.reset_operations()
        context.set_max_operations(operations)
        try:
            yield
        except isl.Error as error:
            raise UndecidedError("more analysis steps than the budget allows") from error
        finally:
            context.set_max_operations(0)
            context.reset_operations()


@dataclass(frozen=True, slots=True)
class Space:
    """The integers a relation ranges over: q and k, for symbolic n, off = n - m, heads and uniforms.

    Only symbols that are used are there: each one more makes every isl operation slower.
    """

    shape: Shape
    uniforms: tuple[str, ...] = ()
    heads: tuple[str, ...] = ("h", "g")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Symbols that stay free."""
        return ("n", *(() if self.shape.square else ("off",)), *self.heads, *self.uniforms)

    @property
    def first_query(self) -> str:
        """The position of query row 0."""
        return "0" if self.shape.square else "off"

    def local(self) -> isl.LocalSpace:
        """isl's space {[q, k]} with the parameters named."""
        space = isl.Space.create_from_names(isl.DEFAULT_CONTEXT, set=["q", "k"], params=list(self.parameters))
        return isl.LocalSpace.from_space(space)

    def text(self, body: str) -> str:
        """isl's notation for a set or map over these parameters."""
        return f"[{', '.join(self.parameters)}] -> {{ {body} }}"

    def domain(self, padded: bool = False) -> isl.Set:
        """Every (query, key) pair there is; `padded` goes on past the last query."""
        rows = f"{self.first_query} <= q" + ("" if padded else " < n")
        return isl.Set(self.text(f"[q, k] : {rows} and 0 <= k < n and {self.context()}"))

    def context(self) -> str:
        """What always holds of the parameters."""
        s = self.shape
        size = 1 << s.bits
        group = max(1, s.heads // max(1, s.kv_heads))
        known = [f"1 <= n <= {size}"]
        if not s.square:
            known.append(f"{-size} < off < n")
        if "h" in self.heads:
            known.append(f"0 <= h < {s.heads}")
        if "g" in self.heads:
            known.append(f"0 <= g < {s.kv_heads}")
        if len(self.heads) == 2:
            known.append(f"{group} g <= h < {group} g + {group}")
        return " and ".join(known)


def space_of(shape: Shape, formula: Formula, uniforms: tuple[str, ...] = ()) -> Space:
    """The space of a formula: the head symbols it mentions, and its uniforms."""
    mentioned = variables(formula)
    return Space(shape, uniforms, tuple(v for v in ("h", "g") if v in mentioned))


def affine(expr: Expr, space: Space, local: isl.LocalSpace) -> isl.PwAff:
    """An expression as isl's quasi-affine function; raises UndecidedError when it is none."""
    match expr:
        case Const(value):
            return isl.PwAff.from_aff(isl.Aff.zero_on_domain(local).add_constant_val(isl.Val(value)))
        case Var("m"):
            return affine(Var("n") if space.shape.square else Binary("-", Var("n"), Var("off")), space, local)
        case Var(name) if name in ("q", "k"):
            return isl.PwAff.from_aff(isl.Aff.var_on_domain(local, isl.dim_type.set, ("q", "k").index(name)))
        case Var(name):
            position = space.parameters.index(name)
            return isl.PwAff.from_aff(isl.Aff.var_on_domain(local, isl.dim_type.param, position))
        case Read(table, _):
            raise UndecidedError(f"`{table}` is only known when the kernel runs")
        case Binary(op, left, right):
            return _arithmetic(op, left, right, space, local)
        case _:
            assert_never(expr)


def _arithmetic(op: str, left: Expr, right: Expr, space: Space, local: isl.LocalSpace) -> isl.PwAff:
    if op == "*" and isinstance(left, Const):
        left, right = right, left
    a = affine(left, space, local)
    match op, right:
        case "*", Const(value):
            return a.scale_val(isl.Val(value))
        case "//", Const(value):
            return a.scale_down_val(isl.Val(value)).floor()
        case "%", Const(value):
            return a.mod_val(isl.Val(value))
        case (("*" | "//" | "%" | "&" | "|" | "^" | ">>"), _):
            raise UndecidedError(f"`{op}` of two things that both vary")
        case _:
            pass
    b = affine(right, space, local)
    match op:
        case "+":
            return a.add(b)
        case "-":
            return a.sub(b)
        case "min":
            return a.min(b)
        case "max":
            return a.max(b)
        case _:
            raise AssertionError(op)


# Each different floor is one more dimension to isl, and each choice doubles the cases of a sum: beyond these its
# operations get slow in a way that counting them does not bound.
LIMITS: tuple[tuple[tuple[Op, ...], int, str], ...] = (
    (("//", "%"), 12, "divisions"),
    (("min", "max"), 8, "minima and maxima"),
)
# The least common multiple of all divisors is the period isl reasons about.
MOST_DIVISOR_BITS = 64


def pairs(formula: Formula, space: Space, unknown: bool | None = None, padded: bool = False) -> isl.Set:
    """The (query, key) pairs of a formula.

    What isl cannot hold raises UndecidedError, or counts as `unknown` when given: True for what may hold, False for
    what must.
    """
    for ops, most, what in LIMITS:
        if len(operations(formula, ops)) > most:
            raise UndecidedError(f"more than {most} different {what}")
    divisors = {e.right for e in operations(formula, ("//", "%")) if isinstance(e, Binary)}
    if sum(d.value.bit_length() for d in divisors if isinstance(d, Const)) > MOST_DIVISOR_BITS:
        raise UndecidedError("divisors too large together")
    return _pairs(formula, space, space.local(), unknown).intersect(space.domain(padded)).coalesce()


def _pairs(formula: Formula, space: Space, local: isl.LocalSpace, unknown: bool | None) -> isl.Set:
    universe = isl.Set.universe(local.get_space())
    match formula:
        case Truth(value):
            return universe if value else isl.Set.empty(local.get_space())
        case And(items):
            out = _pairs(items[0], space, local, unknown)
            for item in items[1:]:
                out = out.intersect(_pairs(item, space, local, unknown))
            return out
        case Or(items):
            out = _pairs(items[0], space, local, unknown)
            for item in items[1:]:
                out = out.union(_pairs(item, space, local, unknown))
            return out.coalesce()
        case Not(item):
            flipped = None if unknown is None else not unknown
            return universe.subtract(_pairs(item, space, local, flipped))
        case Compare() | InPowers():
            try:
                return _atom(formula, space, local)
            except UndecidedError:
                if unknown is None:
                    raise
                if unknown:
                    return universe
                # Both sides read the same element where q and k are the same token: doc[q] == doc[k].
                return _atom(DIAGONAL, space, local) if holds_on_diagonal(formula) else isl.Set.empty(local.get_space())
        case _:
            assert_never(formula)


DIAGONAL = Compare("==", Var("q"), Var("k"))
COMPARISONS = {
    "<": isl.PwAff.lt_set,
    "<=": isl.PwAff.le_set,
    ">": isl.PwAff.gt_set,
    ">=": isl.PwAff.ge_set,
    "==": isl.PwAff.eq_set,
    "!=": isl.PwAff.ne_set,
}


def _atom(formula: Compare | InPowers, space: Space, local: isl.LocalSpace) -> isl.Set:
    match formula:
        case InPowers(Binary("^", left, right), 2):
            top = max(interval(left, space.shape.boxes(), {}).high, interval(right, space.shape.boxes(), {}).high)
            return _pairs(differ_in_one_bit(left, right, top), space, local, None)
        case InPowers(value, base):
            bounds = interval(value, space.shape.boxes(), {})
            members = tuple(Compare("==", value, Const(p)) for p in powers(base, max(1, bounds.high)))
            return _pairs(Or(members), space, local, None)
        case Compare(op, left, right):
            a, b = affine(left, space, local), affine(right, space, local)
            return COMPARISONS[op](a, b)
        case _:
            assert_never(formula)


@dataclass(frozen=True, slots=True)
class Tiles:
    """Tiles of a relation, as isl sets over [i, j]: rows that exist decide, keys past the end are holes."""

    touched: isl.Set
    full: isl.Set

    @property
    def partial(self) -> isl.Set:
        """Touched, but not every pair is in."""
        return self.touched.subtract(self.full).coalesce()


def to_tiles(space: Space, block_m: int, block_n: int) -> isl.Map:
    """The map from (query, key) to (query tile, key tile)."""
    row = "q" if space.shape.square else "q - off"
    return isl.Map(space.text(f"[q, k] -> [i, j] : i = floor(({row}) / {block_m}) and j = floor(k / {block_n})"))


def tiles(may: isl.Set, must: isl.Set, space: Space, block_m: int, block_n: int) -> Tiles:
    """Classify tiles: touched by a pair that may be in, full when every pair must be in."""
    classify = to_tiles(space, block_m, block_n)
    touched = may.apply(classify).coalesce()
    # Keys past the end are holes, so a full tile never needs a bounds check; rows past the end count as
    # rows, so that a ragged last tile is not a special case of its own.
    everywhere = isl.Set(space.text(f"[q, k] : {space.first_query} <= q and 0 <= k and {space.context()}"))
    holes = everywhere.subtract(must).apply(classify)
    return Tiles(touched, touched.subtract(holes).coalesce())


def schedules(tile_set: isl.Set, space: Space, block_m: int) -> list[isl.AstNode]:
    """isl's loops over key tiles `j` for each disjoint piece of a tile set, with `i` a parameter."""
    position = len(space.parameters)
    keys = tile_set.move_dims(isl.dim_type.param, position, isl.dim_type.set, 0, 1)
    keys = keys.set_dim_name(isl.dim_type.param, position, "i").coalesce()
    if keys.n_basic_set() > 1:
        keys = keys.make_disjoint().coalesce()
    symbols = ", ".join((*space.parameters, "i"))
    context = isl.Set(f"[{symbols}] -> {{ : {space.context()} and i >= 0 and {block_m} i < n - {space.first_query} }}")
    build = isl.AstBuild.from_context(context)
    nodes: list[isl.AstNode] = []
    for piece in keys.get_basic_sets():
        domain = isl.Set.from_basic_set(piece)
        identity = isl.Map.identity(domain.get_space().map_from_set()).intersect_domain(domain)
        nodes.append(build.node_from_schedule_map(isl.UnionMap.from_map(identity)))
    return nodes


def holding(formula: Formula, space: Space) -> isl.Set:
    """Where a formula holds, whatever its two variables `q` and `k` number; raises UndecidedError."""
    return _pairs(formula, space, space.local(), None)


def pieces(tile_set: isl.Set) -> list[isl.Set]:
    """Disjoint convex pieces of a set."""
    if tile_set.is_empty():
        return []
    disjoint = tile_set.make_disjoint().coalesce() if tile_set.n_basic_set() > 1 else tile_set
    return [isl.Set.from_basic_set(piece) for piece in disjoint.get_basic_sets()]


def tokens(tile_set: isl.Set, space: Space, block_m: int, block_n: int) -> isl.Set:
    """The (query, key) pairs of some tiles, keys past the end included, rows that exist only."""
    rows = isl.Set(space.text(f"[q, k] : {space.first_query} <= q < n and 0 <= k and {space.context()}"))
    return tile_set.apply(to_tiles(space, block_m, block_n).reverse()).intersect(rows)


def simplify(formula: Formula, where: isl.Set, space: Space) -> Formula:
    """The formula without what cannot fail, or cannot hold, on the pairs of `where`."""
    return _simplify(formula, where, space, space.local())


def _simplify(formula: Formula, where: isl.Set, space: Space, local: isl.LocalSpace) -> Formula:
    match formula:
        case Truth():
            return formula
        case Compare() | InPowers():
            try:
                holds = _atom(formula, space, local)
            except UndecidedError:
                return formula
            if where.is_subset(holds):
                return Truth(True)
            return Truth(False) if where.is_disjoint(holds) else formula
        case Not(item):
            inner = _simplify(item, where, space, local)
            return Truth(not inner.value) if isinstance(inner, Truth) else Not(inner)
        case And(items) | Or(items):
            return _simplify_items(items, isinstance(formula, And), where, space, local)
        case _:
            assert_never(formula)


def _simplify_items(
    items: tuple[Formula, ...], both: bool, where: isl.Set, space: Space, local: isl.LocalSpace
) -> Formula:
    """Each item where its kept siblings leave it a say: inside them for `and`, outside them for `or`."""
    kept = list(items)
    for position in range(len(kept)):
        scope = where
        for other, sibling in enumerate(kept):
            if other == position:
                continue
            # Unknown parts must not narrow the scope: take what may hold for `and`, what must for `or`.
            region = _pairs(sibling, space, local, both)
            scope = scope.intersect(region) if both else scope.subtract(region)
        kept[position] = _simplify(kept[position], scope, space, local)
    return (conjunction if both else disjunction)(tuple(kept))


def holds_somewhere(formula: Formula, space: Space) -> bool:
    """Whether some pair may satisfy a formula, for some length."""
    return not pairs(formula, space, unknown=True).is_empty()


def row_without_keys(formula: Formula, space: Space) -> tuple[int, int] | None:
    """A length and a query that surely-kept pairs leave without a key, shortest first; None when all rows have one."""
    kept = pairs(formula, space, unknown=False).project_out(isl.dim_type.set, 1, 1)
    rows = space.domain().project_out(isl.dim_type.set, 1, 1)
    empty = rows.subtract(kept)
    if empty.is_empty():
        return None
    symbols = len(space.parameters)
    flat = empty.move_dims(isl.dim_type.set, 0, isl.dim_type.param, 0, symbols)
    point = flat.lexmin().sample_point()
    return (
        point.get_coordinate_val(isl.dim_type.set, 0).to_python(),
        point.get_coordinate_val(isl.dim_type.set, symbols).to_python(),
    )


# Operations isl may spend on counting one head's pairs: about a quarter of a second.
COUNT_BUDGET = 3_000_000


def count_pairs(formula: Formula, space: Space, values: Mapping[str, int]) -> int | None:
    """How many pairs satisfy a formula for one value of each parameter; None beyond the budget."""
    try:
        with budget(COUNT_BUDGET):
            found = pairs(formula, space)
            for position, name in enumerate(space.parameters):
                found = found.fix_val(isl.dim_type.param, position, isl.Val(values[name]))
            flat = found.project_out(isl.dim_type.param, 0, len(space.parameters)).coalesce()
            # Out of operations, islpy gives a value without a text here, not an error.
            text = cast("str | None", flat.count_val().to_str())
            return None if text is None else int(text)
    except UndecidedError:
        return None
