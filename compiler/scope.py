"""What names mean while a pattern is lowered, and how much lowering may still cost."""

from dataclasses import dataclass, field
from typing import NoReturn

from ..dsl.diagnostics import CompileError, Diagnostic
from ..dsl.loader import Module
from ..dsl.source import Span
from .ir import Expr, Formula, Table
from .plan import Shape

# Nodes one pattern may expand to, `let`s and used patterns counted each time they are used.
MOST_NODES = 20_000
# Magnitudes a mask may compute: whatever is compared is evaluated in 64 bits.
LARGEST_RESULT = 1 << 61
# Values a parameter or an intermediate constant may take.
LARGEST_VALUE = 1 << 40


@dataclass(frozen=True, slots=True)
class TableValue:
    """A table parameter's numbers: one row a layer where it has layers, one column a head where it has heads."""

    axes: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class GridValue:
    """Axis names, their constant sizes, and tokens a point."""

    axes: tuple[str, ...]
    extents: tuple[int, ...]
    cell: int


@dataclass(frozen=True, slots=True)
class InputValue:
    """An input's axis: `token`, `query`, `key` or `head`."""

    axis: str


Meaning = Expr | Formula | TableValue | InputValue


@dataclass(slots=True)
class Ledger:
    """What one lowering has used up and found, shared by all scopes of it."""

    nodes: int = 0
    tables: dict[str, Table] = field(default_factory=dict[str, Table])
    used: set[str] = field(default_factory=set[str])
    # Whether `layer` was asked for: what never asks is the same in every layer.
    layered: bool = False


@dataclass(frozen=True, slots=True)
class Scope:
    """Names of one pattern being lowered. `sizes` are the node counts of its `let`s."""

    module: Module
    shape: Shape
    ledger: Ledger
    names: dict[str, Meaning] = field(default_factory=dict[str, Meaning])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    grid: GridValue | None = None
    # A selection's order of keys, whose places are read from a table of its name.
    order: str = ""
    depth: int = 0

    def spend(self, nodes: int, span: Span | None) -> None:
        """Count expanded nodes against the budget."""
        self.ledger.nodes += nodes
        if self.ledger.nodes > MOST_NODES:
            fail("E011", span, f"the pattern expands to more than {MOST_NODES} terms", "use fewer or smaller `let`s")


def fail(code: str, span: Span | None, message: str, hint: str = "") -> NoReturn:
    """Stop with one diagnostic."""
    raise CompileError([Diagnostic(code, span, message, hint)])
