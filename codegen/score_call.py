"""One call of a dynamic pattern: its tensors, the cells of its axes, and conditions over cells."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from ..compiler import ir
from ..compiler.evaluate import number, truth
from ..compiler.intervals import Interval
from ..compiler.selection import Axis, Below, Binder, Choice, Heads, Inside, Last, Program, Whole
from ..compiler.walk import parts, reads
from ..compiler.walk import variables as names_of
from .named import Value
from .search import TORCH, tensor_on
from .views import Domain, coordinates, variables

# Pieces have this share of the bytes of K and V, or so many bytes.
SHARE = 16
LEAST_BYTES = 1 << 25

# The cells with an admissible pair, [H or 1, query cells, key cells], for tokens of a query and of a key cell.
Tiles = Callable[[int, int], torch.Tensor]
# Which cells a choice keeps, [B, G or 1, heads of the group or 1, query cells, key cells], for some cells of queries.
Chooser = Callable[[Choice, "Call", Domain], torch.Tensor]


@dataclass(frozen=True, slots=True)
class Order:
    """The key at each place and the place of each key, [B, G, heads of the group, n]."""

    key_of: torch.Tensor
    place_of: torch.Tensor


@dataclass(frozen=True, slots=True)
class Call:
    """The tensors of one call, in the evaluator's layout, and what was computed for keys alone."""

    program: Program
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float
    givens: Mapping[str, torch.Tensor]
    tables: Mapping[str, torch.Tensor]
    # Bytes of one map of scores: reductions over more come in pieces.
    map_bytes: int
    tiles: Tiles
    chooser: Chooser
    # 0, 1, .. n - 1, so that cell numbers are views.
    positions: torch.Tensor
    kept: dict[object, Value] = field(default_factory=dict[object, Value])
    # Scores of the queries at hand: a score read twice is made once.
    recent: dict[object, Value] = field(default_factory=dict[object, Value])
    orders: dict[str, Order] = field(default_factory=dict[str, Order])
    # What calls of this shape share: how reductions were cut into pieces, candidates that no input decides.
    memory: dict[object, Any] = field(default_factory=dict[object, Any])

    @property
    def n(self) -> int:
        """Tokens of keys."""
        return self.k.shape[3]

    @property
    def m(self) -> int:
        """Queries, which are the last tokens."""
        return self.q.shape[3]

    @property
    def piece_bytes(self) -> int:
        """Bytes of what kernels go through in pieces: a share of K and V, or of the output, which is not there yet."""
        held = self.k.numel() * self.k.element_size() + self.v.numel() * self.v.element_size()
        return min(self.map_bytes, max(LEAST_BYTES, held // SHARE, self.q.numel() * self.q.element_size() // 4))

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.q.shape[1] * self.q.shape[2]

    @property
    def exact(self) -> torch.dtype:
        """What scores are computed in."""
        return torch.float64 if self.q.dtype == torch.float64 else torch.float32

    def axis(self, name: str) -> Axis | None:
        """The axis of a name, where it is one."""
        found = next((axis for axis in self.program.axes if axis.name == name), None)
        return Axis(name, name, 1) if found is None and name in ("q", "k") else found

    def domain(self, axis: str) -> Domain:
        """All cells of an axis that exist: those of queries begin where queries do."""
        found = self.axis(axis)
        assert found is not None
        if found.count:
            return Domain(0, found.count, 0)
        first = self.n - self.m if found.side == "q" else 0
        if found.last:
            first = max(first, self.n - found.last)
        first //= found.size
        return Domain(first, -(-self.n // found.size) - first, found.size, found.side, found.order)

    def inner(self, binder: Binder, names: Mapping[str, Domain]) -> Domain | None:
        """What a binder runs through, for all cells of the axis it lies inside; heads are no cells."""
        match binder:
            case Below(_, count):
                return Domain(0, count, 0)
            case Inside(_, outer, size):
                around = names[outer]
                begin = max(around.start * around.size, self.n - self.m if around.side == "q" else 0)
                first, end = begin // size, min((around.start + around.count) * around.size, self.n)
                return Domain(first, -(-end // size) - first, size, around.side, around.order, around.size // size)
            case Last(_, side, count):
                first = max(self.n - self.m if side == "q" else 0, self.n - count)
                return Domain(first, self.n - first, 1, side)
            case Whole(name):
                return self.domain(name)
            case Heads():
                return None

    def boxes(self, names: Mapping[str, Domain]) -> dict[str, Interval]:
        """The bounds of all integers."""
        out = {name: Interval(d.start, d.start + d.count - 1) for name, d in names.items()}
        out |= {name: Interval(value, value) for name, value in (("n", self.n), ("m", self.m))}
        return out | {"h": Interval(0, self.heads - 1), "g": Interval(0, self.q.shape[1] - 1)}


def _integers(names: frozenset[str], call: Call, cells: Mapping[str, Domain], axes: Sequence[str]) -> dict[str, Any]:
    placed = coordinates(cells, axes if cells else (), call.positions)
    values: dict[str, Any] = {**placed, "n": call.n, "m": call.m}
    groups, each, tail = call.q.shape[1], call.q.shape[2], [1] * len(axes)
    if "h" in names:
        values["h"] = torch.arange(groups * each, device=call.q.device).view(groups, each, *tail)
    if "g" in names:
        values["g"] = torch.arange(groups, device=call.q.device).view(groups, 1, *tail)
    return values


def condition(
    formula: ir.Formula,
    call: Call,
    names: Mapping[str, Domain],
    axes: Sequence[str],
    known: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Where a condition over cells holds, as far as it depends on `axes`, broadcasting over them from the right.

    `known` has integers in place of those of `names`.
    """
    values = {**_integers(names_of(formula), call, names if known is None else {}, axes), **(known or {})}
    tables = frozenset(read.table for read in reads(formula))
    return _each(lambda known: truth(formula, values, known, TORCH), tables, call, len(axes))


def integer(expr: ir.Expr, call: Call, names: Mapping[str, Domain], axes: Sequence[str]) -> torch.Tensor:
    """The value of an integer over cells, as `condition` has it."""
    values = _integers(frozenset(variables(expr)), call, names, axes)
    tables = frozenset(part.table for part in parts(expr) if isinstance(part, ir.Read))
    return _each(lambda known: number(expr, values, known, TORCH), tables, call, len(axes))


def _each(
    find: Callable[[Mapping[str, torch.Tensor]], object], tables: frozenset[str], call: Call, places: int
) -> torch.Tensor:
    """What is found with the tables at hand; for each batch element where orders are read."""
    read = [name for name in call.orders if name in tables]
    if not read:
        found = tensor_on(find(call.tables), call.q.device)
    else:
        flat = {name: torch.nn.functional.pad(call.orders[name].place_of, (0, 1), value=-1).flatten(1) for name in read}
        each = [{name: x[b] for name, x in flat.items()} for b in range(call.q.shape[0])]
        found = torch.stack([tensor_on(find({**call.tables, **one}), call.q.device) for one in each])
        # A batch element's answer may have no heads, or no places.
        found = found.view(len(each), *[1] * (places + 3 - found.ndim), *found.shape[1:])
    return found.view([1] * (places - found.ndim) + list(found.shape))


def by_heads(x: torch.Tensor, places: int) -> torch.Tensor:
    """What `condition` gave, with all of batch, groups and heads of a group."""
    return x.view([1] * (places + 3 - x.ndim) + list(x.shape))
