"""Sums of softmaxes of products of rows for the evaluator of scores: described, computed at once, and named again."""

from collections.abc import Callable, Mapping

import torch

from ..compiler.selection import Inside, Reduce, Softmax, Term
from .map_sizes import inner_names
from .named import Value
from .score_call import Call
from .views import Domain
from .weigh_fused import Fold, Ratios, Weighing, fused_sums, suits
from .weigh_match import Made, Match, Tokens, described

Names = Mapping[str, Domain]
# The value of a term where its free names run through domains.
Evaluate = Callable[[Term, Call, Names], Value]


def fused(term: Reduce | Softmax, call: Call, names: Names, evaluate: Evaluate) -> Value | None:
    """The value of a term for the cells of `names`, if the fused kernels compute it: the whole axis of its softmax."""
    found = described(term, call) if suits(call.q, call.k, call.v) else None
    if found is None:
        return None
    within = {**names, **(inner_names(term.binders, call, names) if isinstance(term, Reduce) else {})}
    columns = found.columns.outer if found.columns else found.along
    if found.query not in within or columns not in names or names[columns] != call.domain(columns):
        return None
    one = weighing(found, call, {**within, found.along: call.domain(found.along)}, evaluate)
    if not suits(one.left.x, one.right.x) or one.left.x.shape[4] != one.right.x.shape[4]:
        return None
    sums = fused_sums(one, room=call.piece_bytes)
    if found.heads and one.left.x.shape[2] == one.right.x.shape[2] == 1:
        sums = sums * call.q.shape[2]
    match found.rows:
        case None:
            return Value(sums, (found.query, columns))
        case Inside(_, query):
            return Value(sums, (query, columns))
        case _:
            return Value(sums[..., 0, :], (columns,))


def weighing(found: Match, call: Call, names: Names, evaluate: Evaluate) -> Weighing:
    """What the kernels are told, for the cells at hand."""
    query, along = names[found.query], names[found.along]
    left, right = _fold(found.left, query, call, evaluate), _fold(found.right, along, call, evaluate)
    factor = found.number * call.scale**found.scales
    match found.rows:
        case None:
            rows = 1
        case Inside():
            rows = query.within
        case _:
            # One cell, from the first.
            rows = query.start + query.count
    columns = names[found.columns.outer].size // along.size if found.columns else 1
    return Weighing(left, right, factor, found.steps, found.where, Ratios(rows, columns, found.heads))


def _fold(side: Tokens | Made, domain: Domain, call: Call, evaluate: Evaluate) -> Fold:
    match side:
        case Tokens(source, cell, step, first):
            x: torch.Tensor = {"Q": call.q, "K": call.k, "V": call.v}[source]
            # Queries are the last tokens.
            return Fold(x, domain.start, domain.count, cell, step, first - (call.n - call.m if source == "Q" else 0))
        case Made(term, name):
            return Fold(evaluate(term, call, {name: domain}).tensor, domain.start, domain.count, first=-domain.start)
