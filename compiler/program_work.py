"""How much scoring costs: the products of rows that a dynamic pattern's scores and choices need."""

import math
from collections.abc import Iterator, Mapping
from typing import assert_never

from .lower_term import free
from .selection import (
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

Scope = Mapping[str, Axis | Binder]


def scoring_flops(program: Program, n: int, head_dim: int) -> int:
    """Operations of all products of rows of one head, over all cells, as rows of `head_dim` numbers."""
    axes = {axis.name: axis for axis in (Axis("q", "q", 1), Axis("k", "k", 1), *program.axes)}
    terms = [score.value for score in program.scores] + [t for c in program.choices for t in terms_of(c)]
    return sum(2 * head_dim * _times(dot, scope, axes, n) for term in terms for dot, scope in _products(term, axes))


def terms_of(choice: Choice) -> Iterator[Term]:
    """All that a choice compares or ranks by."""
    match choice:
        case Threshold(left=left, right=right, when=when):
            yield from (left, right)
        case Chosen(by=by, amount=amount, inside=inside, when=when):
            yield from (by, amount)
            yield from terms_of(inside) if inside else ()
        case _:
            assert_never(choice)
    for one in when:
        yield from terms_of(one)


def cells_of(place: Axis | Binder, axes: Mapping[str, Axis], n: int) -> int:
    """How many numbers a name takes in all."""
    match place:
        case Axis(size=size, last=last, count=count):
            return count or (min(last, n) if last else -(-n // size))
        case Below(count=count):
            return count
        case Inside(size=size):
            return -(-n // size)
        case Last(count=count):
            return min(count, n)
        case Whole(name):
            return cells_of(axes[name], axes, n)
        case Heads():
            return 1
        case _:
            assert_never(place)


def _times(dot: Dot, scope: Scope, axes: Mapping[str, Axis], n: int) -> int:
    """How often a product is taken: a name inside a cell runs through what all cells hold."""
    names = free(dot) & scope.keys()
    outer = {place.outer for name in names if isinstance(place := scope[name], Inside)}
    return math.prod(cells_of(scope[name], axes, n) for name in names - outer)


def _products(term: Term, scope: Scope) -> Iterator[tuple[Dot, Scope]]:
    match term:
        case Number() | Scale() | Read() | Row() | ByHead() | Integer():
            pass
        case Count(chosen):
            for inner in terms_of(chosen):
                yield from _products(inner, scope)
        case Dot(left, right):
            yield term, scope
            yield from _products(left, scope)
            yield from _products(right, scope)
        case Arithmetic(_, left, right):
            yield from _products(left, scope)
            yield from _products(right, scope)
        case Apply(_, operand) | Slice(operand):
            yield from _products(operand, scope)
        case Softmax(body):
            yield from _products(body, scope)
        case Reduce(binders=binders, body=body):
            yield from _products(body, {**scope, **{binder.name: binder for binder in binders}})
        case _:
            assert_never(term)
