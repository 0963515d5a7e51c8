"""A pattern that selects by content, after names are gone: scores over cells, and rules that keep cells by score.

A cell of an axis is `size` tokens of its side; cell c holds the tokens c * size .. up to the sequence's end. Inside
expressions an axis, or a name that a binder binds, is a variable that counts cells (or tokens where the size is 1).
"""

from dataclasses import dataclass
from typing import Literal

from .ir import Clause, Expr, Formula, Mask

Side = Literal["q", "k"]


@dataclass(frozen=True, slots=True)
class Axis:
    """`axis I = q // 128`; `q` and `k` themselves are axes of size 1."""

    name: str
    side: Side
    size: int


@dataclass(frozen=True, slots=True)
class Below:
    """`r < 16`: 0 .. count - 1."""

    name: str
    count: int


@dataclass(frozen=True, slots=True)
class Inside:
    """`i in I`: the cells of `size` tokens inside a cell of axis `outer`; those that exist."""

    name: str
    outer: str
    size: int


@dataclass(frozen=True, slots=True)
class Last:
    """`t in last 64 of q`: the last tokens of a side; all where there are fewer."""

    name: str
    side: Side
    count: int


Binder = Below | Inside | Last


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class Scale:
    """The softmax scale of the call."""


@dataclass(frozen=True, slots=True)
class Read:
    """A score, or an input, at axes or bound names; a number or a row, as it was defined."""

    name: str
    indices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One token's row of Q, K or V; zeros at a token that does not exist."""

    source: Literal["Q", "K", "V"]
    index: Expr


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Of two numbers; of a row and a number for `*` and `/`; of two rows for `+` and `-`."""

    op: Literal["+", "-", "*", "/", "min", "max"]
    left: "Term"
    right: "Term"


@dataclass(frozen=True, slots=True)
class Apply:
    function: Literal["abs", "exp", "log", "sqrt", "negate"]
    operand: "Term"


@dataclass(frozen=True, slots=True)
class Reduce:
    """Over all that the binders run through together; `mean` divides by how many exist."""

    op: Literal["sum", "mean", "max", "min"]
    binders: tuple[Binder, ...]
    body: "Term"


@dataclass(frozen=True, slots=True)
class Softmax:
    """Along one axis or bound name; cells where the condition (over axes and bound names) fails get 0."""

    body: "Term"
    along: str
    where: Formula | None


@dataclass(frozen=True, slots=True)
class Dot:
    left: "Term"
    right: "Term"


Term = Number | Scale | Read | Row | Arithmetic | Apply | Reduce | Softmax | Dot


@dataclass(frozen=True, slots=True)
class Score:
    """`let weight[I, J] = ..`; a row for each cell where `vector`."""

    name: str
    axes: tuple[str, ...]
    value: Term
    vector: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """`input gate[I, J]: float`, at call time `[.., heads or 1, cells ..]`, with a last axis where `vector`."""

    name: str
    axes: tuple[str, ...]
    vector: bool


@dataclass(frozen=True, slots=True)
class Chosen:
    """`keep J in top 16 by weight[I, J]`: cells of `key` for each cell of `query` (None: the same for all queries).

    `counting` and `among` are conditions over the two axes, by name.
    """

    rule: Literal["top", "cover", "reach", "under"]
    amount: float
    percent: bool
    of: Literal["total", "visible", "triangle"]
    key: str
    query: str | None
    by: Term
    counting: Formula | None
    among: Formula | None
    text: str


@dataclass(frozen=True, slots=True)
class Threshold:
    """`keep weight[I, k] >= limit[I] - 12`: a comparison of scores over at most one axis of each side."""

    op: Literal["<", "<=", ">", ">="]
    left: Term
    right: Term
    key: str | None
    query: str | None
    text: str


Choice = Chosen | Threshold


@dataclass(frozen=True, slots=True)
class Program:
    """What a dynamic pattern means: `limits` (requires and drops), the static keeps, and the choices.

    A pair is kept when the limits allow it and a static keep or a choice holds. Static clauses are over q and k.
    """

    name: str
    axes: tuple[Axis, ...]
    givens: tuple[Given, ...]
    scores: tuple[Score, ...]
    limits: Mask
    keeps: tuple[Clause, ...]
    choices: tuple[Choice, ...]
