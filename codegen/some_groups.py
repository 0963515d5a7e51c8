"""A few key/value groups of a call at a time: what is each group's own need not be held for all at once."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ..compiler.ir import Expr, Formula
from ..compiler.selection import ByHead, Count, Heads, Integer, Read, Reduce, Row, Softmax, Term
from ..compiler.terms import within
from ..compiler.walk import variables as names_of
from .named import Value
from .score_call import Call, Order
from .views import variables


def separate(term: Term, call: Call, known: dict[str, bool] | None = None) -> bool:
    """Whether a group's values depend neither on its number nor on other groups; `known` is that of scores."""
    known = {} if known is None else known
    for part in within(term):
        match part:
            case ByHead() | Count():
                return False
            case Integer(index) | Row(_, index) if _numbered(index):
                return False
            case Read(name, indices):
                score = next((score for score in call.program.scores if score.name == name), None)
                if score and name not in known:
                    known[name] = separate(score.value, call, known)
                if any(map(_numbered, indices)) or not known.get(name, True):
                    return False
            case Softmax(_, _, where) if _limited(where):
                return False
            case Reduce(_, binders, _, where) if _limited(where) or Heads(False) in binders:
                return False
            case _:
                pass
    return True


def _numbered(index: Expr) -> bool:
    return not {"h", "g"}.isdisjoint(variables(index))


def _limited(where: Formula | None) -> bool:
    return where is not None and not {"h", "g"}.isdisjoint(names_of(where))


def some_groups(call: Call, first: int, count: int, recent: dict[object, Value]) -> Call:
    """The call of some groups, with what is known of them."""

    def part(x: torch.Tensor) -> torch.Tensor:
        return x if x.shape[1] == 1 else x.narrow(1, first, count)

    def parts(values: dict[object, Value]) -> dict[object, Value]:
        return {key: replace(value, tensor=part(value.tensor)) for key, value in values.items()}

    return replace(
        call,
        q=part(call.q),
        k=part(call.k),
        v=part(call.v),
        givens={name: part(x) for name, x in call.givens.items()},
        kept=parts(call.kept),
        recent=parts(recent),
        orders={name: Order(part(x.key_of), part(x.place_of)) for name, x in call.orders.items()},
    )


def together(values: Sequence[Value], counts: Sequence[int]) -> Value:
    """The values of all groups, of so many each."""
    first, *rest = values
    if not rest:
        return first
    tensors = [
        value.over(first.axes).expand(-1, count, *[-1] * (first.tensor.ndim - 2))
        for value, count in zip(values, counts, strict=True)
    ]
    return replace(first, tensor=torch.cat(tensors, 1))
