"""What a kernel of maps depends on, and the parameters that it has."""

import ast
from dataclasses import dataclass

from ..compiler.intervals import Interval, extent
from ..compiler.lower_term import free
from ..compiler.selection import Heads, Inside, Integer, Term
from ..compiler.terms import within
from ..compiler.walk import expressions
from .expressions import INT32, Context
from .map_match import ALWAYS, Match
from .map_tiles import Config
from .quote import name


@dataclass(frozen=True, slots=True)
class Product:
    """Rows of `width` numbers by columns. A side may be the sum of several parts, each stored `unit` times too large.

    `mixed`: of two types, or of 32 bits, which the interpreter alone multiplies.
    """

    width: int
    left: int = 1
    right: int = 1
    unit: float = 1.0
    mixed: bool = False

    @property
    def wide(self) -> int:
        """Numbers of a row in a tile."""
        return max(16, 1 << (self.width - 1).bit_length())

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of a row and of a column in a tile."""
        each = self.wide * (4 if self.mixed else 2)
        return each * self.left, each * self.right


@dataclass(frozen=True, slots=True)
class Kernel:
    """Everything a kernel's text depends on. `sizes` has the tokens of the cells that names count."""

    title: str
    match: Match
    products: tuple[Product, ...]
    config: Config
    piece_m: int
    piece_n: int
    sizes: tuple[tuple[str, int], ...]

    @property
    def whole(self) -> bool:
        """Whether a program goes through all columns."""
        return not self.match.column.outer

    @property
    def limited(self) -> bool:
        """Whether a condition leaves tiles out."""
        return self.match.where != ALWAYS

    @property
    def shifted(self) -> bool:
        """Whether a column of the output is several of the map, or one several times."""
        return len(self.match.shifts) > 1 or any(times > 1 for _, times in self.match.shifts)

    @property
    def loops(self) -> tuple[str, ...]:
        """Names that are looped over, other than heads."""
        return tuple(loop.name for loop in self.match.loops if not isinstance(loop, Heads))

    @property
    def numbers(self) -> tuple[tuple[str, bool, bool, tuple[str, ...]], ...]:
        """Tensors of numbers: whether they depend on rows, on columns, and on which loops."""
        own = ((f"x{k}", free(term)) for k, term in enumerate(self.match.numbers))
        weights = (("relative", frozenset((self.match.row.name,))),) if self.match.weights else ()
        row, inner = self.match.row.name, self.match.inner
        return tuple((title, row in x, inner in x, self.among(x)) for title, x in (*own, *weights))

    @property
    def operands(self) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
        """Tensors of rows: how many parts they have, and on which loops they depend."""
        pairs = enumerate(zip(self.match.dots, self.products, strict=True))
        sides = ((f"{s}{k}", count, term) for k, (dot, p) in pairs for s, count, term in _sides(dot.left, dot.right, p))
        return tuple((title, parts, self.among(free(term))) for title, parts, term in sides)

    def among(self, names: frozenset[str]) -> tuple[str, ...]:
        """Those of the loops that are among names."""
        return tuple(loop for loop in self.loops if loop in names)

    def spelled(self, loop: str) -> ast.expr:
        """A loop's variable: no name of a file reaches the kernel."""
        return name(f"loop{self.loops.index(loop)}")

    @property
    def context(self) -> Context:
        """How conditions and integers are spelled; cells are as many as tokens allow."""
        spelling = {x: name(x) for x in ("n", "m", "h")} | {"g": name("group")}
        spelling |= {self.match.row.name: name("row"), self.match.inner: name("column")}
        spelling |= {loop: self.spelled(loop) for loop in self.loops}
        boxes = {title: Interval(0, (1 << 30) // max(1, size)) for title, size in self.sizes}
        boxes |= {"n": Interval(0, 1 << 30), "m": Interval(0, 1 << 30), "h": Interval(0, 1 << 16)}
        boxes["g"] = boxes["h"]
        integers = [term.value for term in within(self.match.body) if isinstance(term, Integer)]
        computed = [*expressions(self.match.where), *integers]
        return Context(spelling, boxes, any(extent(expr, boxes, {})[1] >= INT32 for expr in computed))


def _sides(left: Term, right: Term, product: Product) -> tuple[tuple[str, int, Term], ...]:
    return (("a", product.left, left), ("b", product.right, right))


def argument_names(kernel: Kernel) -> tuple[str, ...]:
    """The kernel's parameters, in order; the launcher passes the same."""
    lead = ("", "_batch", "_group", "_head")
    rows = (
        f"{title}{x}"
        for title, parts, loops in kernel.operands
        for x in (
            *lead,
            "_cell",
            "_d",
            *(["_part"] if parts > 1 else []),
            *(f"_{kernel.loops.index(x)}" for x in loops),
        )
    )
    numbers = (
        f"{title}{x}"
        for title, row, column, loops in kernel.numbers
        for x in (*lead, *["_row"] * row, *["_column"] * column, *(f"_{kernel.loops.index(x)}" for x in loops))
    )
    tables = (("begin", "runs") if kernel.whole else ("may", "may_columns", "step_n")) if kernel.limited else ()
    return ("out", *rows, *numbers, *tables, *_counts(kernel), "scale")


def _counts(kernel: Kernel) -> tuple[str, ...]:
    ends = (f"{x}_{side}" for side in ("m", "n") for x in ("tiles", "first", "begin", "end", "pieces"))
    cells = (f"{x}_{s}" for s, cells in celled(kernel) if cells for x in ("ratio", "parts", "width"))
    loops = (f"loop{k}_{x}" for k in range(len(kernel.loops)) for x in ("low", "high"))
    step = ("step_m",) if kernel.limited else ()
    return (*ends, *cells, "inner_begin", "inner_end", *loops, *step, "groups", "heads", "all_groups", "each", "n", "m")


def celled(kernel: Kernel) -> tuple[tuple[str, bool], ...]:
    """Of rows and of columns, whether they are folded into cells."""
    return tuple((s, isinstance(x.binder, Inside)) for s, x in (("m", kernel.match.row), ("n", kernel.match.column)))


def steady_arguments(kernel: Kernel) -> tuple[str, ...]:
    """Integers whose value never selects another specialisation: all but the strides of rows, which tell alignment."""
    tails = ("_batch", "_group", "_head", "_row", "_column", *(f"_{k}" for k in range(len(kernel.loops))))
    known = set(argument_names(kernel))
    strides = (f"{title}{tail}" for title, *_ in kernel.numbers for tail in tails if f"{title}{tail}" in known)
    return (*_counts(kernel), *strides, *(x for x in ("may_columns", "step_n") if x in known))
