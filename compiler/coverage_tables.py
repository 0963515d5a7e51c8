"""A coverage report in words and in tables of words: what the terminal and the page both show."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from .coverage import Coverage, DepthFacts, HeadFacts, LayerFacts
from .report import binary, percent, plural, si

# Depths that are all shown; beyond them powers of two and the last.
FIRST_DEPTHS = 8
# Blocks that the text names.
MOST_RANGES = 8
LONGEST_NAME = 40
# Characters of a column of ranges.
MOST_OF_COLUMN = 16
GUARANTEED = "a .. b is guaranteed .. possible; rows are guaranteed"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings: `left` columns of names, then numbers, then a bar for each share in `bars`."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()
    left: int = 1
    bars: tuple[float, ...] = ()


def plain(text: str) -> str:
    """Text in one line, without what could steer a terminal or turn the reading around."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


def shorten(text: str) -> str:
    """A name that fits over a column."""
    name = plain(text)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def share_of(part: float, whole: float) -> str:
    """A share with three digits that says 100 % or 0 % only where it is."""
    if not whole:
        return "-"
    text = percent(part / whole)
    if text == "100 %" and part != whole:
        return "under 100 %" if part < whole else "over 100 %"
    return text if part < 1000 * whole / 100 else f"{100 * part / whole:,.0f} %"


def span(low: str, high: str) -> str:
    """A number, or two that it lies between."""
    return low if low == high else f"{low} .. {high}"


def ranges(numbers: Iterable[int], dots: str = "..") -> str:
    """`0..3, 5`."""
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and number == found[-1][1] + 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    shown = [f"{a:,}" if a == b else f"{a:,}{dots}{b:,}" for a, b in found[:MOST_RANGES]]
    more = len(found) - MOST_RANGES
    return ", ".join([*shown, f"and {more:,} more"] if more > 0 else shown)


def milliseconds(value: float) -> str:
    """A time with three digits."""
    return f"{value:,.0f} ms" if value >= 999.5 else f"{value:.3g} ms"


def size(report: Coverage) -> str:
    """What the report is about, in one line."""
    heads = plural(report.heads, "head")
    if report.kv_heads != report.heads:
        heads += f" on {plural(report.kv_heads, 'key/value head')}"
    order = "causal" if report.causal else "not causal"
    return f"{report.n:,} tokens, {plural(report.layers, 'layer')}, {heads}, {order}"


def reached(report: Coverage, facts: DepthFacts) -> str:
    """Share of the admissible pairs, as bounds where it is not known."""
    if facts.pairs == facts.possible:
        return share_of(facts.pairs, report.admissible)
    low, high = (share_of(pairs, report.admissible) for pairs in (facts.pairs, facts.possible))
    return f"{low} .. {high}"


def answer(report: Coverage) -> str:
    """Whether every token sees every other it may, in one sentence."""
    layers = plural(report.layers, "layer")
    if report.complete_at is not None:
        return (
            f"complete after {plural(report.complete_at, 'layer')}: "
            f"every one of the {report.admissible:,} admissible pairs is reached"
        )
    last = report.depths[-1]
    low, high = (share_of(pairs, report.admissible) for pairs in (last.pairs, last.possible))
    share = low if last.pairs == last.possible else f"{low} (guaranteed) .. {high} (possible)"
    if stopped(report):
        share = f"at least {low} (known up to depth {last.depth:,})"
    share += " of pairs reached"
    if report.hole is None:
        return f"undecided: {share} in {layers}: {plain(report.undecided) or 'no reason is known'}"
    endless = share_of(report.limit, report.admissible)
    if report.limit == report.admissible:
        again = "repeating the stack reaches all"
        again += f" after {plural(report.limit_depth, 'layer')}" if report.limit_depth is not None else ""
    elif limit_is_exact(report):
        again = f"repeating the stack without end reaches {endless}"
    else:
        again = f"repeating the stack without end reaches at least {endless}"
    query, key = report.hole
    return (
        f"{'never complete' if is_never(report) else 'not complete'}: query {query:,} cannot see key {key:,} "
        f"({layers}; {share}; {again})"
    )


