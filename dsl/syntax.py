"""The surface syntax tree: what the user wrote, span by span, before any meaning."""

from dataclasses import dataclass, field
from typing import Literal

from .selection_syntax import Binder as Binder  # handed on, as `Node` is
from .selection_syntax import Chosen, Count, Divide, Dot, Reduce, Slice, Softmax
from .source import Node


@dataclass(frozen=True, slots=True)
class Number(Node):
    value: int


@dataclass(frozen=True, slots=True)
class Decimal(Node):
    text: str


@dataclass(frozen=True, slots=True)
class Boolean(Node):
    value: bool


@dataclass(frozen=True, slots=True)
class Name(Node):
    name: str


@dataclass(frozen=True, slots=True)
class Coordinate(Node):
    """`q.y` or `k.y`: a grid coordinate of the query or the key."""

    base: str
    axis: str


@dataclass(frozen=True, slots=True)
class Index(Node):
    """`doc[q]`, `alpha[layer, h]`: a read of an input or a table."""

    name: str
    indices: tuple["Expr", ...]


@dataclass(frozen=True, slots=True)
class Argument(Node):
    """One argument of a call; `keyword` is None when positional."""

    keyword: str | None
    value: "Expr"


@dataclass(frozen=True, slots=True)
class Call(Node):
    """`min(a, b)`, `powers(2)`, `window(512)`, `module.pattern(window=512)`."""

    module: str | None
    name: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Negate(Node):
    operand: "Expr"


@dataclass(frozen=True, slots=True)
class Not(Node):
    operand: "Expr"


@dataclass(frozen=True, slots=True)
class Absolute(Node):
    operand: "Expr"


BinaryOp = Literal["+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>"]
CompareOp = Literal["<", "<=", ">", ">=", "==", "!="]


@dataclass(frozen=True, slots=True)
class Binary(Node):
    op: BinaryOp
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Comparison(Node):
    """`a <= b < c` is Comparison((a, b, c), ("<=", "<"))."""

    operands: tuple["Expr", ...]
    ops: tuple[CompareOp, ...]


@dataclass(frozen=True, slots=True)
class Membership(Node):
    """`value in members`, or `value not in members`."""

    value: "Expr"
    members: "Expr"
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Range(Node):
    """`low .. high`, half-open; only after `in`."""

    low: "Expr"
    high: "Expr"


@dataclass(frozen=True, slots=True)
class SetLiteral(Node):
    """`{1, 4, 9}`; only after `in`."""

    items: tuple["Expr", ...]


@dataclass(frozen=True, slots=True)
class ListLiteral(Node):
    """`[1, 2]` or `[[1, 2], [3, 4]]`: the value of a table parameter."""

    items: tuple["Expr", ...]


@dataclass(frozen=True, slots=True)
class Logical(Node):
    """`a and b and c`: two operands or more, flattened."""

    op: Literal["and", "or"]
    operands: tuple["Expr", ...]


Expr = (
    Number
    | Decimal
    | Boolean
    | Name
    | Coordinate
    | Index
    | Call
    | Negate
    | Not
    | Absolute
    | Binary
    | Comparison
    | Membership
    | Range
    | SetLiteral
    | ListLiteral
    | Logical
    | Reduce
    | Dot
    | Divide
    | Softmax
    | Slice
    | Count
    | Chosen
)


@dataclass(frozen=True, slots=True)
class Type(Node):
    """`int`, `tokens`, `bool`, or `table[layer, head]` (name "table", axes in order)."""

    name: str
    axes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parameter(Node):
    name: str
    type: Type
    default: Expr | None


@dataclass(frozen=True, slots=True)
class Keep(Node):
    """`keep J in top 4 by w[I, J] when a[I] < 2`."""

    condition: Expr
    when: Expr | None = None


@dataclass(frozen=True, slots=True)
class Require(Node):
    condition: Expr


@dataclass(frozen=True, slots=True)
class Drop(Node):
    condition: Expr


@dataclass(frozen=True, slots=True)
class Causal(Node):
    pass


@dataclass(frozen=True, slots=True)
class Let(Node):
    name: str
    value: Expr


