"""Which cells a dynamic pattern chooses: its scores, chunk by chunk of queries, and its rules."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import assert_never

import torch

from ..compiler import ir
from ..compiler.lower_term import free
from ..compiler.selection import Choice, Chosen, Number, Term, Threshold
from .candidates import possible
from .lanes import lanes, widest
from .map_sizes import footprint
from .named import Value
from .rank import WIDEST, rank_rows, ranks
from .rules import choose, meets
from .score_call import Call, by_heads, condition
from .scores import evaluate
from .select_tiles import Band
from .views import Domain

# Bytes of a map of scores that no kernel goes through in pieces: each piece costs the host about a millisecond.
MAP_BYTES = 1 << 28
# What ranking holds is so many pieces.
RANKED = 2
# Bytes that ranking takes for each cell: where it sorts, most of them are for places.
SORT_BYTES, RANK_BYTES = 24, 8
# Chunks begin at cells that coarser cells are likely to begin with.
ALIGNED = 16


# Terms that are known for the cells at hand.
Known = Mapping[Term, Value]
NOTHING: Known = {}


def map_bytes() -> int:
    """Bytes of one map of scores: maps come in pieces of as much."""
    return MAP_BYTES


def chosen_cells(choice: Choice, call: Call, band: Band) -> torch.Tensor:
    """What a choice keeps for some queries, [B, H, query cells, key cells]; by key/value head where the heads of each
    group agree, and with one head where all do.

    One row of query cells where the choice is the same for all queries, one column likewise.
    """
    if not choice.query:
        return _by_heads(keep(choice, call, Domain(0, 1, call.n)), call)
    whole = call.domain(choice.query)
    first, end = band.first // whole.size, -(-band.end // whole.size)
    there = whole if _joint(choice) else whole.part(max(first, whole.start), end - max(first, whole.start))
    found = _by_heads(keep(choice, call, there), call)
    found = found[:, :, max(first, there.start) - there.start :][:, :, : end - max(first, there.start)]
    return torch.nn.functional.pad(found, (0, 0, max(0, there.start - first), 0)) if there.start > first else found


def _by_heads(found: torch.Tensor, call: Call) -> torch.Tensor:
    groups = 1 if found.shape[1] == found.shape[2] == 1 else call.q.shape[1]
    return found.expand(call.q.shape[0], groups, *found.shape[2:]).flatten(1, 2)


def _joint(choice: Choice) -> bool:
    return isinstance(choice, Chosen) and choice.joint


def keep(choice: Choice, call: Call, cells: Domain) -> torch.Tensor:
    """What a choice keeps for some cells of queries, [B, G or 1, heads of the group or 1, query cells, key cells]."""
    parts = chunks(choice, call, cells)
    if len(parts) == 1:
        return _choice(choice, replace(call, recent={}), cells, {})
    once = _once(choice, replace(call, recent={}), cells)
    out: torch.Tensor | None = None
    for part in parts:
        mine = {side: _narrowed(value, choice.query, part, cells) for side, value in once.items()}
        kept = _choice(choice, replace(call, recent={}), part, mine)
        if out is None:
            out = kept.new_empty((*kept.shape[:3], cells.count, kept.shape[4]))
        out[:, :, :, part.start - cells.start :][:, :, :, : part.count] = kept
    assert out is not None
    return out


def _once(choice: Choice, call: Call, cells: Domain) -> dict[Term, Value]:
    """The sides of a threshold that are a number for each query: pieces of those would be too small."""
    if not isinstance(choice, Threshold):
        return {}
    sides = (side for side in (choice.left, choice.right) if choice.key not in free(side))
    return {side: evaluate(side, call, _query(choice, cells)) for side in sides}


def _narrowed(value: Value, query: str | None, part: Domain, whole: Domain) -> Value:
    if query not in value.axes:
        return value
    place = 3 + value.axes.index(query)
    return replace(value, tensor=value.tensor.narrow(place, part.start - whole.start, part.count))


def chunks(choice: Choice, call: Call, cells: Domain) -> list[Domain]:
    """Query cells to do at once, so that neither scores nor ranking take much memory."""
    key = ("chunks", choice, cells)
    if key not in call.memory:
        call.memory[key] = _chunks(choice, call, cells)
    return call.memory[key]


def _chunks(choice: Choice, call: Call, cells: Domain) -> list[Domain]:
    keys = call.domain(choice.key).count if choice.key else 1
    heads, joint = lanes(choice, call), _joint(choice)
    sorts = not call.q.is_cuda or keys > WIDEST
    room = RANKED * call.piece_bytes
    fit = room // (heads * keys * (SORT_BYTES if sorts else RANK_BYTES))
    count = cells.count if joint else max(1, min(cells.count, fit))
    sides = (choice.by,) if isinstance(choice, Chosen) else (choice.left, choice.right)

    def needs(count: int) -> int:
        names = _names(choice, call, cells.part(cells.start + cells.count - count, count))
        return max(widest(side, call) * footprint(side, call, names) for side in sides) * call.exact.itemsize

    # What all queries share is as large for fewer of them.
    while count > 1 and not joint and call.map_bytes < needs(count) > needs(count // 2):
        count //= 2
    if ALIGNED < count < cells.count:
        count -= count % ALIGNED
    end = cells.start + cells.count
    return [cells.part(first, min(count, end - first)) for first in range(cells.start, end, count)]


def _query(choice: Choice, cells: Domain) -> dict[str, Domain]:
    return {choice.query: cells} if choice.query else {}


def _names(choice: Choice, call: Call, cells: Domain) -> dict[str, Domain]:
    return _query(choice, cells) | ({choice.key: call.domain(choice.key)} if choice.key else {})


def _value(
    term: Term, call: Call, axes: Sequence[str | None], names: Mapping[str, Domain], known: Known = NOTHING
) -> torch.Tensor:
    """A number for each of the cells, [B or 1, G or 1, heads of the group or 1, query cells, key cells]; 1 for None."""
    named = [axis for axis in axes if axis]
    found = known[term] if term in known else evaluate(term, call, {axis: names[axis] for axis in named})
    x = found.over(named)
    for place, axis in enumerate(axes):
        x = x if axis else x.unsqueeze(3 + place)
    return x


def _met(threshold: Threshold, call: Call, names: Mapping[str, Domain], known: Known = NOTHING) -> torch.Tensor:
    axes = (threshold.query, threshold.key)
    a, b = (_value(side, call, axes, names, known) for side in (threshold.left, threshold.right))
    return meets(threshold, a, b)


def _choice(choice: Choice, call: Call, cells: Domain, known: Known) -> torch.Tensor:
    names = _names(choice, call, cells)
    candidates = possible(choice, call, cells)
    match choice:
        case Threshold():
            kept = candidates & _met(choice, call, names, known)
        case Chosen():
            kept = _chosen(choice, call, names, candidates, cells)
        case _:
            assert_never(choice)
    for threshold in choice.when:
        kept = kept & _met(replace(threshold, key=None, query=choice.query), call, names)
    return kept


def _chosen(
    choice: Chosen, call: Call, names: Mapping[str, Domain], candidates: torch.Tensor, cells: Domain
) -> torch.Tensor:
    axes = tuple(axis for axis in (choice.query, choice.key) if axis)

    def where(formula: ir.Formula) -> torch.Tensor:
        met = by_heads(condition(formula, call, names, axes), len(axes))
        return met if choice.query else met.unsqueeze(3)

    if choice.inside is not None:
        candidates = candidates & _coarser(choice, choice.inside, call, cells)
    if choice.among is not None:
        candidates = candidates & where(choice.among)
    score = _value(choice.by, call, (choice.query, choice.key), names)
    forced = None if choice.counting is None else where(choice.counting) & candidates
    amounts = None
    if not isinstance(choice.amount, Number):
        amounts = _value(choice.amount, call, (choice.query, None), names)
    return _ranked(choice, score, candidates, forced, amounts, RANKED * call.piece_bytes)


def _coarser(choice: Chosen, inside: Chosen, call: Call, cells: Domain) -> torch.Tensor:
    """The cells that lie in those that another choice keeps, for some cells of queries."""
    size = inside.query and call.domain(inside.query).size
    around = Domain(0, 1, call.n)
    if size:
        first, end = cells.start * cells.size // size, -(-(cells.start + cells.count) * cells.size // size)
        whole = call.domain(str(inside.query))
        around = whole.part(first, min(end, whole.start + whole.count) - first)
    kept = keep(inside, call, around)
    if size:
        rows = torch.arange(cells.start, cells.start + cells.count, device=kept.device) * cells.size // size
        kept = kept.index_select(3, rows - around.start)
    fine, coarse = call.domain(choice.key), call.domain(inside.key)
    return kept.index_select(4, torch.arange(fine.count, device=kept.device) * fine.size // coarse.size)


def _ranked(
    choice: Chosen,
    score: torch.Tensor,
    candidates: torch.Tensor,
    forced: torch.Tensor | None,
    amounts: torch.Tensor | None,
    room: int,
) -> torch.Tensor:
    """What a rule keeps; as many heads at once as there is room for where it sorts."""
    shape = torch.broadcast_shapes(*(x.shape for x in (score, candidates, forced, amounts) if x is not None))
    if not choice.joint and ranks(score.expand(shape)):
        return rank_rows(choice, score, candidates, forced, amounts)
    forced = torch.zeros_like(candidates) if forced is None else forced
    score, candidates, forced = (x.expand(shape).flatten(0, 2) for x in (score, candidates, forced))
    if amounts is not None:
        amounts = amounts.expand(*shape[:4], 1).flatten(0, 2)
    if choice.joint:
        score, candidates, forced = (x.flatten(1)[:, None] for x in (score, candidates, forced))
        amounts = None if amounts is None else amounts[:, :1]
    if ranks(score):
        return rank_rows(choice, score, candidates, forced, amounts).view(shape)
    step = max(1, room // (SORT_BYTES * score[0].numel() or 1))
    parts: list[torch.Tensor] = []
    for first in range(0, len(score), step):
        part = slice(first, first + step)
        amount = None if amounts is None else amounts[part]
        parts.append(choose(choice, score[part], candidates[part], forced[part], amounts=amount))
    return (torch.cat(parts) if len(parts) > 1 else parts[0]).view(shape)