def stopped(report: Coverage) -> bool:
    """Whether the analysis ended before the layers did."""
    return report.complete_at is None and len(report.depths) < report.layers


def limit_is_exact(report: Coverage) -> bool:
    """Whether what repeating the stack reaches is known, and not only a part of it."""
    return not report.undecided and report.limit_depth is not None


def is_never(report: Coverage) -> bool:
    """Whether no number of repeats completes the stack, for certain."""
    return limit_is_exact(report) and report.limit < report.admissible


def shown_depths(report: Coverage) -> tuple[DepthFacts, ...]:
    """All depths of a short stack, and of a long one those that say most."""
    last = report.depths[-1].depth
    return tuple(
        d for d in report.depths if d.depth <= FIRST_DEPTHS or d.depth in (last, 1 << d.depth.bit_length() - 1)
    )


def tables(report: Coverage) -> tuple[Table, ...]:
    """All tables of one report that have something to say."""
    made = (layer_table, depth_table, distance_table, head_table, form_table, flow_table, cost_table)
    return tuple(table for table in (make(report) for make in made) if table.rows)


def layer_table(report: Coverage) -> Table:
    """What each layer keeps by itself."""
    rows = [
        (
            few_ranges(facts.layers),
            share_of(facts.pairs, report.admissible),
            f"{facts.least:,}",
            f"{facts.most:,}",
            f"{facts.empty:,}",
            f"{facts.tile_pairs / facts.head_pairs:.3g}" if facts.head_pairs else "-",
            f"{facts.live:,}",
            "no" if facts.again else "yes" if facts.exact else "undecided",
            "exact" if facts.exact else "bounds",
        )
        for facts in report.layer_facts
    ]
    heads = ("layers", "density", "least row", "most", "empty rows", "waste", "cache keys", "drop keys", "numbers")
    notes = [note for facts in report.layer_facts for note in layer_notes(facts)]
    return Table("each layer, of admissible pairs", heads, tuple(rows), tuple(notes))


def few_ranges(layers: Sequence[int]) -> str:
    """Layers for a column: the first and how many where their ranges are long."""
    text = ranges(layers)
    return text if len(text) <= MOST_OF_COLUMN else f"{layers[0]}, .. ({len(layers)})"


def layer_notes(facts: LayerFacts) -> list[str]:
    """What a layer is, and the places that speak against it."""
    name = f"{'layer' if len(facts.layers) == 1 else 'layers'} {ranges(facts.layers)}"
    notes = [f"{name}: {plain(facts.text)}"] if facts.text else []
    if facts.heads > 1 and facts.pairs and facts.exact:
        shared = facts.head_pairs / facts.pairs
        notes.append(f"{name}: {shared:.3g} of {facts.heads} heads keep a pair that any of them keeps, on average")
    if facts.first_empty is not None:
        notes.append(f"{name}: query {facts.first_empty:,} is the first that keeps no key")
    if facts.again:
        key, skipped, needed = facts.again.key, facts.again.skipped_by, facts.again.needed_by
        notes.append(f"{name}: key {key:,} must not be dropped: skipped by query {skipped:,}, needed by {needed:,}")
    if not facts.exact:
        notes.append(
            f"{name}: density and least row are guaranteed, most, waste and cache keys possible, empty rows certain"
        )
    return notes


def depth_table(report: Coverage) -> Table:
    """What is reached through the first layers."""
    rows = tuple(
        (
            f"{d.depth:,}",
            reached(report, d),
            f"{d.last.reached:,}",
            f"{d.last.contiguous:,}",
            f"{d.worst.row:,}",
            f"{d.worst.reached:,}",
            share_of(d.worst.reached, d.worst.admissible),
        )
        for d in shown_depths(report)
    )
    exact = all(d.pairs == d.possible for d in report.depths)
    heads = ("depth", "pairs reached", "last row", "contiguous", "worst row", "reaches", "share")
    return Table("reached through the first layers", heads, rows, () if exact else (GUARANTEED,))


