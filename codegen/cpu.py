"""Block-sparse attention in torch on the CPU: only live tiles are computed, nothing grows with m times n."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..compiler.evaluate import number, truth
from ..compiler.expand import TileLists, expand_run, row_values
from ..compiler.ir import Compare, Formula, Var, conjunction
from ..compiler.plan import Plan, Tiling
from .search import TORCH

if TYPE_CHECKING:
    from .launch import Columns

# Query and key rows of a tile: large enough that a matrix product outweighs the call.
CPU_TILING = Tiling(256, 128)
# Scores held at once, over all heads: bounds the memory of one step.
SCORES_AT_ONCE = 1 << 25


@dataclass(frozen=True, slots=True)
class Softmax:
    """The running result of some rows: sum of weights, largest score, weighted values."""

    total: torch.Tensor
    peak: torch.Tensor
    mix: torch.Tensor


@dataclass(frozen=True, slots=True)
class Listed:
    """What the query tiles of one batch element visit; the rest is for each head: single keys, and keys by place.

    Without `tiles`, runs of the plan are all that is visited. `off` is the position of the first query of a band.
    """

    tiles: TileLists | None
    columns: "Columns | None" = None
    key_of: torch.Tensor | None = None
    off: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """The query tile `i` of heads from `head` on, whose queries are `first .. last` of those given; its list's row."""

    i: int
    row: int
    head: int
    group: int
    first: int
    last: int
    off: int
    n: int
    m: int


