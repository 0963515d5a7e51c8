"""One batch element of a call, for the dense definition: its rows, its axes' cells, and names with their integers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import assert_never

import torch

from ..compiler.plan import Shape
from ..compiler.selection import Axis, Below, Binder, Chosen, Heads, Inside, Last, Program, Whole
from ..compiler.tables import table_values

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Call:
    """Rows `[H, tokens, D]` of the queries' tokens (zeros before the first) and of all keys, and what is known."""

    program: Program
    rows: Tensors
    first: Mapping[str, int]
    m: int
    scale: float
    axes: Mapping[str, Axis]
    tables: Tensors
    group: int
    # How many cells a rule chooses, [H, query cells].
    count: Callable[[Chosen, "Call"], torch.Tensor]
    # Inputs and scores by name, [H or 1, cells .., D or 1]: scores when they are first read.
    known: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])
    # Orders by name, when they are first read: the token at each place, [H, n].
    tokens: dict[str, torch.Tensor] = field(default_factory=dict[str, torch.Tensor])

    @property
    def n(self) -> int:
        """How many key tokens there are."""
        return self.rows["K"].shape[1]

    @property
    def heads(self) -> int:
        """How many query heads there are."""
        return self.rows["K"].shape[0]

    def arange(self, first: int, last: int) -> torch.Tensor:
        """first .. last - 1."""
        return torch.arange(first, last, device=self.rows["K"].device)

    def cells(self, axis: Axis) -> torch.Tensor:
        """The numbers of an axis' cells, counted from token 0."""
        if axis.side == "":
            return self.arange(0, axis.count)
        if axis.last:
            return self.arange(max(self.first[axis.side], self.n - axis.last), self.n)
        return self.arange(0, -(-self.n // axis.size))

    def exists(self, axis: Axis, steps: torch.Tensor) -> torch.Tensor:
        """Which numbers are cells of an axis with a token at least."""
        if axis.side == "":
            return (steps >= 0) & (steps < axis.count)
        first = max(self.first.get(axis.side, 0), self.n - axis.last if axis.last else 0)
        return (steps * axis.size < self.n) & ((steps + 1) * axis.size > first)


@dataclass(frozen=True, slots=True)
class Scope:
    """Names with their integers over `places` places, what each counts, and how a binder bound it."""

    places: int = 0
    names: Tensors = field(default_factory=dict[str, torch.Tensor])
    axes: Mapping[str, Axis] = field(default_factory=dict[str, Axis])
    binders: Mapping[str, Binder] = field(default_factory=dict[str, Binder])


def call_of(
    program: Program,
    b: int,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    givens: Tensors,
    dtype: torch.dtype,
    count: Callable[[Chosen, Call], torch.Tensor],
) -> Call:
    """One batch element of q `[B, H, m, D]`, k and v `[B, G, n, D]`."""
    heads, m = q.shape[1:3]
    groups, n = k.shape[1:3]
    assert 0 < m <= n and heads % groups == 0
    group = heads // groups
    rows = {"Q": torch.nn.functional.pad(q[b].to(dtype), (0, 0, n - m, 0))}
    rows |= {name: x[b].to(dtype).repeat_interleave(group, 0) for name, x in (("K", k), ("V", v))}
    # An order's places are no numbers of the caller's.
    given = [t for t in program.limits.tables if all(t.name != order.name for order in program.orders)]
    ints = {
        t.source: (givens[t.source][b] if givens[t.source].ndim == 2 else givens[t.source]).cpu().long().numpy()
        for t in given
        if t.source
    }
    shape = Shape(m == n, heads, groups)
    tables = {t.name: torch.as_tensor(table_values(t, ints, n, m, shape)).to(q.device) for t in given}
    axes = {x.name: x for x in (Axis("q", "q", 1), Axis("k", "k", 1), *program.axes)}
    call = Call(program, rows, {"q": n - m, "k": 0}, m, scale, axes, tables, group, count)
    for each in program.givens:
        x = givens[each.name]
        x = x[min(b, len(x) - 1)].to(dtype)
        call.known[each.name] = x if each.vector else x[..., None]
    return call


def along(name: str, scope: Scope, call: Call) -> tuple[Scope, torch.Tensor]:
    """One more place, along which a name runs through its whole axis, or through what its binder bound it to."""
    if name in call.axes:
        return grown(scope, call.axes[name], call.cells(call.axes[name]), call)
    return bound(scope.binders[name], scope, call)


def bound(binder: Binder, scope: Scope, call: Call) -> tuple[Scope, torch.Tensor]:
    """One more place for a binder's name, and where what it runs through exists."""
    scope = replace(scope, binders={**scope.binders, binder.name: binder})
    match binder:
        case Below(name, count):
            axis = Axis(name, "", 1, count=count)
        case Last(name, side, count):
            axis = Axis(name, side, 1, last=count)
        case Whole(name):
            axis = call.axes[name]
        case Inside(name, outer, size):
            around = scope.axes[outer]
            ratio = around.size // size
            steps = scope.names[outer][..., None] * ratio + call.arange(0, ratio)
            return grown(scope, replace(around, name=name, size=size), steps, call)
        case Heads():
            raise AssertionError(f"{binder} runs through no cells")
        case _:
            assert_never(binder)
    return grown(scope, axis, call.cells(axis), call)


def grown(scope: Scope, axis: Axis, steps: torch.Tensor, call: Call) -> tuple[Scope, torch.Tensor]:
    """A scope with one more place along which a name takes these values, and where those are cells that exist."""
    places = scope.places + 1
    steps = spread(steps, places)
    names = {name: values[..., None] for name, values in scope.names.items()}
    inner = Scope(places, {**names, axis.name: steps}, {**scope.axes, axis.name: axis}, scope.binders)
    return inner, call.exists(axis, steps)


def spread(x: torch.Tensor, places: int) -> torch.Tensor:
    """A tensor over the last of so many places."""
    return x.view(*[1] * (places - x.ndim), *x.shape)
