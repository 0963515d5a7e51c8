"""A pattern that selects by content, after names are gone: scores over cells, and rules that keep cells by score.

A cell of an axis is `size` tokens of its side; cell c holds the tokens c * size .. up to the sequence's end. Inside
expressions an axis, or a name that a binder binds, is a variable that counts cells (or tokens where the size is 1).
"""

from dataclasses import dataclass
from typing import Literal

from .ir import Clause, Expr, Formula, Mask

# Queries, keys, the distance from a query's cell to a key's, and plain things that are neither.
Side = Literal["q", "k", "d", ""]


@dataclass(frozen=True, slots=True)
class Axis:
    """`axis I = q // 128`; `q` and `k` themselves are axes of size 1.

    `axis t = last 64 of q` has the last tokens only, under their own numbers, and stands in scores alone.
    `axis D = q // 128 - k // 128` counts how many cells a key's lies before a query's, from 0; a pair with k's cell
    after q's has none. `axis e = 64` counts things given at call time. An axis of an order has cells of places:
    `axis J = p // 128`; the order itself is one too, with cells of 1.
    """

    name: str
    side: Side
    size: int
    last: int = 0
    count: int = 0
    order: str = ""


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


@dataclass(frozen=True, slots=True)
class Whole:
    """`J`: all cells of an axis; the name of the axis is bound."""

    name: str


@dataclass(frozen=True, slots=True)
class Heads:
    """`h`: all query heads, or those that share a key/value head: `h in g`. What is inside is each head's own."""

    group: bool
    name: str = "h"


Binder = Below | Inside | Last | Whole | Heads


@dataclass(frozen=True, slots=True)
class Number:
    value: float


@dataclass(frozen=True, slots=True)
class ByHead:
    """A number for each query head."""

    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Integer:
    """An integer of n, m, heads, axes and bound names, as a number."""

    value: Expr


@dataclass(frozen=True, slots=True)
class Scale:
    """The softmax scale of the call."""


@dataclass(frozen=True, slots=True)
class Read:
    """A score, or an input, at integers of axes and bound names; a number or a row, as it was defined.

    0 at a cell that does not exist. Mostly an index is a name that counts the very cells of the axis; a name of plain
    numbers (`r < 16`) may be any index.
    """

    name: str
    indices: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One token's row of Q, K or V; zeros at a token that does not exist.

    Of K and V, an index that is a name of places (an order, or bound inside cells of places) means the key there.
    """

    source: Literal["Q", "K", "V"]
    index: Expr


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Of numbers and rows, element by element; a number goes with each element of a row."""

    op: Literal["+", "-", "*", "/", "min", "max"]
    left: "Term"
    right: "Term"


@dataclass(frozen=True, slots=True)
class Apply:
    """Element by element; `probit` is the quantile of the normal distribution."""

    function: Literal["abs", "exp", "log", "sqrt", "negate", "probit"]
    operand: "Term"


@dataclass(frozen=True, slots=True)
class Slice:
    """`K[t][0 .. 16]`: the elements first .. last - 1 of a row."""

    operand: "Term"
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Reduce:
    """Over all that the binders run through together and where the condition holds; `mean` divides by how many those
    are. Over none, `sum` and `mean` are 0, `max` is minus and `min` plus infinity. Rows go element by element.

    `descend` (one binder, Inside; no condition) is HiP's search for a cell's largest token: of a cell's halves the one
    whose first token has the larger value is kept (the left one if equal) until one token is left; the largest value
    that was seen. The half of tokens l .. r - 1 begins at (l + r) // 2; tokens that do not exist have minus infinity.
    """

    op: Literal["sum", "mean", "max", "min", "descend"]
    binders: tuple[Binder, ...]
    body: "Term"
    where: Formula | None = None


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


@dataclass(frozen=True, slots=True)
class Count:
    """`count(k in under 0.9 by share[k])`: how many cells a rule chooses, for each cell of its queries."""

    chosen: "Chosen"


Term = Number | ByHead | Integer | Scale | Read | Row | Arithmetic | Apply | Slice | Reduce | Softmax | Dot | Count


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
class Order:
    """`order p = k by hot[k] within 256`: each whole segment's keys by falling score, equal ones by position; the tail
    that is no whole segment stays. p is the place of a key, `p[e]` the place of token e; NaN sorts last.

    In expressions and conditions over cells, p is a variable as axes are: it counts places, and so do names bound
    inside cells of places. In clauses on pairs, and as `p[e]` anywhere, it is read from the flat table
    `Table(name, "order")`, which `limits.tables` has: n + 1 numbers for each query head, the places of its keys
    0 .. n - 1 and then -1. The place of token e is `Read(name, h * (n + 1) + min(max(e, -1), n))`, so that it is -1
    where there is no such token; what cannot leave 0 .. n is not clamped: k's is `Read(name, h * (n + 1) + k)`.
    """

    name: str
    by: "Term"
    within: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """`keep J in top 16 by weight[I, J]`: cells of `key` for each cell of `query` (None: the same for all queries).

    `key` is an axis of keys, of places or of distances. `counting` and `among` are conditions over the two axes, by
    name. `inside` chooses coarser cells first, of the same queries or coarser ones, and only what lies in those is a
    candidate. `joint`: one ranking over the cells of all queries, by falling score, then by query cell, then by key
    cell. `amount` is a number for each cell of `query` at most; `top` rounds it down, and takes none where it is below
    1 or NaN. The choice is empty for queries where a comparison of `when` fails.
    """

    rule: Literal["top", "cover", "reach", "under"]
    amount: Term
    percent: bool
    of: Literal["total", "visible", "triangle"]
    key: str
    query: str | None
    by: Term
    counting: Formula | None
    among: Formula | None
    text: str
    inside: "Chosen | None" = None
    joint: bool = False
    when: tuple["Threshold", ...] = ()


@dataclass(frozen=True, slots=True)
class Threshold:
    """`keep weight[I, k] >= limit[I] - 12`: a comparison of scores over at most one axis of each side."""

    op: Literal["<", "<=", ">", ">="]
    left: Term
    right: Term
    key: str | None
    query: str | None
    text: str
    when: tuple["Threshold", ...] = ()


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
    orders: tuple[Order, ...] = ()
