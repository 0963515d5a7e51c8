"""Maps of products of rows, and their folds, for the evaluator of scores: made by one kernel, no map in between."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch

from ..compiler.lower_term import free
from ..compiler.selection import Dot, Heads, Inside, Integer, Number, Reduce, Term
from ..compiler.terms import within
from ..compiler.walk import variables as names_of
from .cache import store
from .launch import architecture
from .map_kernel import emit
from .map_match import Match, matched
from .map_operands import Operand, mixes, paired, steps_of
from .map_parts import Kernel, Product, argument_names
from .map_sizes import inner_names
from .map_tiles import Lanes, configuration, lanes, may_hold, runs, steps, upload
from .named import Value, apply, arithmetic
from .score_call import Call
from .views import Domain, variables
from .weigh_fused import suits

Names = Mapping[str, Domain]
# The value of a term where its free names run through domains.
Evaluate = Callable[[Term, Call, Names], Value]
SIDED = ("tiles", "first", "begin", "end", "pieces", "ratio", "parts", "width")


@dataclass(frozen=True, slots=True)
class Plan:
    """A kernel for the cells at hand: how they lie in tiles, and arguments that no tensor decides."""

    kernel: Kernel
    function: Any
    parameters: tuple[str, ...]
    rows: Lanes
    columns: Lanes
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A description, what its value is called, and plans for cells that were at hand before."""

    match: Match
    title: str
    relative: "Found | None" = None
    plans: dict[object, Plan] = field(default_factory=dict[object, Plan])


def mapped(term: Term, call: Call, names: Names, evaluate: Evaluate) -> Value | None:
    """The value of a term for the cells of `names`, if one kernel computes it."""
    if not suits(call.q, call.k, call.v):
        return None
    if isinstance(term, Reduce) and term.op == "mean":
        total = mapped(replace(term, op="sum"), call, names, evaluate)
        if total is None:
            return None
        count = evaluate(Reduce("sum", term.binders, Number(1.0), term.where), call, names)
        return arithmetic("/", total, replace(count, tensor=count.tensor.clamp(min=1)))
    if isinstance(term, Dot) and not (call.q.itemsize == 2 and mixes(term, call.program)):
        return None
    names = {name: domain for name, domain in names.items() if name in free(term)}
    key = ("map", term, tuple((name, x.side, x.order, x.size, x.within) for name, x in names.items()))
    if key not in call.memory:
        call.memory[key] = _found(term, call, names)
    found: Found | None = call.memory[key]
    if found is None or not all(domain.count for domain in names.values()):
        return None
    return _computed(found, call, names, evaluate)


def _found(term: Term, call: Call, names: Names) -> Found | None:
    match = matched(term, call.program, names)
    if match is None:
        return None
    known = (f"{x.name}[{', '.join(x.axes)}]" for x in call.program.scores if x.value == term)
    title = next(known, "part of a score")
    return Found(match, title, Found(match.statistics, f"row sums of {title}") if match.weights else None)


def _computed(found: Found, call: Call, names: Names, evaluate: Evaluate) -> Value | None:
    """The value of what is described."""
    match = found.match
    loops = tuple(loop for loop in match.loops if not isinstance(loop, Heads))
    binders = tuple(side.binder for side in (match.row, match.column) if side.binder)
    known = {**names, **inner_names((*binders, *loops), call, names)}
    inner = call.domain(match.inner) if match.weights else known[match.inner]
    scope = {name: known[name] for name in (match.row.name, *(loop.name for loop in loops))} | {match.inner: inner}
    if not all(domain.count for domain in (*known.values(), *scope.values())):
        return None
    looped = tuple(loop.name for loop in loops)
    pairs = [paired(dot, (match.row.name, match.inner), looped, call, scope, evaluate) for dot in match.dots]
    made = [pair for pair in pairs if pair is not None]
    if len(made) < len(pairs):
        return None
    numbers = [_numbers(evaluate(term, call, scope), term, match, scope) for term in match.numbers]
    operands, products = [side for *sides, _ in made for side in sides], tuple(product for *_, product in made)
    if found.relative is not None:
        plan = _plan(found.relative, products, call, scope, scope)
        numbers.append(launched(plan, call, operands, numbers).over((match.row.name,)))
    return launched(_plan(found, products, call, known, scope), call, operands, numbers)


def _plan(found: Found, products: tuple[Product, ...], call: Call, known: Names, scope: Names) -> Plan:
    """The plan for these cells, made once."""
    key = (products, tuple(known.items()), tuple(scope.items()))
    if key not in found.plans:
        found.plans[key] = _planned(found, products, call, known, scope)
    return found.plans[key]


def _numbers(value: Value, term: Term, match: Match, scope: Names) -> torch.Tensor:
    """Numbers over those names that they depend on."""
    own = free(term)
    axes = tuple(name for name in (match.row.name, match.inner) if name in own)
    loops = tuple(name for name in scope if name in own and name not in axes)
    return value.over((*axes, *loops)).float()