def distance_table(report: Coverage) -> Table:
    """How many layers pairs are apart."""
    shown = shown_depths(report)
    found = [(f"{shown[0].depth:,}", shown[0].pairs)]
    for before, here in pairwise(shown):
        name = f"{here.depth:,}" if here.depth == before.depth + 1 else f"{before.depth + 1:,}..{here.depth:,}"
        found.append((name, here.pairs - before.pairs))
    while len(found) > 1 and not found[-1][1]:
        found.pop()
    exact = all(d.pairs == d.possible for d in report.depths)
    missing = report.admissible - shown[-1].pairs
    rest = "not known" if stopped(report) else "not reached" if exact else "not guaranteed"
    found += [(rest, missing)] if missing else []
    rows = tuple((name, share_of(pairs, report.admissible)) for name, pairs in found)
    bars = tuple(pairs / report.admissible if report.admissible else 0.0 for _, pairs in found)
    title = "pairs by the depth that first reaches them" + ("" if exact else ", guaranteed")
    return Table(title, ("depth", "share"), rows, bars=bars)


def head_table(report: Coverage) -> Table:
    """What single heads and groups reach by themselves, equal ones in one row."""
    alike: dict[tuple[str, int, int | None], list[HeadFacts]] = {}
    for facts in report.head_facts:
        alike.setdefault((facts.kind, facts.pairs, facts.complete_at), []).append(facts)
    rows: list[tuple[str, ...]] = []
    for (kind, pairs, complete), members in alike.items():
        heads = {head for facts in members for head in facts.members}
        name = f"{'head' if len(heads) == 1 else 'heads'} {ranges(heads, '-')}"
        if kind == "group":
            name = f"{plural(len(members), 'group')} of {name}"
        after = "undecided" if report.undecided else f"not in {report.layers:,}"
        if complete is not None:
            after = plural(complete, "layer")
        rows.append((name, share_of(pairs, report.admissible), after))
    note = ("shares are guaranteed",) if report.undecided and rows else ()
    return Table("each alone, through all layers", ("heads", "pairs reached", "complete after"), tuple(rows), note)


def form_table(report: Coverage) -> Table:
    """The closed forms."""
    rows = tuple((plain(f.quantity), plain(f.formula), plain(f.value), plain(f.checked)) for f in report.forms)
    return Table("closed forms", ("quantity", "formula", "value", "checked"), rows, left=4)


def flow_table(report: Coverage) -> Table:
    """How information would spread if every kept pair weighed the same."""
    flow = report.flow
    if flow is None:
        return Table("flow", (), ())
    ways = ", ".join(f"2^{log:.3g} {name}" for log, name in zip(flow.paths, ("least", "median", "most"), strict=True))
    own, recent, first = (share_of(share, 1) for share in flow.influence)
    rows = [
        ("ways from the last block", ways),
        ("a random walk ends", f"{own} in its own block, {recent} in the last tenth, {first} in the first"),
        ("bottleneck blocks", ranges(flow.bottlenecks) or "none"),
    ]
    apart = "nothing: they are linked" if flow.cut is None else f"{flow.cut:,} at the fewest"
    rows.append(("blocks between last and first", apart))
    notes = ["a model of the masks alone, every kept pair weighing the same: not what a trained network does"]
    if report.undecided:
        notes.append("of guaranteed pairs only")
    return Table(f"flow (model, blocks of {flow.block:,} tokens)", ("", ""), tuple(rows), tuple(notes), left=2)


def cost_table(report: Coverage) -> Table:
    """Forward cost beside dense attention."""
    cost = report.cost
    pairs: tuple[tuple[str, float, float, Callable[[float], str]], ...] = (
        ("FLOPs", cost.flops, cost.dense_flops, si),
        ("bytes moved", cost.bytes, cost.dense_bytes, binary),
        ("key/value cache", cost.cache_bytes, cost.dense_cache_bytes, binary),
        ("time (predicted)", cost.milliseconds, cost.dense_milliseconds, milliseconds),
    )
    rows = tuple(
        (name, show(here).strip(), show(dense).strip(), share_of(here, dense)) for name, here, dense, show in pairs
    )
    title = f"cost of one forward, all layers and heads, head dim {cost.head_dim:,}"
    notes = () if all(facts.exact for facts in report.layer_facts) else ("of all pairs that are possible: at most",)
    return Table(title, ("", "this stack", "dense", "of dense"), rows, notes)


