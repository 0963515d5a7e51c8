"""Block-sparse attention in torch on the CPU: only live tiles are computed, nothing grows with m times n."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ..compiler.evaluate import number, truth
from ..compiler.expand import TileLists
from ..compiler.ir import Compare, Var, conjunction
from ..compiler.plan import Plan, Tiling
from .search import TORCH

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
    batch, heads, m, _ = q.shape
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    out = torch.empty(q.shape[:-1] + v.shape[-1:], dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, m, dtype=exact, device=q.device)
    shared = len(lists) == 1
    for b in [slice(None)] if shared else [slice(b, b + 1) for b in range(batch)]:
        index = 0 if shared else b.start
        for h in [slice(None)] if not plan.per_head else [slice(h, h + 1) for h in range(heads)]:
            with torch.autocast("cpu", enabled=False):
                _attend_heads(plan, lists[index], tables[index], q[b], k[b], v[b], scale, h, out[b], lse[b])
    return out, lse


def _attend_heads(
    plan: Plan,
    lists: TileLists,
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
    m = q.shape[2]
    group = q.shape[1] // k.shape[1]
    head = h.start or 0
    keys = slice(None) if h.start is None else slice(head // group, head // group + 1)
    fold = group if h.start is None else 1
    exact = lse.dtype
    rows = -(-m // plan.tiling.block_m)
    for i in range(rows):
        first, last = i * plan.tiling.block_m, min(m, (i + 1) * plan.tiling.block_m)
        row = i + (head * rows if plan.per_head else 0)
        queries = q[:, h, first:last].to(exact) * scale
        queries = queries.reshape(queries.shape[0], -1, fold * (last - first), queries.shape[-1])
        state = _row(plan, lists, row, tables, queries, k[:, keys], v[:, keys], (first, last), head, group, m)
        some = state.total > 0
        safe = torch.where(some, state.total, 1.0)
        shape = (queries.shape[0], -1, last - first)
        out[:, h, first:last] = (state.mix / safe[..., None]).reshape(*shape, v.shape[-1]).to(out.dtype)
        lse[:, h, first:last] = torch.where(some, state.peak + safe.log(), float("-inf")).reshape(shape)


def _row(
    plan: Plan,
    lists: TileLists,
    row: int,
    tables: Mapping[str, torch.Tensor],
    queries: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    span: tuple[int, int],
    head: int,
    group: int,
    m: int,
) -> Softmax:
    """One query tile against its key tiles, as many at once as the memory bound allows."""
    block, n = plan.tiling.block_n, k.shape[2]
    begin, middle, end = int(lists.start[row]), int(lists.split[row]), int(lists.start[row + 1])
    lanes = queries.shape[0] * queries.shape[1] * queries.shape[2]
    step = max(1, SCORES_AT_ONCE // (lanes * block))
    state = Softmax(
        queries.new_zeros(queries.shape[:-1]),
        queries.new_full(queries.shape[:-1], float("-inf")),
        queries.new_zeros(queries.shape[:-1] + v.shape[-1:]),
    )
    for part in range(begin, end, step):
        stop = min(end, part + step)
        tiles = lists.tiles[part:stop].tolist()
        full = max(0, min(stop, middle) - part)
        spans = _spans(tiles, block, n)
        keys, values = _take(k, spans).to(queries.dtype), _take(v, spans).to(queries.dtype)
        scores = queries @ keys.transpose(-1, -2)
        if full < len(tiles):
            width = sum(min(n, (t + 1) * block) - t * block for t in tiles[full:])
            ends = [(t * block, min(n, (t + 1) * block)) for t in tiles[full:]]
            columns = torch.cat([torch.arange(*end, device=scores.device) for end in ends])
            kept = _kept(plan, tables, span, columns, head, group, n, m)
            repeat = scores.shape[2] // (span[1] - span[0])
            scores[..., -width:].masked_fill_(~kept.repeat(repeat, 1), float("-inf"))
        state = _absorb(state, scores, values)
    return state


def _spans(tiles: list[int], block: int, n: int) -> list[tuple[int, int]]:
    """Runs of neighbouring tiles as ranges of keys."""
    out: list[tuple[int, int]] = []
    for t in tiles:
        low, high = t * block, min(n, (t + 1) * block)
        if out and out[-1][1] == low:
            out[-1] = (out[-1][0], high)
        else:
            out.append((low, high))
    return out


def _take(x: torch.Tensor, spans: list[tuple[int, int]]) -> torch.Tensor:
    parts = [x[:, :, low:high] for low, high in spans]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _kept(
    plan: Plan,
    tables: Mapping[str, torch.Tensor],
    span: tuple[int, int],
    columns: torch.Tensor,
    head: int,
    group: int,
    n: int,
    m: int,
) -> torch.Tensor:
    """The mask of partial tiles, pair by pair, by the predicates that can fail in them."""
    masks = tuple(region.mask for region in plan.regions if not region.full)
    formula = masks[0] if len(masks) == 1 else conjunction((plan.formula, Compare("<", Var("k"), Var("n"))))
    q = (torch.arange(*span, device=columns.device) + (n - m))[:, None]
    values: dict[str, object] = {"q": q, "k": columns[None, :], "h": head, "g": head // group, "n": n, "m": m}
    for name, expr in plan.uniforms:
        values[name] = number(expr, values, tables, TORCH)
    kept = truth(formula, values, tables, TORCH)
    return torch.as_tensor(kept, device=columns.device).expand(span[1] - span[0], len(columns))


def _absorb(state: Softmax, scores: torch.Tensor, values: torch.Tensor) -> Softmax:
    top = torch.maximum(state.peak, scores.amax(-1))
    safe = torch.where(top == float("-inf"), 0.0, top)
    weights = scores.sub_(safe[..., None]).exp_()
    shrink = torch.exp(state.peak - safe)
    total = state.total * shrink + weights.sum(-1)
    return Softmax(total, top, state.mix * shrink[..., None] + weights @ values)
