"""Walks over the terms of a selection: what lies inside one, where a program has them, names replaced."""

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from .ir import Expr, Formula
from .selection import (
    Apply,
    Arithmetic,
    ByHead,
    Choice,
    Chosen,
    Count,
    Dot,
    Integer,
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
)
from .walk import rewrite, substitute


def children(term: Term) -> tuple[Term, ...]:
    """The terms that a term is made of."""
    match term:
        case Number() | ByHead() | Integer() | Scale() | Read() | Row():
            return ()
        case Arithmetic(_, left, right) | Dot(left, right):
            return (left, right)
        case Apply(_, operand) | Slice(operand):
            return (operand,)
        case Softmax(body) | Reduce(_, _, body):
            return (body,)
        case Count(chosen):
            return terms_of(chosen)
        case _:
            assert_never(term)


def within(term: Term) -> Iterator[Term]:
    """A term and all terms inside it."""
    yield term
    for child in children(term):
        yield from within(child)


def terms_of(choice: Choice) -> tuple[Term, ...]:
    """What a choice ranks or compares, its amount, and the same of the choices it depends on."""
    asked = tuple(term for threshold in choice.when for term in terms_of(threshold))
    match choice:
        case Threshold(_, left, right):
            return (left, right, *asked)
        case Chosen(amount=amount, by=by, inside=inside):
            return (amount, by, *(terms_of(inside) if inside else ()), *asked)
        case _:
            assert_never(choice)


def every_term(program: Program) -> Iterator[Term]:
    """All terms of a program."""
    for score in program.scores:
        yield from within(score.value)
    for order in program.orders:
        yield from within(order.by)
    for choice in program.choices:
        for term in terms_of(choice):
            yield from within(term)


def replaced(term: Term, name: str, value: Expr) -> Term:
    """A term with an integer in place of a name that nothing inside binds, lies inside, or runs along."""

    def index(expr: Expr) -> Expr:
        return substitute(expr, name, value)

    def met(where: Formula | None) -> Formula | None:
        return None if where is None else rewrite(where, index)

    match term:
        case Number() | ByHead() | Scale() | Count():
            return term
        case Integer(found):
            return Integer(index(found))
        case Read(_, indices):
            return replace(term, indices=tuple(map(index, indices)))
        case Row(_, found):
            return replace(term, index=index(found))
        case Arithmetic(_, left, right) | Dot(left, right):
            return replace(term, left=replaced(left, name, value), right=replaced(right, name, value))
        case Apply(_, operand) | Slice(operand):
            return replace(term, operand=replaced(operand, name, value))
        case Softmax(body, _, where) | Reduce(_, _, body, where):
            return replace(term, body=replaced(body, name, value), where=met(where))
        case _:
            assert_never(term)