def attend_cpu(
    plan: Plan,
    lists: list[TileLists],
    tables: list[Mapping[str, torch.Tensor]],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention by the tiles in `lists`, one for each batch element (or one for all)."""
    return attend_listed(plan, [Listed(one) for one in lists], tables, q, k, v, scale)


def attend_listed(
    plan: Plan,
    lists: list[Listed],
    tables: list[Mapping[str, torch.Tensor]],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    out: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention by tiles and single keys, listed for each batch element (or once for all), into `out` and `lse`."""
    batch, heads, m, _ = q.shape
    if out is None:
        out = torch.empty(q.shape[:-1] + v.shape[-1:], dtype=q.dtype, device=q.device)
    if lse is None:
        lse = torch.empty(batch, heads, m, dtype=_exact(q), device=q.device)
    shared = len(lists) == 1
    for b in [slice(None)] if shared else [slice(b, b + 1) for b in range(batch)]:
        index = 0 if shared else b.start
        for h in [slice(None)] if not plan.per_head else [slice(h, h + 1) for h in range(heads)]:
            with torch.autocast("cpu", enabled=False):
                _attend_heads(plan, lists[index], tables[index], q[b], k[b], v[b], scale, h, out[b], lse[b])
    return out, lse


def _exact(q: torch.Tensor) -> torch.dtype:
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def _attend_heads(
    plan: Plan,
    lists: Listed,
    tables: Mapping[str, torch.Tensor],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    h: slice,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> None:
    """All query tiles of some heads that share their tiles."""
    m, n = q.shape[2], k.shape[2]
    group = q.shape[1] // k.shape[1]
    head = h.start or 0
    keys = slice(None) if h.start is None else slice(head // group, head // group + 1)
    fold = group if h.start is None else 1
    rows = -(-m // plan.tiling.block_m)
    off = lists.off if plan.band else n - m
    assert off + m <= n
    for i in range(rows):
        first, last = i * plan.tiling.block_m, min(m, (i + 1) * plan.tiling.block_m)
        row = Row(i, i + (head * rows if plan.per_head else 0), head, group, first, last, off, n, m)
        queries = q[:, h, first:last].to(_exact(q)) * scale
        queries = queries.reshape(queries.shape[0], -1, fold * (last - first), queries.shape[-1])
        state = _row(plan, lists, row, tables, queries, k[:, keys], v[:, keys])
        some = state.total > 0
        safe = torch.where(some, state.total, 1.0)
        shape = (queries.shape[0], -1, last - first)
        out[:, h, first:last] = (state.mix / safe[..., None]).reshape(*shape, v.shape[-1]).to(out.dtype)
        lse[:, h, first:last] = torch.where(some, state.peak + safe.log(), float("-inf")).reshape(shape)


def _row(
    plan: Plan,
    lists: Listed,
    row: Row,
    tables: Mapping[str, torch.Tensor],
    queries: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
) -> Softmax:
    """One query tile against its key tiles, as many at once as the memory bound allows."""
    lanes = queries.shape[0] * queries.shape[1] * queries.shape[2]
    state = Softmax(
        queries.new_zeros(queries.shape[:-1]),
        queries.new_full(queries.shape[:-1], float("-inf")),
        queries.new_zeros(queries.shape[:-1] + v.shape[-1:]),
    )
    repeat = queries.shape[2] // (row.last - row.first)
    for part in _parts(plan, lists, row, tables, max(1, SCORES_AT_ONCE // lanes)):
        keys, values = _take(k, part.keys).to(queries.dtype), _take(v, part.keys).to(queries.dtype)
        scores = queries @ keys.transpose(-1, -2)
        if part.checked is not None:
            kept = _kept(part.formula, plan, tables, row, part.checked)
            scores[..., -len(part.checked) :].masked_fill_(~kept.repeat(repeat, 1), float("-inf"))
        state = _absorb(state, scores, values)
    return state


@dataclass(frozen=True, slots=True)
class Visit:
    """Key tiles of a query tile, `fulls` full ones first, and what the pairs of the others must meet."""

    tiles: Sequence[int]
    fulls: int
    formula: Formula
    key_of: torch.Tensor | None = None


def _visits(plan: Plan, lists: Listed, row: Row, tables: Mapping[str, torch.Tensor]) -> Iterator[Visit]:
    """The tiles of runs that no list holds, then the listed ones."""
    if lists.tiles is None or plan.strategy == "table":
        constants = {t.name: tables[t.name].numpy() for t in plan.mask.tables if t.kind == "head" and plan.uniforms}
        heads = np.array([row.head], dtype=np.int64)
        values = row_values(plan, row.n, row.n - row.off, constants, heads, row.i, row.i + 1)
        for region in plan.regions:
            tiles = [int(tile) for run in region.runs for tile in expand_run(run, values)[1]]
            yield Visit(tiles, len(tiles) if region.full else 0, region.mask)
    if lists.tiles is not None:
        found = lists.tiles
        begin, middle, end = int(found.start[row.row]), int(found.split[row.row]), int(found.start[row.row + 1])
        masks = tuple(region.mask for region in plan.regions if not region.full)
        formula = masks[0] if len(masks) == 1 else conjunction((plan.formula, Compare("<", Var("k"), Var("n"))))
        formula = plan.regions[-1].mask if plan.strategy == "table" else formula
        key_of = None if lists.key_of is None else lists.key_of[row.head]
        yield Visit(found.tiles[begin:end].tolist(), middle - begin, formula, key_of)


@dataclass(frozen=True, slots=True)
class Part:
    """Some keys of a query tile, as ranges or one by one; pairs with the last of them are checked."""

    keys: list[tuple[int, int]] | torch.Tensor
    checked: torch.Tensor | None
    formula: Formula


def _parts(plan: Plan, lists: Listed, row: Row, tables: Mapping[str, torch.Tensor], most: int) -> Iterator[Part]:
    """Key tiles, as many at once as `most` keys, then single keys."""
    block, n = plan.tiling.block_n, row.n
    step = max(1, most // block)
    for visit in _visits(plan, lists, row, tables):
        for first in range(0, len(visit.tiles), step):
            tiles = visit.tiles[first : first + step]
            spans = _spans(tiles, block, n)
            ends = [(t * block, min(n, (t + 1) * block)) for t in tiles[max(0, visit.fulls - first) :]]
            checked = torch.cat([torch.arange(*end, device="cpu") for end in ends]) if ends else None
            if visit.key_of is None:
                yield Part(spans, checked, visit.formula)
                continue
            keys = _take(visit.key_of[None, None], spans)[0, 0]
            yield Part(keys, None if checked is None else keys[-len(checked) :], visit.formula)
    if lists.columns is not None and plan.columns is not None:
        bounds = (lists.columns.first, lists.columns.end)
        low, high = (int(bound[row.head, row.i]) for bound in bounds)
        singles = lists.columns.keys[low:high]
        for keys in singles.split(most) if len(singles) else ():
            yield Part(keys, keys, plan.columns)


def _spans(tiles: Sequence[int], block: int, n: int) -> list[tuple[int, int]]:
    """Runs of neighbouring tiles as ranges of keys."""
    out: list[tuple[int, int]] = []
    for t in tiles:
        low, high = t * block, min(n, (t + 1) * block)
        if out and out[-1][1] == low:
            out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out


def _take(x: torch.Tensor, keys: list[tuple[int, int]] | torch.Tensor) -> torch.Tensor:
    if isinstance(keys, torch.Tensor):
        return x.index_select(2, keys)
    parts = [x[:, :, low:high] for low, high in keys]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _kept(
    formula: Formula,
    plan: Plan,
    tables: Mapping[str, torch.Tensor],
    row: Row,
    columns: torch.Tensor,
) -> torch.Tensor:
    """The mask of some keys, pair by pair."""
    q = (torch.arange(row.first, row.last, device=columns.device) + row.off)[:, None]
    values: dict[str, object] = {"q": q, "k": columns[None, :], "n": row.n, "m": row.m, "off": row.off}
    values |= {"h": row.head, "g": row.head // row.group}
    for name, expr in plan.uniforms:
        values[name] = number(expr, values, tables, TORCH)
    kept = truth(formula, values, tables, TORCH)
    return torch.as_tensor(kept, device=columns.device).expand(row.last - row.first, len(columns))


def _absorb(state: Softmax, scores: torch.Tensor, values: torch.Tensor) -> Softmax:
    top = torch.maximum(state.peak, scores.amax(-1))
    safe = torch.where(top == float("-inf"), 0.0, top)
    weights = scores.sub_(safe[..., None]).exp_()
    shrink = torch.exp(state.peak - safe)
    total = state.total * shrink + weights.sum(-1)
    return Softmax(total, top, state.mix * shrink[..., None] + weights @ values)
