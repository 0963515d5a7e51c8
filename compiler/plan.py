"""What a compiled pattern does: which tiles it visits, in which loops, under which predicates."""

from dataclasses import dataclass
from typing import Literal

from .intervals import Interval
from .ir import Const, Expr, Formula, Mask, Truth


@dataclass(frozen=True, slots=True)
class Run:
    """Key tiles `low, low + step, ..` below `high`, where `guard` holds; bounds use `i n off h g u0 ..`."""

    low: Expr
    high: Expr
    step: int = 1
    guard: Formula = Truth(True)


@dataclass(frozen=True, slots=True)
class Region:
    """Tiles treated alike. `mask` is what may still fail inside them; Truth(True) means full tiles."""

    runs: tuple[Run, ...]
    mask: Formula

    @property
    def full(self) -> bool:
        """No pair of these tiles is out, so no mask code is emitted."""
        return self.mask == Truth(True)


@dataclass(frozen=True, slots=True)
class Tiling:
    """Rows of a query tile and of a key tile."""

    block_m: int
    block_n: int


Strategy = Literal["run", "list", "table"]


@dataclass(frozen=True, slots=True)
class Shape:
    """What a plan may depend on besides the pattern; lengths stay symbolic below `2 ** bits`."""

    square: bool
    heads: int = 1
    kv_heads: int = 1
    layer: int = 0
    layers: int = 1
    bits: int = 20

    def boxes(self) -> dict[str, Interval]:
        """Interval bounds of every variable."""
        size = 1 << self.bits
        low = 0 if self.square else -size
        return {
            "q": Interval(low, size),
            "k": Interval(0, size),
            "i": Interval(0, size),
            "j": Interval(0, size),
            "n": Interval(1, size),
            "m": Interval(1, size if self.square else 2 * size),
            "off": Interval(low, 0 if self.square else size),
            "h": Interval(0, self.heads - 1),
            "g": Interval(0, self.kv_heads - 1),
        }


@dataclass(frozen=True, slots=True)
class Plan:
    """An ordered list of regions for one tiling.

    strategy "run": the kernel's own loops; "list": the same loops expanded to tile lists once a length is known;
    "table": tile lists found by bounds and evaluation once lengths and inputs are known; `reason` says what isl could
    not hold. Its last region, and no other, has no runs, only the mask: its tiles are the listed ones. Regions before
    it are loops in the kernel.

    Lists of tiles may come with lists of single `columns`: their formula says which of their pairs count, those of the
    tiles left out. Where `ordered`, listed key tiles are tiles of places, whose keys are looked up. Of a `band` the
    queries are some of the sequence's: `off`, the position of the first, is an argument and not n - m, and m counts
    them. Formulas may mention both, so that they find a row of what was chosen for the band.
    """

    mask: Mask
    shape: Shape
    tiling: Tiling
    formula: Formula = Truth(True)
    strategy: Strategy = "run"
    regions: tuple[Region, ...] = ()
    uniforms: tuple[tuple[str, Expr], ...] = ()
    per_head: bool = False
    reason: str = ""
    columns: Formula | None = None
    ordered: bool = False
    band: bool = False

    def boxes(self) -> dict[str, Interval]:
        """Interval bounds of every variable: a band's queries are tokens."""
        found = self.shape.boxes()
        return found | {name: Interval(0, found[name].high) for name in ("q", "off") if self.band}


ONE = Const(1)
