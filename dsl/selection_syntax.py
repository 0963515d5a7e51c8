"""The part of the surface syntax tree that selects by content: reductions, softmax, rules that choose cells."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .source import Node

if TYPE_CHECKING:
    from .syntax import Expr


@dataclass(frozen=True, slots=True)
class Binder(Node):
    """What a reduction runs over: `r < 16` (bound), `i in I` (inside), `t in last 64 of q` (both), `J` (none)."""

    name: str
    bound: "Expr | None"
    inside: str | None


@dataclass(frozen=True, slots=True)
class Reduce(Node):
    """`sum(i in I, j in J where C) E`, and `mean`, `max`, `min`, `descend`."""

    op: Literal["sum", "mean", "max", "min", "descend"]
    binders: tuple[Binder, ...]
    body: "Expr"
    where: "Expr | None" = None


@dataclass(frozen=True, slots=True)
class Dot(Node):
    """`Q[i] . K[j]`."""

    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Divide(Node):
    """`a / b`, of real numbers."""

    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Softmax(Node):
    """`softmax(E over j where j <= i)`."""

    value: "Expr"
    axis: str
    where: "Expr | None"


@dataclass(frozen=True, slots=True)
class Slice(Node):
    """`K[t][0 .. 16]`."""

    row: "Expr"
    first: "Expr"
    last: "Expr"


@dataclass(frozen=True, slots=True)
class Chosen(Node):
    """`top 5% of visible by w[I, J] counting (J == 0) among (..)`; only after `in`.

    `joint` is the I of `(I, J) in top ..`.
    """

    rule: Literal["top", "cover", "reach", "under"]
    amount: "Expr"
    percent: bool
    of: Literal["total", "visible", "triangle"] | None
    by: "Expr"
    counting: "Expr | None"
    among: "Expr | None"
    joint: str | None = None


@dataclass(frozen=True, slots=True)
class Count(Node):
    """`count(J in top 4 by w[I, J])`."""

    axis: "Expr"
    rule: Chosen
