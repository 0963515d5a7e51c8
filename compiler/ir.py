"""The mask language after names are gone: exact integers, floor semantics, booleans."""

from dataclasses import dataclass, field
from typing import Literal

from ..dsl.source import Span

Op = Literal["+", "-", "*", "//", "%", "min", "max", "&", "|", "^", ">>"]
Relation = Literal["<", "<=", ">", ">=", "==", "!="]


@dataclass(frozen=True, slots=True)
class Const:
    value: int


@dataclass(frozen=True, slots=True)
class Var:
    """`q k` positions, `h g` heads, `n m` lengths; `i j` tiles and `u0 u1 ..` in plans."""

    name: str


@dataclass(frozen=True, slots=True)
class Binary:
    """`//` and `%` floor, always, and their right side is a positive constant; `>>` finds bits of what was chosen."""

    op: Op
    left: "Expr"
    right: "Expr"
    # Nodes of the tree; shared parts count each time, since passes walk them each time.
    weight: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", 1 + weight(self.left) + weight(self.right))


@dataclass(frozen=True, slots=True)
class Read:
    """One element of a table; -1 outside it. Tables are described by `Table`."""

    table: str
    index: "Expr"


Expr = Const | Var | Binary | Read


def weight(expr: Expr) -> int:
    """How many nodes a walk over an expression visits."""
    match expr:
        case Binary():
            return expr.weight
        case Read(_, index):
            return 1 + weight(index)
        case _:
            return 1


@dataclass(frozen=True, slots=True)
class Truth:
    value: bool


@dataclass(frozen=True, slots=True)
class Compare:
    op: Relation
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class InPowers:
    """value in {1, base, base^2, ...}."""

    value: Expr
    base: int


@dataclass(frozen=True, slots=True)
class And:
    items: tuple["Formula", ...]


@dataclass(frozen=True, slots=True)
class Or:
    items: tuple["Formula", ...]


@dataclass(frozen=True, slots=True)
class Not:
    item: "Formula"


Formula = Truth | Compare | InPowers | And | Or | Not

TableKind = Literal["input", "head", "sample", "enter", "leave", "order"]
TableAxis = Literal["token", "query", "key", "head", "none"]
ClauseKind = Literal["keep", "require", "drop"]


@dataclass(frozen=True, slots=True)
class Table:
    """Where a table's numbers come from.

    "input": the tensor the caller passes as `source`, one value for each `axis` element.
    "enter", "leave": the first and past-the-last preorder number of each token's subtree,
    from the parent array passed as `source`.
    "head": the constants in `values`, one a head. "sample": `sample` draws, see `sampling`.
    "order": places of keys in a selection's order, which scores give; see `selection.Order`.
    """

    name: str
    kind: TableKind
    axis: TableAxis = "token"
    source: str = ""
    values: tuple[int, ...] = ()
    sample: "Sample | None" = None


@dataclass(frozen=True, slots=True)
class Sample:
    """`count` distinct integers of `0 .. size` for each row of `keys` (extents), seeded.

    `size` and the extents are expressions in `n m` only; element t of row r is at r * count + t.
    """

    count: int
    size: Expr
    keys: tuple[Expr, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Clause:
    """One statement's condition, with its canonical text for reports and comments."""

    kind: ClauseKind
    formula: Formula
    text: str
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Mask:
    """What a pattern means: keeps unite, requires intersect, drops subtract."""

    name: str
    clauses: tuple[Clause, ...]
    tables: tuple[Table, ...] = ()

    @property
    def formula(self) -> Formula:
        """The whole mask as one formula; no `keep` clause keeps everything."""
        keeps = tuple(c.formula for c in self.clauses if c.kind == "keep")
        others = tuple(c.formula if c.kind == "require" else Not(c.formula) for c in self.clauses if c.kind != "keep")
        return conjunction((*others, disjunction(keeps) if keeps else Truth(True)))


def conjunction(items: tuple[Formula, ...]) -> Formula:
    """And, flattened and folded."""
    flat: list[Formula] = []
    for item in items:
        match item:
            case Truth(True):
                pass
            case Truth(False):
                return item
            case And(inner):
                flat.extend(inner)
            case _:
                flat.append(item)
    unique = tuple(dict.fromkeys(flat))
    if not unique:
        return Truth(True)
    return unique[0] if len(unique) == 1 else And(unique)


def disjunction(items: tuple[Formula, ...]) -> Formula:
    """Or, flattened and folded."""
    flat: list[Formula] = []
    for item in items:
        match item:
            case Truth(False):
                pass
            case Truth(True):
                return item
            case Or(inner):
                flat.extend(inner)
            case _:
                flat.append(item)
    unique = tuple(dict.fromkeys(flat))
    if not unique:
        return Truth(False)
    return unique[0] if len(unique) == 1 else Or(unique)