def _planned(found: Found, products: tuple[Product, ...], call: Call, known: Names, scope: Names) -> Plan:
    """Tiles for the cells at hand, those that the condition leaves, and the kernel."""
    match = found.match
    row, column, inner = known[match.row.name], known[match.column.name], scope[match.inner]
    sides = tuple(sum(product.sizes[side] for product in products) for side in (0, 1))
    config = configuration(architecture(call.q.device), (row.count, column.count), sides, len(products))
    m, n = (
        lanes(known[side.name], known[side.outer] if isinstance(side.binder, Inside) else None, block)
        for side, block in ((match.row, config.block_m), (match.column, config.block_n))
    )
    sizes = tuple((name, domain.size) for name, domain in scope.items())
    kernel = Kernel(found.title, match, products, config, m.piece, n.piece, sizes)
    counts: dict[str, Any] = {"inner_begin": inner.start, "inner_end": inner.start + inner.count}
    for side, x in (("m", m), ("n", n)):
        counts |= {f"{name}_{side}": getattr(x, name) for name in SIDED}
    for place, loop in enumerate(kernel.loops):
        counts |= {f"loop{place}_low": scope[loop].start, f"loop{place}_high": scope[loop].start + scope[loop].count}
    left = _left(kernel, m, n, call, scope) if kernel.limited else {}
    return Plan(kernel, *_compiled(kernel), m, n, counts | left)


def _left(kernel: Kernel, m: Lanes, n: Lanes, call: Call, scope: Names) -> dict[str, Any]:
    """The tiles that the condition leaves: a map of them, or runs of columns for programs that go through these."""
    match, inner = kernel.match, scope[kernel.match.inner]
    step_m, step_n = steps(m.tiles, n.tiles)
    low, high = n.reach(n.tiles, step_n)
    ends = (inner.start, inner.start + inner.count - 1)
    low = np.clip(low * match.factor + match.shifts[0][0], *ends)
    high = np.clip(high * match.factor + match.shifts[-1][0], *ends)
    sides = {match.row.name: m.reach(m.tiles, step_m), match.inner: (low, high)}
    found = may_hold(match.where, sides, call.boxes(scope))
    if kernel.whole:
        begin, listed = upload(runs(found, step_n, n.tiles), call.q.device)
        return {"begin": begin, "runs": listed, "step_m": step_m}
    (may,) = upload((found.astype(np.int64),), call.q.device)
    return {"may": may, "may_columns": found.shape[1], "step_m": step_m, "step_n": step_n}


def launched(plan: Plan, call: Call, operands: Sequence[Operand], numbers: Sequence[torch.Tensor]) -> Value:
    """What the kernel makes of tensors: nothing twice that is the same for all heads, or for the whole batch."""
    kernel, match = plan.kernel, plan.kernel.match
    tensors = (*(operand.x for operand in operands), *numbers)
    leads = [[size if step else 1 for size, step in zip(x.shape[:3], steps_of(x)[:3], strict=True)] for x in tensors]
    batch, groups, heads = (max([1, *found]) for found in zip(*leads, strict=True)) if leads else (1, 1, 1)
    mentioned = names_of(match.where) | _mentioned(match.body)
    if "h" in mentioned or "g" in mentioned:
        groups, heads = call.q.shape[1], call.q.shape[2] if "h" in mentioned else heads
    folded = next((loop for loop in match.loops if isinstance(loop, Heads)), None)
    if folded:
        groups, heads = groups if folded.group else 1, 1
    shape = (batch, groups, heads, plan.rows.pieces, *(() if kernel.whole else (plan.columns.pieces,)))
    out = torch.empty(shape, dtype=torch.float32, device=call.q.device)
    values = {**plan.arguments, "out": out, "groups": groups, "heads": heads, "n": call.n, "m": call.m}
    values |= {"all_groups": call.q.shape[1], "each": call.q.shape[2], "scale": call.scale}
    for (title, _, loops), operand in zip(kernel.operands, operands, strict=True):
        tails = ("batch", "group", "head", "cell", "d", *["part"] * (operand.parts > 1))
        tails += tuple(str(kernel.loops.index(loop)) for loop in loops)
        values |= {title: operand.x} | {f"{title}_{x}": s for x, s in zip(tails, operand.strides(), strict=True)}
    for (title, row, column, loops), x in zip(kernel.numbers, numbers, strict=True):
        tails = ("batch", "group", "head", *["row"] * row, *["column"] * column)
        tails += tuple(str(kernel.loops.index(loop)) for loop in loops)
        values |= {title: x} | {f"{title}_{name}": s for name, s in zip(tails, steps_of(x), strict=True)}
    grid = (batch * groups * heads * plan.rows.tiles * (1 if kernel.whole else plan.columns.tiles),)
    options = {"num_warps": kernel.config.warps, "num_stages": kernel.config.stages}
    with torch.cuda.device(out.device) if out.is_cuda else nullcontext():
        plan.function[grid](*(values[name] for name in plan.parameters), **options)
    for place, lanes_of in ((3, plan.rows), (4, plan.columns)):
        if lanes_of.parts > 1 and place < out.ndim:
            out = apply(match.op, out.unflatten(place, (-1, lanes_of.parts)), place + 1)
    return Value(out, tuple(side.outer for side in (match.row, match.column) if side.outer))


@cache
def _compiled(kernel: Kernel) -> tuple[Any, tuple[str, ...]]:
    """The kernel's function, and the names of its parameters."""
    module: Any = store(emit(kernel), "fold")
    return module.fold, argument_names(kernel)


def _mentioned(body: Term) -> set[str]:
    """Names in the integers of a body."""
    return {name for term in within(body) if isinstance(term, Integer) for name in variables(term.value)}
