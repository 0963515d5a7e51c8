"""Which pairs a dynamic pattern keeps, by definition: every score and every rule, dense and plain."""

from typing import assert_never

import torch

from ..compiler.ir import Clause, Mask
from ..compiler.selection import Axis, Choice, Chosen, Number, Program, Threshold
from .reference_call import Call, Scope, Tensors, call_of, grown
from .reference_terms import holds, places, score, value
from .rules import choose, meets


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
    calls = [call_of(program, b, q, k, v, scale, givens, dtype, _count) for b in range(q.shape[0])]
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
    calls = [call_of(program, b, q, k, v, scale, givens, dtype, _count) for b in range(q.shape[0])]
    found = torch.stack([score(name, call) for call in calls])
    return found if any(s.name == name and s.vector for s in program.scores) else found[..., 0]


def _kept(program: Program, call: Call) -> torch.Tensor:
    """`[H, m, n]`."""
    admissible = _admissible(call)
    kept = _pairs(program.keeps, call) if program.keeps or not program.choices else torch.zeros_like(admissible)
    for choice in program.choices:
        kept = kept | _chosen_pairs(choice, admissible, call)
    return _pairs(program.limits.clauses, call) & kept


def _pairs(clauses: tuple[Clause, ...], call: Call) -> torch.Tensor:
    """The pairs that static clauses allow, `[H, m, n]`."""
    names = {"q": call.arange(call.first["q"], call.n)[:, None], "k": call.arange(0, call.n)}
    found = holds(Mask(call.program.name, clauses).formula, names, 2, call)
    return found.expand(call.heads, call.m, call.n)


def _admissible(call: Call) -> torch.Tensor:
    """The pairs that rules choose among; a drop takes pairs away from what is kept, not cells from what is ranked."""
    return _pairs(tuple(c for c in call.program.limits.clauses if c.kind == "require"), call)


def _axes(choice: Choice, call: Call) -> tuple[Axis, Axis]:
    """The axes of a choice's queries and keys; one cell of all where it has none."""
    query = call.axes[choice.query] if choice.query else Axis("", "q", call.n)
    return query, call.axes[choice.key] if choice.key else Axis("", "k", call.n)


def _rows(query: Axis, call: Call) -> torch.Tensor:
    """The cell of each query, `[m]`."""
    return call.arange(call.first["q"], call.n) // query.size


def _columns(key: Axis, call: Call) -> torch.Tensor:
    """The cell of keys, of places or of distances that each pair lies in; negative where it has none.

    `[H or 1, m or 1, n]`.
    """
    keys = call.arange(0, call.n).view(1, 1, -1)
    if key.side == "d":
        return _rows(key, call)[:, None] - keys // key.size
    return (places(key.order, call)[:, None] if key.order else keys) // key.size


def _chosen_pairs(choice: Choice, admissible: torch.Tensor, call: Call) -> torch.Tensor:
    """The pairs that lie in cells that a choice keeps, `[H, m, n]`."""
    query, key = _axes(choice, call)
    columns = _columns(key, call)
    cells = _cells(choice, admissible, call)[:, _rows(query, call)]
    return cells.gather(2, columns.clamp(min=0).expand_as(admissible)) & (columns >= 0)


def _touched(query: Axis, key: Axis, pairs: torch.Tensor, call: Call) -> torch.Tensor:
    """The cells that some of the pairs lie in, `[H, query cells, key cells]`."""
    columns = _columns(key, call)
    lying = (pairs & (columns >= 0)).to(torch.uint8)
    touched = lying.new_zeros(call.heads, call.m, len(call.cells(key)))
    touched.scatter_reduce_(2, columns.clamp(min=0).expand_as(lying), lying, "amax")
    found = lying.new_zeros(call.heads, len(call.cells(query)), touched.shape[2])
    rows = _rows(query, call)[None, :, None].expand_as(touched)
    return found.scatter_reduce_(1, rows, touched, "amax").bool()


def _count(chosen: Chosen, call: Call) -> torch.Tensor:
    """How many cells a rule chooses for each cell of queries, `[H, query cells]`."""
    return _cells(chosen, _admissible(call), call).sum(-1)


def _cells(choice: Choice, admissible: torch.Tensor, call: Call) -> torch.Tensor:
    """Which cells of keys a choice keeps for each cell of queries, `[H, query cells, key cells]`."""
    query, key = _axes(choice, call)
    scope = Scope()
    for axis in (query, key):
        scope, _ = grown(scope, axis, call.cells(axis), call)
    shape = (call.heads, len(call.cells(query)), len(call.cells(key)))
    kept = torch.ones(shape, dtype=torch.bool, device=admissible.device)
    for threshold in choice.when:
        kept = kept & _compared(threshold, scope, call)
    match choice:
        case Threshold():
            return kept & _compared(choice, scope, call)
        case Chosen():
            return kept & _chosen(choice, query, key, scope, admissible, call)
        case _:
            assert_never(choice)


def _compared(threshold: Threshold, scope: Scope, call: Call) -> torch.Tensor:
    """Where a threshold's comparison holds, without its own conditions."""
    a, b = (value(term, scope, call)[..., 0] for term in (threshold.left, threshold.right))
    return meets(threshold, a, b)


def _chosen(rule: Chosen, query: Axis, key: Axis, scope: Scope, admissible: torch.Tensor, call: Call) -> torch.Tensor:
    """The cells of keys that a rule keeps for each cell of queries."""
    if rule.inside is not None:
        admissible = admissible & _chosen_pairs(rule.inside, admissible, call)
    candidates = _touched(query, key, admissible, call)
    if rule.among is not None:
        candidates = candidates & holds(rule.among, scope.names, 2, call)
    forced = torch.zeros_like(candidates)
    if rule.counting is not None:
        forced = candidates & holds(rule.counting, scope.names, 2, call)
    by = value(rule.by, scope, call)[..., 0].expand(candidates.shape)
    amounts = None if isinstance(rule.amount, Number) else value(rule.amount, scope, call)[..., 0]
    if not rule.joint:
        return choose(rule, by, candidates, forced, amounts=amounts)
    # One row of all cells that exist, by query cell and then by key cell.
    first = call.first["q"] // query.size
    by, candidates, forced = (x[:, first:].flatten(1) for x in (by, candidates, forced))
    kept = choose(rule, by, candidates, forced, amounts=None if amounts is None else amounts[:, 0])
    return torch.nn.functional.pad(kept.unflatten(1, (-1, len(call.cells(key)))), (0, 0, first, 0))
