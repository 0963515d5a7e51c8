"""Which pairs a dynamic pattern keeps, by definition: every score and every rule, dense and plain.

Values are `[heads or 1, one place for each name in scope .., D or 1]`: a number is a row of one. A name's integers are
a tensor over the same places, so that a binder adds a place and a read looks its cells up.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

import torch

from ..compiler.evaluate import number, truth
from ..compiler.ir import Clause, Formula, Mask, Var
from ..compiler.plan import Shape
from ..compiler.selection import (
    Apply,
    Arithmetic,
    Axis,
    Below,
    Binder,
    ByHead,
    Choice,
    Chosen,
    Count,
    Dot,
    Heads,
    Inside,
    Integer,
    Last,
    Number,
    Program,
    Read,
    Reduce,
    Row,
    Scale,
    Slice,
    Softmax,
    Term,
    Threshold,
    Whole,
)
from ..compiler.tables import table_values
from .rules import choose
from .search import TORCH

Tensors = Mapping[str, torch.Tensor]

NEUTRAL = {"sum": 0.0, "mean": 0.0, "max": float("-inf"), "min": float("inf")}


@dataclass(frozen=True, slots=True)
class Call:
    """One batch element: rows `[H, tokens, D]` of the queries' tokens (zeros before the first) and of all keys."""

    rows: Tensors
    first: Mapping[str, int]
    m: int
    scale: float
    axes: Mapping[str, Axis]
    tables: Tensors
    group: int
    # Inputs and scores by name, [H or 1, cells .., D or 1].
    known: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])

    @property
    def n(self) -> int:
        """How many key tokens there are."""
        return self.rows["K"].shape[1]

    def arange(self, count: int) -> torch.Tensor:
        """0 .. count - 1."""
        return torch.arange(count, device=self.rows["K"].device)

    def cells(self, axis: Axis) -> torch.Tensor:
        """The numbers of an axis' cells, counted from token 0."""
        return self.arange(-(-self.n // axis.size))

    def truth(self, formula: Formula, names: Tensors, places: int) -> torch.Tensor:
        """A condition over names, `[H or 1, places ..]`."""
        head = self.arange(self.rows["K"].shape[0]).view(-1, *[1] * places)
        values = {"h": head, "g": head // self.group, "n": self.n, "m": self.m, **names}
        found = torch.as_tensor(truth(formula, values, self.tables, TORCH), device=head.device)
        return _spread(found, places + 1)


@dataclass(frozen=True, slots=True)
class Scope:
    """Names with their integers over `places` places, what each counts, and how a binder bound it."""

    places: int = 0
    names: Tensors = field(default_factory=dict[str, torch.Tensor])
    axes: Mapping[str, Axis] = field(default_factory=dict[str, Axis])
    binders: Mapping[str, Binder] = field(default_factory=dict[str, Binder])


def selected(
    program: Program,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    givens: Tensors,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """The kept pairs, `[B, H, m, n]`; queries are the last m of n tokens, and cells count from token 0.

    Inputs of cells are `[B or 1, H or 1, cells .., (D)]`, the integers that conditions read `[N]` or `[B, N]`.
    """
    calls = [_call(program, b, q, k, v, scale, givens, dtype) for b in range(q.shape[0])]
    return torch.stack([_kept(program, call) for call in calls])


def score_of(
    program: Program,
    name: str,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    givens: Tensors,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """The values of one score, `[B, H, cells .., (D)]`."""
    found = torch.stack([_call(program, b, q, k, v, scale, givens, dtype).known[name] for b in range(q.shape[0])])
    return found if any(s.name == name and s.vector for s in program.scores) else found[..., 0]


def _call(
    program: Program,
    b: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    givens: Tensors,
    dtype: torch.dtype,
) -> Call:
    """One batch element's tensors, with all scores computed."""
    heads, m = q.shape[1:3]
    groups, n = k.shape[1:3]
    assert 0 < m <= n and heads % groups == 0
    group = heads // groups
    rows = {"Q": torch.nn.functional.pad(q[b].to(dtype), (0, 0, n - m, 0))}
    rows |= {name: x[b].to(dtype).repeat_interleave(group, 0) for name, x in (("K", k), ("V", v))}
    shape = Shape(m == n, heads, groups)
    ints = {
        t.source: (givens[t.source][b] if givens[t.source].ndim == 2 else givens[t.source]).cpu().long().numpy()
        for t in program.limits.tables
        if t.source
    }
    tables = {t.name: torch.as_tensor(table_values(t, ints, n, m, shape)).to(q.device) for t in program.limits.tables}
    axes = {x.name: x for x in (Axis("q", "q", 1), Axis("k", "k", 1), *program.axes)}
    call = Call(rows, {"q": n - m, "k": 0}, m, scale, axes, tables, group)
    for given in program.givens:
        x = givens[given.name]
        x = x[min(b, len(x) - 1)].to(dtype)
        call.known[given.name] = x if given.vector else x[..., None]
    for score in program.scores:
        scope = Scope()
        for axis in score.axes:
            scope, _ = _along(axis, scope, call)
        x = _value(score.value, scope, call)
        sizes = [len(call.cells(axes[axis])) for axis in score.axes]
        call.known[score.name] = x.expand(heads, *sizes, x.shape[-1])
    return call


def _along(name: str, scope: Scope, call: Call) -> tuple[Scope, torch.Tensor]:
    """One more place, along which a name runs through its whole axis, or through what its binder bound it to."""
    if name in call.axes:
        return _grown(scope, call.axes[name], call.cells(call.axes[name]), call)
    return _bound(scope.binders[name], scope, call)


def _bound(binder: Binder, scope: Scope, call: Call) -> tuple[Scope, torch.Tensor]:
    """One more place for a binder's name."""
    scope = replace(scope, binders={**scope.binders, binder.name: binder})
    match binder:
        case Below(name, count):
            # As cells of key tokens they would all exist, and so they do.
            inner, there = _grown(scope, Axis(name, "k", 1), call.arange(count), call)
            return inner, torch.ones_like(there)
        case Inside(name, outer, size):
            around = scope.axes[outer]
            ratio = around.size // size
            steps = scope.names[outer][..., None] * ratio + call.arange(ratio)
            return _grown(scope, Axis(name, around.side, size), steps, call)
        case Last(name, side, count):
            first = max(call.first[side], call.n - count)
            return _grown(scope, Axis(name, side, 1), first + call.arange(call.n - first), call)
        case Whole() | Heads():
            raise NotImplementedError(binder)
        case _:
            assert_never(binder)


def _grown(scope: Scope, axis: Axis, steps: torch.Tensor, call: Call) -> tuple[Scope, torch.Tensor]:
    """A scope with one more place along which a name takes these values, and where those are cells that exist."""
    places = scope.places + 1
    steps = _spread(steps, places)
    names = {name: values[..., None] for name, values in scope.names.items()}
    inner = Scope(places, {**names, axis.name: steps}, {**scope.axes, axis.name: axis}, scope.binders)
    return inner, (steps * axis.size < call.n) & ((steps + 1) * axis.size > call.first[axis.side])


def _spread(x: torch.Tensor, places: int) -> torch.Tensor:
    return x.view(*[1] * (places - x.ndim), *x.shape)


def _value(term: Term, scope: Scope, call: Call) -> torch.Tensor:
    """`[H or 1, places .., D or 1]`, of length 1 where it depends on no name of a place."""
    match term:
        case Number(value):
            return _spread(call.rows["K"].new_tensor(value), scope.places + 2)
        case Scale():
            return _spread(call.rows["K"].new_tensor(call.scale), scope.places + 2)
        case Read(name, indices):
            x = call.known[name]
            names = (i.name for i in indices if isinstance(i, Var))
            cells = (scope.names[i].clamp(0, size - 1) for i, size in zip(names, x.shape[1:], strict=False))
            return x[(slice(None), *cells)]
        case Row(source, index):
            x = call.rows[source]
            found = number(index, {**scope.names, "n": call.n, "m": call.m}, call.tables, TORCH)
            token = _spread(torch.as_tensor(found, device=x.device), scope.places)
            there = (token >= 0) & (token < call.n)
            return torch.where(there[..., None], x[:, token.clamp(0, call.n - 1)], 0.0)
        case Arithmetic(op, left, right):
            return _arithmetic(op, _value(left, scope, call), _value(right, scope, call))
        case Apply(function, operand):
            functions = {"abs": torch.abs, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt, "negate": torch.neg}
            return functions[function](_value(operand, scope, call))
        case Dot(left, right):
            a, b = _value(left, scope, call), _value(right, scope, call)
            if a.shape[-1] != b.shape[-1]:
                raise ValueError(f"rows of {a.shape[-1]} and {b.shape[-1]} numbers are multiplied")
            return torch.einsum("...d,...d->...", a, b)[..., None]
        case Reduce():
            return _reduce(term, scope, call)
        case Softmax():
            return _softmax(term, scope, call)
        case ByHead() | Integer() | Slice() | Count():
            raise NotImplementedError(term)
        case _:
            assert_never(term)


def _arithmetic(op: str, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    match op:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return a / b
        case "min":
            return torch.minimum(a, b)
        case "max":
            return torch.maximum(a, b)
        case _:
            raise AssertionError(op)


def _reduce(term: Reduce, scope: Scope, call: Call) -> torch.Tensor:
    """Over the places of the binders, those of their items that exist."""
    there = torch.ones((), dtype=torch.bool, device=call.rows["K"].device)
    for binder in term.binders:
        scope, new = _bound(binder, scope, call)
        there = there[..., None] & new
    x = torch.where(there[..., None], _value(term.body, scope, call), NEUTRAL[term.op])
    places = tuple(range(-1 - len(term.binders), -1))
    match term.op:
        case "sum":
            return x.sum(places)
        case "mean":
            return x.sum(places) / there[..., None].sum(places).clamp(min=1)
        case "max":
            return x.amax(places)
        case "min":
            return x.amin(places)
        case "descend":
            raise NotImplementedError(term)
        case _:
            assert_never(term.op)


def _softmax(term: Softmax, scope: Scope, call: Call) -> torch.Tensor:
    """The softmax of a whole axis, read at the cell where the name is now."""
    inner, there = _along(term.along, scope, call)
    if term.where is not None:
        there = there & call.truth(term.where, inner.names, inner.places)
    x = torch.where(there, _value(term.body, inner, call)[..., 0], float("-inf"))
    weights = torch.where((x == float("-inf")).all(-1, keepdim=True), 0.0, torch.softmax(x, -1))
    steps = inner.names[term.along]
    here = (scope.names[term.along] - steps[..., 0]).clamp(0, steps.shape[-1] - 1)
    return torch.take_along_dim(weights, here[None, ..., None], -1)


def _kept(program: Program, call: Call) -> torch.Tensor:
    """`[H, m, n]`."""
    heads, (q, k) = call.rows["Q"].shape[0], (call.arange(call.n)[call.n - call.m :], call.arange(call.n))

    def pairs(clauses: tuple[Clause, ...]) -> torch.Tensor:
        found = call.truth(Mask(program.name, clauses).formula, {"q": q[:, None], "k": k}, 2)
        return found.expand(heads, call.m, call.n)

    limits = program.limits.clauses
    admissible = pairs(tuple(c for c in limits if c.kind == "require"))
    kept = pairs(program.keeps) if program.keeps or not program.choices else torch.zeros_like(admissible)
    for choice in program.choices:
        query = call.axes[choice.query] if choice.query else Axis("", "q", call.n)
        key = call.axes[choice.key] if choice.key else Axis("", "k", call.n)
        cells = _choice(choice, query, key, admissible, call)
        kept = kept | cells[:, q // query.size][:, :, k // key.size]
    return pairs(limits) & kept


def _choice(choice: Choice, query: Axis, key: Axis, admissible: torch.Tensor, call: Call) -> torch.Tensor:
    """Which cells of `key` a choice keeps for each cell of `query`, `[H, query cells, key cells]`."""
    heads, n = admissible.shape[0], call.n
    scope = Scope()
    for axis in (query, key):
        scope, _ = _grown(scope, axis, call.cells(axis), call)
    shape = (heads, len(call.cells(query)), len(call.cells(key)))

    def value(term: Term) -> torch.Tensor:
        return _value(term, scope, call)[..., 0].expand(shape)

    match choice:
        case Threshold(op, left, right):
            a, b = value(left), value(right)
            return {"<": a < b, "<=": a <= b, ">": a > b, ">=": a >= b}[op]
        case Chosen():
            met = admissible.new_zeros(heads, shape[1] * query.size, shape[2] * key.size)
            met[:, n - call.m : n, :n] = admissible
            candidates = met.view(heads, shape[1], query.size, shape[2], key.size).any(4).any(2)
            if choice.among is not None:
                candidates = candidates & call.truth(choice.among, scope.names, 2)
            forced = torch.zeros_like(candidates)
            if choice.counting is not None:
                forced = candidates & call.truth(choice.counting, scope.names, 2)
            return choose(choice, value(choice.by), candidates, forced)
        case _:
            assert_never(choice)
