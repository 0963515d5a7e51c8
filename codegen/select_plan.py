"""Which pairs of listed tiles and of listed keys count: the formulas of the kernel that attends to chosen cells."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..compiler.ir import (
    Binary,
    Clause,
    Compare,
    Const,
    Expr,
    Formula,
    Mask,
    Not,
    Read,
    Table,
    Truth,
    Var,
    conjunction,
    disjunction,
)
from ..compiler.pipeline import make_plan
from ..compiler.plan import Plan, Region, Run, Shape, Tiling
from ..compiler.program_bounds import without_orders
from ..compiler.selection import Program
from ..compiler.walk import reads, rewrite, substitute
from .columns import Singles
from .select_tiles import Packed, Places


def loops_of(program: Program, shape: Shape, tiling: Tiling) -> Plan | None:
    """The plan of the keeps that read no places, where loops in closed form visit their tiles; else they are listed."""
    looped, _ = by_places(program.keeps, program)
    if not looped:
        return None
    limits, of_places = by_places(program.limits.clauses, program)
    mask = replace(without_orders(program), clauses=(*limits, *looped))
    plan = make_plan(mask, replace(shape, square=True), tiling)
    if plan.strategy != "run":
        return None
    # Where a key went is not known to the loops' bounds, only to their masks.
    also = Mask("", of_places).formula
    regions = tuple(
        Region(tuple(_of_band(run, tiling) for run in region.runs), conjunction((region.mask, also)))
        for region in plan.regions
    )
    return replace(plan, regions=regions)


def _of_band(run: Run, tiling: Tiling) -> Run:
    """A run of all tokens for tile i of a band, which begins with a tile."""
    tile = Binary("+", Var("i"), Binary("//", Var("off"), Const(tiling.block_m)))

    def moved(expr: Expr) -> Expr:
        return substitute(expr, "i", tile)

    return replace(run, low=moved(run.low), high=moved(run.high), guard=rewrite(run.guard, moved))


def by_places(clauses: Sequence[Clause], program: Program) -> tuple[tuple[Clause, ...], tuple[Clause, ...]]:
    """The clauses that read no places of keys, and those that do."""
    orders = {order.name for order in program.orders}
    reading = tuple(clause for clause in clauses if any(read.table in orders for read in reads(clause.formula)))
    return tuple(clause for clause in clauses if clause not in reading), reading


def listed_keeps(program: Program, loops: Plan | None) -> tuple[Clause, ...]:
    """The static keeps that no loops visit, which are listed."""
    return by_places(program.keeps, program)[1] if loops else program.keeps


def plan_of(
    program: Program,
    cells: Sequence[Packed],
    shape: Shape,
    tiling: Tiling,
    exact: bool,
    singles: Singles | None = None,
    ordered: bool = False,
    loops: Plan | None = None,
    per_head: bool = True,
) -> Plan:
    """The plan of a kernel that visits listed tiles, of places where `ordered`, for a band of queries.

    With `exact` its partial tiles look up what was kept. What is listed key by key is not in the tiles, and what
    `loops` visit is in no list of tiles or keys.
    """
    limits, order = program.limits.formula, program.orders[0].name if program.orders else ""
    columns = singles.choices if singles else ()
    tiled = disjunction(tuple(lookup(c, one, order, shape.heads) for c, one in enumerate(cells) if c not in columns))
    listed_static = listed_keeps(program, loops)
    listed = disjunction((*(clause.formula for clause in listed_static), tiled))
    looped = disjunction(tuple(clause.formula for clause in program.keeps if clause not in listed_static))
    kept = disjunction((looped, listed))
    there = Compare("<", Var("k"), Var("n"))
    alone = None
    if singles:
        looked_up = tuple(lookup(c, cells[c], order, shape.heads) for c in sorted(columns))
        chosen = Truth(True) if singles.exact else disjunction(looked_up)
        alone = conjunction((limits, *(() if kept == Truth(False) else (Not(kept),)), chosen, there))
    names = (*(_name(c) for c in range(len(cells))), *([order] if order else []))
    tables = without_orders(program).tables
    texts = [choice.text for choice in program.choices] or ["chosen"]
    clauses = (*program.limits.clauses, *program.keeps, *(Clause("keep", kept, text) for text in texts))
    mask = replace(
        program.limits, clauses=clauses, tables=(*tables, *(Table(name, "input", "none", name) for name in names))
    )
    apart = () if looped == Truth(False) else (Not(looped),)
    region = Region((), conjunction((limits, *apart, *([listed] if exact else []), there)))
    regions = (*(loops.regions if loops else ()), region)
    uniforms = loops.uniforms if loops else ()
    shape = replace(shape, square=False)
    return Plan(mask, shape, tiling, limits, "table", regions, uniforms, per_head, "", alone, ordered, True)


def _name(choice: int) -> str:
    return f"chosen {choice}"


def lookup(choice: int, cells: Packed, order: str, heads: int) -> Formula:
    """Whether a choice kept the cell of a pair."""
    key = place_of(order) if cells.kind == "p" else Var("k")
    rows, columns = cells.bits.shape[2], cells.count
    own = Binary("-", Var("q"), Var("off"))
    row, column = _cell(own, cells.query_size, rows), _cell(key, cells.key_size, columns)
    if cells.kind == "d":
        column = Binary("-", _cell(Var("q"), cells.key_size, columns), column)
    if (lane := _lane(cells, heads)) != Const(0):
        row = Binary("+", Binary("*", lane, _count("m", cells.query_size, rows)), row)
    width = _eighths(_count("n", cells.key_size, columns))
    byte = Read(_name(choice), Binary("+", Binary("*", row, width), Binary("//", column, Const(8))))
    bit = Binary("&", Binary(">>", byte, Binary("%", column, Const(8))), Const(1))
    found = Compare("==", bit, Const(1))
    return conjunction((Compare(">=", column, Const(0)), found)) if cells.kind == "d" else found


def _lane(cells: Packed, heads: int) -> Expr:
    """The row of rows of cells that a head has, which others may share."""
    each = heads // cells.bits.shape[1]
    return Const(0) if each == heads else Var("h") if each == 1 else Binary("//", Var("h"), Const(each))


def _eighths(cells: Expr) -> Expr:
    """The bytes that hold so many bits."""
    return cells if cells == Const(1) else Binary("//", Binary("+", cells, Const(7)), Const(8))


def _cell(position: Expr, size: int, count: int) -> Expr:
    """A token's cell; a single one is not worth a kernel of its own for each length."""
    if count == 1:
        return Const(0)
    return position if size == 1 else Binary("//", position, Const(size))


