"""Rows that kernels of maps multiply: in types that matrix units take, no bit lost, or as they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from ..compiler.lower_term import free
from ..compiler.selection import Apply, Arithmetic, Dot, Number, Program, Read, Reduce, Row, Slice, Term
from .map_parts import Product
from .named import Value
from .score_call import Call
from .views import Domain

Names = Mapping[str, Domain]
Evaluate = Callable[[Term, Call, Names], Value]
# Parts of 16 bits that hold a number of 32, and how much smaller each is than the one before where that has to be said.
PARTS = 3
UNITS = {torch.bfloat16: 1.0, torch.float16: 2.0**-11}
# Rows of numbers that Q, K and V have, of none larger than those have, or of any.
Kind = Literal["same", "within", "any"]
KINDS: tuple[Kind, ...] = ("same", "within", "any")


@dataclass(frozen=True, slots=True)
class Operand:
    """Rows [B, G, heads of the group, cells, (loops ..), (parts,) numbers]; 1 where it is the same for all."""

    x: torch.Tensor
    loops: int
    parts: int = 1

    def strides(self) -> tuple[int, ...]:
        """Of batch, group, head, cell, numbers, (parts,) loops; 0 where there is one for all."""
        steps = steps_of(self.x)
        return (*steps[:4], steps[-1], *([steps[-2]] if self.parts > 1 else []), *steps[4 : 4 + self.loops])


def steps_of(x: torch.Tensor) -> tuple[int, ...]:
    """Strides, 0 where there is one for all."""
    return tuple(step if size > 1 else 0 for step, size in zip(x.stride(), x.shape, strict=True))


def paired(
    dot: Dot, names: tuple[str, str], loops: tuple[str, ...], call: Call, scope: Names, evaluate: Evaluate
) -> tuple[Operand, Operand, Product] | None:
    """The rows of a product's two sides, and how they are multiplied."""
    terms = (dot.left, dot.right)
    left, right = (
        _rows(term, (name, *(loop for loop in loops if loop in free(term))), call, scope, evaluate)
        for term, name in zip(terms, names, strict=True)
    )
    width = left.x.shape[-1]
    if width != right.x.shape[-1]:
        return None
    types = (left.x.dtype, right.x.dtype)
    if types[0] == types[1] and types[0] in UNITS:
        return left, right, Product(width)
    if _interpreted() and torch.float16 not in types:
        return left, right, Product(width, mixed=True)
    # Three parts of bf16 hold all numbers of 32 bits; fp16 has none as large.
    small = torch.float16
    whole = (kind_of(x, call.program) != "any" for kind, x in zip(types, terms, strict=True) if kind != small)
    if small not in types or torch.bfloat16 in types or not all(whole):
        small = torch.bfloat16
    sides = (
        operand if operand.x.dtype == small else _split(operand, small, term, call, scope)
        for operand, term in zip((left, right), terms, strict=True)
    )
    left, right = sides
    return left, right, Product(width, left.parts, right.parts, UNITS[small])


def _rows(term: Term, axes: tuple[str, ...], call: Call, scope: Names, evaluate: Evaluate) -> Operand:
    x = evaluate(term, call, {axis: scope[axis] for axis in axes}).over(axes)
    if call.q.dtype == call.k.dtype and x.dtype == torch.float32 and kind_of(term, call.program) == "same":
        x = x.to(call.q.dtype)
    if _interpreted() and x.dtype == torch.bfloat16:
        # The interpreter takes the bits of bf16 for integers.
        x = x.float()
    return Operand(x, len(axes) - 1)


def _interpreted() -> bool:
    from triton import knobs  # triton is not everywhere

    return bool(knobs.runtime.interpret)


def kind_of(term: Term, program: Program) -> Kind:
    """Which numbers the rows of a term have."""
    match term:
        case Row():
            return "same"
        case Read(name):
            score = next((score for score in program.scores if score.name == name), None)
            return "any" if score is None else kind_of(score.value, program)
        case Slice(operand) | Apply("abs" | "negate", operand) | Reduce("max" | "min", _, operand):
            return kind_of(operand, program)
        case Arithmetic("max" | "min", left, Number(0.0)):
            return kind_of(left, program)
        case Reduce("mean", _, operand):
            return _least(kind_of(operand, program), "within")
        case _:
            return "any"


def mixes(dot: Dot, program: Program) -> bool:
    """Whether one side alone has the numbers of Q, K or V: then matrix products in torch take both as fp32."""
    return (kind_of(dot.left, program) == "same") != (kind_of(dot.right, program) == "same")


def _least(*kinds: Kind) -> Kind:
    return KINDS[max(KINDS.index(kind) for kind in kinds)]


def _split(operand: Operand, small: torch.dtype, term: Term, call: Call, scope: Names) -> Operand:
    """Rows as a sum of rows of 16 bits; what keys alone give is kept for the call."""
    cells = tuple(scope[name] for name in scope if name in free(term))
    lasting = all(domain.side == "k" for domain in cells)
    key = ("parts", small, term, *cells)
    if lasting and key in call.kept:
        return Operand(call.kept[key].tensor, operand.loops, PARTS)
    parts: list[torch.Tensor] = []
    rest = operand.x.float()
    for _ in range(PARTS):
        part = rest.to(small)
        parts.append(part)
        # An infinite number has no rest.
        rest = torch.nan_to_num(rest - part.float(), 0.0, 0.0, 0.0) / UNITS[small]
    x = torch.stack(parts, -2)
    if lasting:
        call.kept[key] = Value(x)
    return Operand(x, operand.loops, PARTS)