def route_words(report: Coverage) -> tuple[str, ...]:
    """The route as a sentence and a chain of positions; nothing when none was asked for."""
    route = report.route
    if route is None:
        return ()
    if route.depth is None:
        seen = "is not guaranteed to see" if report.undecided else "does not see"
        return (f"query {route.query:,} {seen} key {route.key:,} through {plural(report.layers, 'layer')}",)
    words = f"query {route.query:,} sees key {route.key:,} through {plural(route.depth, 'layer')}, no fewer"
    if report.undecided:
        words = words.replace("no fewer", "perhaps fewer")
    steps = [f"{route.query:,}", *(f"{hop.key:,} (layer {hop.layer:,})" for hop in route.hops)]
    return (words, " -> ".join(steps))


def closing(report: Coverage) -> str:
    """What is claimed of the numbers, and how long they took."""
    claim = f"some numbers are bounds: {plain(report.undecided)}" if report.undecided else "counts are exact"
    claim += "" if report.forms else "; no closed form is known, all are computed"
    return f"{claim}; analysed in {report.seconds:.2g} s"


def comparison_table(reports: Sequence[Coverage]) -> Table:
    """Several stacks side by side, a column each."""
    depths = min(FIRST_DEPTHS, max((report.layers for report in reports), default=0))
    columns = [comparison_column(report, range(1, 1 + depths)) for report in reports]
    rows = tuple((row[0][0], *(value for _, value in row)) for row in zip(*columns, strict=True))
    return Table("comparison", ("", *(shorten(report.name) for report in reports)), rows)


def comparison_column(report: Coverage, depths: Sequence[int]) -> list[tuple[str, str]]:
    """What is compared of one stack, by name."""
    cost = report.cost
    return [
        ("tokens", f"{report.n:,}"),
        ("layers", f"{report.layers:,}"),
        ("density of a layer", densities(report)),
        ("most keys of a row", f"{max((facts.most for facts in report.layer_facts), default=0):,}"),
        *((f"last row reaches at depth {depth}", row_at(report, depth)[0]) for depth in depths),
        *((f"of it contiguous at depth {depth}", row_at(report, depth)[1]) for depth in depths),
        ("complete", completeness(report)),
        ("unseen: query, key", f"{report.hole[0]:,}, {report.hole[1]:,}" if report.hole else "-"),
        ("never reached", unreachable(report)),
        ("FLOPs", si(cost.flops).strip()),
        ("key/value cache", binary(cost.cache_bytes)),
        ("time (predicted)", milliseconds(cost.milliseconds)),
        ("counts", "guaranteed" if report.undecided else "exact"),
    ]


def densities(report: Coverage) -> str:
    """The density of a layer, or of the sparsest and the densest."""
    found = [facts.pairs for facts in report.layer_facts] or [0]
    return span(*(share_of(pairs, report.admissible) for pairs in (min(found), max(found))))


def row_at(report: Coverage, depth: int) -> tuple[str, str]:
    """What the last row reaches at a depth, and how much of it without a gap; dashes beyond the stack."""
    found = [d.last for d in report.depths if d.depth <= depth]
    known = found and depth <= report.layers
    return (f"{found[-1].reached:,}", f"{found[-1].contiguous:,}") if known else ("-", "-")


def completeness(report: Coverage) -> str:
    """After how many layers a stack is complete."""
    if report.complete_at is not None:
        return f"after {plural(report.complete_at, 'layer')}"
    if report.hole is None:
        return "undecided"
    return "never" if is_never(report) else f"not in {plural(report.layers, 'layer')}"


def unreachable(report: Coverage) -> str:
    """Share of the pairs that no number of repeats reaches."""
    share = share_of(report.admissible - report.limit, report.admissible)
    return share if limit_is_exact(report) or report.limit == report.admissible else f"at most {share}"
