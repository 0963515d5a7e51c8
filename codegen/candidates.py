"""Which cells a rule may choose: those with a pair that the conditions on all pairs admit."""

import math

import torch

from ..compiler import ir
from ..compiler.ir import Mask
from ..compiler.selection import Axis, Choice
from ..compiler.walk import rewrite, substitute
from ..compiler.walk import variables as names_of
from .lanes import HEAD, of_formula
from .score_call import Call, by_heads, condition
from .views import Domain, affine

# Single distances up to which all tiles of one pair are looked at.
FEW = 2048
# Cells of a map of candidates that is worth remembering; larger ones are made anew for the queries at hand.
LARGE = 1 << 24
# Queries that distances are looked for at once.
PROBED = 64


def possible(choice: Choice, call: Call, cells: Domain) -> torch.Tensor:
    """The candidates for some cells of queries, [B or 1, G or 1, heads of the group or 1, query cells, key cells]."""
    query = cells.size
    key = call.axis(choice.key) if choice.key else Axis("", "k", call.n)
    assert key is not None
    if key.order:
        return _of_places(key, call, cells)
    required = requirement(call)
    if key.side == "d":
        found = _of_distances(query, key.size, call)
    elif -(-call.n // query) * -(-call.n // key.size) > LARGE and _earliest_by_latest(required, call):
        # If any pair is admissible, that of the last query and the first key is.
        last = ((call.positions[cells.start : cells.start + cells.count, None] + 1) * query).clamp(max=call.n) - 1
        first = call.positions[: -(-call.n // key.size)] * key.size
        return by_heads(condition(required, call, {}, ("q", "k"), {"q": last, "k": first}), 2)
    else:
        found = call.tiles(query, key.size)
    return _by_group(found[:, cells.start : cells.start + cells.count], call)


def _by_group(found: torch.Tensor, call: Call) -> torch.Tensor:
    """[H or 1, ..] with groups and the heads of each, of which one stands for all that agree."""
    if len(found) == 1:
        return found[None, None]
    found = found.unflatten(0, call.q.shape[1:3])[None]
    return found if of_formula(requirement(call)) == HEAD else found[:, :, :1]


def _of_distances(query: int, size: int, call: Call) -> torch.Tensor:
    """[H or 1, query cells, distances], remembered as far as no input takes part."""
    key = ("distances", query, size)
    if key not in call.memory:
        few = size > 1 or call.n <= FEW
        call.memory[key] = _from_tiles(query, size, call) if few else _from_pairs(query, call)
    return call.memory[key]


def _from_tiles(query: int, size: int, call: Call) -> torch.Tensor:
    row = size if query >= call.n or query % size == 0 else math.gcd(query, size)
    touched = call.tiles(row, size)
    rows, columns = touched.shape[1:]
    first = torch.arange(rows, device=touched.device) * row // size
    column = first[:, None] - torch.arange(columns, device=touched.device)
    found = touched.gather(2, column.clamp(min=0).expand(len(touched), -1, -1)) & (column >= 0)
    ratio = rows if query >= call.n else query // row
    found = torch.nn.functional.pad(found, (0, 0, 0, -rows % ratio))
    return found.unflatten(1, (-1, ratio)).any(2)


def _from_pairs(query: int, call: Call) -> torch.Tensor:
    """Distances of single tokens: those of a cell's last query, or from the last queries on, until all are found."""
    required = requirement(call)
    found: list[torch.Tensor] = []
    size = min(query, call.n)
    apart = ir.Binary("-", ir.Var("q"), ir.Var("d"))
    if _moves(rewrite(required, lambda expr: substitute(expr, "k", apart)), "q", 1, call):
        ends = call.positions[: -(-call.n // size)] * size + size
        for last in (ends.clamp(max=call.n) - 1).split(PROBED):
            q, k = last[:, None], last[:, None] - call.positions
            met = by_heads(condition(required, call, {}, ("q", "k"), {"q": q, "k": k}), 2)
            found.append((met & (k >= 0) & (q >= call.n - call.m)).flatten(0, 2))
        return torch.cat(found, 1)
    for first in range(0, call.n, size):
        end = min(first + size, call.n)
        any_of = torch.zeros(call.heads, call.n, dtype=torch.bool, device=call.q.device)
        for start in range(end - 1, max(first, call.n - call.m) - 1, -PROBED):
            q = call.positions[max(first, call.n - call.m, start - PROBED + 1) : start + 1, None]
            k = q - call.positions
            met = by_heads(condition(required, call, {}, ("q", "k"), {"q": q, "k": k}), 2)
            met = (met & (k >= 0)).any(3).expand(-1, *call.q.shape[1:3], -1)
            any_of |= met.flatten(0, 2)
            if bool(any_of[:, :end].all()):
                break
        found.append(any_of)
    return torch.stack(found, 1)


def requirement(call: Call) -> ir.Formula:
    """What every pair must meet; a drop takes pairs away from what is kept, not cells from what is ranked."""
    required = tuple(clause for clause in call.program.limits.clauses if clause.kind == "require")
    return Mask("", required).formula


def _of_places(key: Axis, call: Call, cells: Domain) -> torch.Tensor:
    """Cells of places in which some key is admissible by its own position."""
    required = requirement(call)
    key_of = call.orders[key.order].key_of.long()
    first = torch.arange(cells.start, cells.start + cells.count, device=call.q.device)[:, None] * cells.size
    last = (first + cells.size).clamp(max=call.n) - 1
    places = torch.nn.functional.pad(key_of, (0, -call.n % key.size), value=call.n).unflatten(-1, (-1, key.size))
    if _earliest_by_latest(required, call):
        # The last query may see whatever a cell's first key shows.
        earliest = places.amin(-1)[..., None, :]
        return by_heads(condition(required, call, {}, ("q", "k"), {"q": last, "k": earliest}), 2)
    first = first.clamp(min=call.n - call.m)
    found: torch.Tensor | None = None
    for step in range(1 if _moves(required, "q", 1, call) else min(cells.size, call.n)):
        q = last - step
        met = condition(required, call, {}, ("q", "k"), {"q": q, "k": call.positions})
        met = by_heads(met, 2) & (q >= first)
        found = met if found is None else found | met
    assert found is not None
    shape = (len(key_of), *call.q.shape[1:3], cells.count, call.n)
    found = found.expand(shape).gather(-1, key_of[..., None, :].expand(shape))
    return torch.nn.functional.pad(found, (0, -call.n % key.size)).unflatten(-1, (-1, key.size)).any(-1)


def _earliest_by_latest(required: ir.Formula, call: Call) -> bool:
    """Whether a later query may see what an earlier one does, and any query an earlier key."""
    return _moves(required, "q", 1, call) and _moves(required, "k", -1, call)


def _moves(formula: ir.Formula, name: str, way: int, call: Call) -> bool:
    """Whether a formula that holds goes on to hold as a name rises (`way` 1) or falls (-1)."""
    match formula:
        case ir.Truth():
            return True
        case ir.And(items) | ir.Or(items):
            return all(_moves(item, name, way, call) for item in items)
        case ir.Compare("<" | "<=" | ">" | ">=" as op, left, right) if name in names_of(formula):
            steps = affine(ir.Binary("-", left, right), {"n": call.n, "m": call.m})
            return steps is not None and steps.get(name, 0) * way * (1 if op in (">", ">=") else -1) >= 0
        case _:
            return name not in names_of(formula)
