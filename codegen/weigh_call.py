"""Sums of softmaxes of products of rows for the evaluator of scores: described, computed at once, and named again."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from ..compiler.selection import Inside, Program, Term
from .named import Value
from .views import Domain
from .weigh_fused import Fold, Ratios, Weighing, fused_sums, suits
from .weigh_match import Made, Match, Tokens, matched

# The value of a term where its free names run through domains.
Evaluate = Callable[[Term, Mapping[str, Domain]], Value]


@dataclass(frozen=True, slots=True)
class Sources:
    """The rows of one call, [B, G, heads of the group or 1, n, D], and its softmax scale."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    scale: float

    def rows(self, name: str) -> torch.Tensor:
        """Q, K or V."""
        return {"Q": self.q, "K": self.k, "V": self.v}[name]


def fused(
    term: Term,
    program: Program,
    sources: Sources,
    names: Mapping[str, Domain],
    inside: Mapping[str, Domain],
    evaluate: Evaluate,
) -> Value | None:
    """The value of a term for the cells of `names`, if fused kernels compute it here; `inside` has what it binds."""
    found = matched(term, program, sources.k.shape[3]) if suits(sources.q, sources.k, sources.v) else None
    if found is None or found.query not in (within := {**names, **inside}) or found.along not in within:
        return None
    outer = names[found.columns.outer] if found.columns else within[found.along]
    if outer.start or within[found.along].start:
        return None
    one = weighing(found, sources, within, evaluate)
    if not suits(one.left.x, one.right.x) or one.left.x.shape[4] != one.right.x.shape[4]:
        return None
    sums = fused_sums(one)
    if found.heads and one.left.x.shape[2] == one.right.x.shape[2] == 1:
        sums = sums * sources.q.shape[2]
    if found.mean:
        sums = (
            sums
            / counts(one.left.count, one.ratios.rows, sums)[:, None]
            / counts(one.right.count, one.ratios.columns, sums)
        )
    columns = found.columns.outer if found.columns else found.along
    match found.rows:
        case None:
            return Value(sums, (found.query, columns))
        case Inside(_, query):
            return Value(sums, (query, columns))
        case _:
            return Value(sums[..., 0, :], (columns,))


def weighing(found: Match, sources: Sources, names: Mapping[str, Domain], evaluate: Evaluate) -> Weighing:
    """What the kernels are told, for the cells at hand."""
    left, right = (
        _fold(side, names[name], sources, evaluate)
        for side, name in ((found.left, found.query), (found.right, found.along))
    )
    factor = found.number * sources.scale**found.scales
    match found.rows:
        case None:
            rows = 1
        case Inside(_, outer, size):
            rows = names[outer].size // size
        case _:
            rows = left.count
    columns = names[found.columns.outer].size // found.columns.size if found.columns else 1
    return Weighing(left, right, factor, found.steps, found.where, Ratios(rows, columns, found.heads))


def _fold(side: Tokens | Made, domain: Domain, sources: Sources, evaluate: Evaluate) -> Fold:
    match side:
        case Tokens(source, cell, step, first):
            return Fold(sources.rows(source), domain.start, domain.count, cell, step, first)
        case Made(term, name):
            return Fold(evaluate(term, {name: domain}).tensor, domain.start, domain.count, first=-domain.start)


def counts(count: int, ratio: int, like: torch.Tensor) -> torch.Tensor:
    """How many of `count` things lie in each cell of `ratio`; the last cell may have fewer."""
    cells = torch.arange(0, count, max(1, ratio), device=like.device)
    return (count - cells).clamp(max=max(1, ratio)).to(like.dtype)
