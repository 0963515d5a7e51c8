"""What a stack of masks lets tokens see: the facts that reports print, pages draw, and claims are held against.

Pairs are (query, key). A pair is *admissible* when key <= query in causal stacks, and always in others; it is *reached*
at depth d when information can flow from the key to the query through the first d layers, staying in place being free.
`possible` counts what cannot be excluded; where it equals the guaranteed count the number is exact.
"""

from dataclasses import dataclass
from typing import Literal

SCHEMA = "weft.coverage/1"

Pair = tuple[int, int]
Status = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True, slots=True)
class RowFacts:
    """One query: how many keys it reaches, of how many admissible, and how many of them without a gap back from it."""

    row: int
    reached: int
    admissible: int
    contiguous: int


@dataclass(frozen=True, slots=True)
class DepthFacts:
    """Through the first `depth` layers: guaranteed and possible pairs, the last query, the one with the least share."""

    depth: int
    pairs: int
    possible: int
    last: RowFacts
    worst: RowFacts


@dataclass(frozen=True, slots=True)
class Again:
    """A key that a query does not attend to, and a later query does: a cache must not drop it."""

    key: int
    skipped_by: int
    needed_by: int


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """Layers with the same masks. Rows are of the union over heads, without staying in place.

    `head_pairs` sums the kept pairs of all heads; `tile_pairs` those of all touched tiles of 128 by 128, which is what
    a kernel computes; `live` is the most keys a decoder has to hold at any time, `cached` that of each key/value group,
    summed. Where not exact: pairs and the least row are guaranteed, the others possible, and empty rows certain.
    """

    layers: tuple[int, ...]
    text: str
    pairs: int
    head_pairs: int
    tile_pairs: int
    least: int
    most: int
    empty: int
    first_empty: int | None
    live: int
    cached: int
    again: Again | None
    exact: bool
    heads: int
    # Pairs of all heads that cannot be excluded.
    possible_head_pairs: int


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """One head, or one key/value group (its heads united), alone through all layers."""

    kind: Literal["head", "group"]
    members: tuple[int, ...]
    pairs: int
    complete_at: int | None


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a route, from the query at `layer` (counted from the input) to a key of that layer."""

    layer: int
    query: int
    key: int


@dataclass(frozen=True, slots=True)
class Route:
    """The fewest layers through which a query sees a key, and one way; no hops when it never does."""

    query: int
    key: int
    depth: int | None
    hops: tuple[Hop, ...]


@dataclass(frozen=True, slots=True)
class Picture:
    """Shares of reached pairs, 0 to 1, in squares of `cell` tokens; row-major, queries down. Depth 0 is one layer's
    mask alone, named by `title`."""

    title: str
    depth: int
    cell: int
    shares: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class Form:
    """A closed form: what it says, as a formula and as a number, and how it was checked."""

    quantity: str
    formula: str
    value: str
    checked: str


@dataclass(frozen=True, slots=True)
class Flow:
    """A model, on blocks of `block` tokens: not what a trained network does.

    `paths` are log2 of the number of ways from the last block to each block it reaches (least, median, most);
    `influence` the share of a uniform random walk from the last block that ends at its own block, in the most recent
    tenth, and in the first tenth of the sequence. `bottlenecks` are blocks, other than the ends, that every way from
    the last block to the first goes through; `cut` is the fewest blocks whose removal separates the two (None: they
    are linked).
    """

    block: int
    paths: tuple[float, float, float]
    influence: tuple[float, float, float]
    bottlenecks: tuple[int, ...]
    cut: int | None


@dataclass(frozen=True, slots=True)
class Cost:
    """Forward cost of all layers and heads, beside dense attention over the admissible pairs. Times are predicted."""

    head_dim: int
    flops: int
    dense_flops: int
    bytes: int
    dense_bytes: int
    cache_bytes: int
    dense_cache_bytes: int
    milliseconds: float
    dense_milliseconds: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim of the file or the command line, and what became of it."""

    text: str
    status: Status
    detail: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """The whole report of one stack at one length."""

    name: str
    doc: str
    n: int
    layers: int
    heads: int
    kv_heads: int
    causal: bool
    admissible: int
    layer_facts: tuple[LayerFacts, ...]
    depths: tuple[DepthFacts, ...]
    # The first depth at which every admissible pair is reached; None when there is none among the layers.
    complete_at: int | None
    # An admissible pair that the whole stack does not reach; None when there is none, or none is certain.
    hole: Pair | None
    # Pairs reached when the stack is repeated without end, and after how many layers nothing new comes.
    limit: int
    limit_depth: int | None
    head_facts: tuple[HeadFacts, ...]
    forms: tuple[Form, ...]
    flow: Flow | None
    cost: Cost
    route: Route | None
    verdicts: tuple[Verdict, ...]
    pictures: tuple[Picture, ...]
    # Why some numbers are bounds; empty when all are exact.
    undecided: str
    seconds: float

    def __str__(self) -> str:
        from .coverage_text import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        """The page, in a frame of its own so that neither it nor the notebook disturbs the other."""
        from html import escape

        from .coverage_page import as_page

        page = escape(as_page([self]), quote=True)
        return f'<iframe srcdoc="{page}" sandbox="allow-scripts" style="width:100%;height:860px;border:0"></iframe>'