def _count(tokens: str, size: int, count: int) -> Expr:
    """How many cells there are of the queries at hand (m) or of all keys (n), in a kernel for all lengths."""
    if count == 1:
        return Const(1)
    return Var(tokens) if size == 1 else Binary("//", Binary("+", Var(tokens), Const(size - 1)), Const(size))


def place_of(order: str) -> Read:
    """The place of a pair's key, as clauses read it."""
    length = Binary("+", Var("n"), Const(1))
    return Read(order, Binary("+", Binary("*", Var("h"), length), Var("k")))


def lookup_tables(
    program: Program, plan: Plan, cells: Sequence[Packed], places: Places | None
) -> dict[str, torch.Tensor]:
    """The tables that a plan reads besides those of its clauses: [B, ..]."""
    masks = (*(region.mask for region in plan.regions), *([plan.columns] if plan.columns else []))
    read = {one.table for mask in masks for one in reads(mask)}
    # Of one row each, flattening makes a view with steps, which the kernel would not know of.
    out: dict[str, torch.Tensor] = {
        _name(c): one.bits.flatten(1).contiguous().view(torch.int8) for c, one in enumerate(cells) if _name(c) in read
    }
    for order in program.orders:
        if order.name in read:
            assert places is not None
            out[order.name] = torch.nn.functional.pad(places.place_of, (0, 1), value=-1).flatten(1)
    return out