@dataclass(frozen=True, slots=True)
class Grid(Node):
    """`grid (y, x) over (height, width) of 64`: tokens in row-major order, `cell` tokens a point."""

    axes: tuple[str, ...]
    extents: tuple[Expr, ...]
    cell: Expr | None


@dataclass(frozen=True, slots=True)
class Input(Node):
    """`input doc[token]: int`, given at call time."""

    name: str
    axis: str
    type: Type


@dataclass(frozen=True, slots=True)
class Axis(Node):
    """`axis I = q // 128`, or `axis t = last 64 of q`, where `side` is q and the value 64."""

    name: str
    value: Expr
    side: Literal["q", "k"] | None = None


@dataclass(frozen=True, slots=True)
class Order(Node):
    """`order p = k by hot[k] within 256`."""

    name: str
    by: Expr
    within: Expr


@dataclass(frozen=True, slots=True)
class Score(Node):
    """`let weight[I, J] = ..`: one number, or one row of numbers, for each cell."""

    name: str
    axes: tuple[str, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Given(Node):
    """`input gate[I, J]: float`: numbers, or rows (`vector`), given at call time for each cell."""

    name: str
    axes: tuple[str, ...]
    type: Type


Statement = Keep | Require | Drop | Causal | Let | Grid | Input | Axis | Order | Score | Given


@dataclass(frozen=True, slots=True)
class Claim(Node):
    """`reaches 50% within 12 layers at n = 4096`; what is left out is None. `strict` is `density <`, not `<=`."""

    kind: Literal["complete", "density", "reaches"]
    percent: Expr | None
    strict: bool
    within: Expr | None
    at: Expr | None


@dataclass(frozen=True, slots=True)
class Coverage(Node):
    """`coverage { .. }`; a definition has one at most, which the checker says."""

    claims: tuple[Claim, ...]


@dataclass(frozen=True, slots=True)
class PatternDef(Node):
    name: str
    parameters: tuple[Parameter, ...]
    doc: str
    statements: tuple[Statement, ...]
    coverage: tuple[Coverage, ...] = ()


@dataclass(frozen=True, slots=True)
class Every(Node):
    """`every step`, or `low .. high every step`."""

    bounds: Range | None
    step: Expr


@dataclass(frozen=True, slots=True)
class Else(Node):
    """`else`: whatever the other lines do not name."""


Selection = Range | Every | SetLiteral | Else


@dataclass(frozen=True, slots=True)
class HeadLine(Node):
    """`heads SELECTION: USE`; `heads` is None where a layer's line names the one pattern of all its heads."""

    heads: Selection | None
    use: Call


@dataclass(frozen=True, slots=True)
class LayerLine(Node):
    """`layers SELECTION: USE`, or `layers SELECTION { heads .. }`."""

    layers: Selection
    heads: tuple[HeadLine, ...]


@dataclass(frozen=True, slots=True)
class StackDef(Node):
    """`stack NAME(parameters) over DEPTH layers { .. }`."""

    name: str
    parameters: tuple[Parameter, ...]
    doc: str
    depth: Expr
    lines: tuple[LayerLine, ...]
    coverage: tuple[Coverage, ...] = ()


Definition = PatternDef | StackDef


@dataclass(frozen=True, slots=True)
class Import(Node):
    """`import lib.sliding as s`: `path` is ("lib", "sliding"), `alias` what the file calls it."""

    path: tuple[str, ...]
    alias: str


@dataclass(frozen=True, slots=True)
class Precompile(Node):
    """`precompile bf16 head_dim 128`."""

    dtype: str
    head_dim: int


@dataclass(frozen=True, slots=True)
class Comment(Node):
    """A `#` comment with its text (without the hash); `own_line` when nothing precedes it."""

    text: str
    own_line: bool


@dataclass(frozen=True, slots=True)
class File(Node):
    imports: tuple[Import, ...]
    precompiles: tuple[Precompile, ...]
    patterns: tuple[PatternDef, ...]
    stacks: tuple[StackDef, ...] = ()
    comments: tuple[Comment, ...] = field(default=(), compare=False)
