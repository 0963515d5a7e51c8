"""What a pattern costs and how it runs: the facts `weft explain` prints, each with what is claimed of it."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from textwrap import wrap

from .expand import Ints
from .measure import Amount, Census, Claim, causal_pairs, census
from .plan import Plan, Strategy
from .readable import show_number, show_run, show_truth

WIDTH = 110
# Loops of one region, and lines of its mask, that the text shows; the JSON has them all.
MOST_LOOPS = 12
MOST_LINES = 4
STRATEGIES: Mapping[Strategy, str] = {
    "run": "loops in the kernel",
    "list": "loops made into lists of tiles once the lengths are known",
    "table": "lists of tiles, found by bounds and then pair by pair in each call",
}


@dataclass(frozen=True, slots=True)
class Loops:
    """One region: its loops, and what is checked inside its tiles (nothing when they are full)."""

    kind: str
    loops: tuple[str, ...]
    mask: str


@dataclass(frozen=True, slots=True)
class Call:
    """The sizes a report is about."""

    n: int
    m: int
    heads: int
    kv_heads: int
    head_dim: int
    # Bytes of one number.
    size: int = 2


@dataclass(frozen=True, slots=True)
class Report:
    """Everything known about one pattern at one size."""

    pattern: str
    where: str
    parameters: tuple[tuple[str, str], ...]
    clauses: tuple[str, ...]
    call: Call
    block_m: int
    block_n: int
    strategy: Strategy
    reason: str
    uniforms: tuple[tuple[str, str], ...]
    regions: tuple[Loops, ...]
    census: Census
    plan_ms: float | None = None

    @property
    def alike(self) -> int:
        """How many heads each counted head stands for."""
        return self.call.heads // self.census.heads

    @property
    def visited(self) -> Amount:
        """Tiles computed, over the counted heads."""
        full, partial = self.census.full, self.census.partial
        return Amount(full.value + partial.value, "exact" if full.claim == partial.claim == "exact" else "at most")

    @property
    def density(self) -> float:
        """Kept pairs of all there are."""
        return self.census.pairs.value / (self.census.heads * self.call.n * self.call.m)

    @property
    def of_causal(self) -> float:
        """Kept pairs of those that causal attention keeps."""
        return self.census.pairs.value / (self.census.heads * causal_pairs(self.call.n, self.call.m))

    @property
    def waste(self) -> float | None:
        """Pairs computed for each one kept, where both are known."""
        known = self.visited.claim == "exact" and self.census.pairs.claim == "exact" and self.census.pairs.value > 0
        return self.visited.value * self.block_m * self.block_n / self.census.pairs.value if known else None

    @property
    def flops(self) -> Amount:
        """Operations on kept pairs: two products of `head_dim` each."""
        pairs = self.census.pairs
        return Amount(4 * self.call.head_dim * pairs.value * self.alike, pairs.claim)

    @property
    def flops_computed(self) -> Amount:
        """Operations on all pairs of the visited tiles."""
        tile = 4 * self.call.head_dim * self.block_m * self.block_n
        return Amount(tile * self.visited.value * self.alike, self.visited.claim)

    @property
    def kv_bytes(self) -> int:
        """Size of the keys and values."""
        return 2 * self.call.n * self.call.head_dim * self.call.kv_heads * self.call.size

    @property
    def kv_bytes_read(self) -> Amount:
        """What the tiles read of them, each its own, before any cache."""
        tile = 2 * self.block_n * self.call.head_dim * self.call.size
        return Amount(tile * self.visited.value * self.alike, self.visited.claim)


def explain(
    plan: Plan,
    call: Call,
    *,
    where: str = "",
    parameters: tuple[tuple[str, str], ...] = (),
    inputs: Mapping[str, Ints] | None = None,
    plan_ms: float | None = None,
) -> Report:
    """The report of a plan for one size; masks that depend on inputs not given are bounded, not guessed."""
    return Report(
        plan.mask.name,
        where,
        parameters,
        tuple(clause.text for clause in plan.mask.clauses),
        call,
        plan.tiling.block_m,
        plan.tiling.block_n,
        plan.strategy,
        plan.reason,
        tuple((name, show_number(expr)) for name, expr in plan.uniforms),
        tuple(
            Loops(
                "full" if region.full else "partial",
                tuple(map(show_run, region.runs)),
                "" if region.full else show_truth(region.mask),
            )
            for region in plan.regions
        ),
        census(plan, call.n, call.m, inputs or {}),
        plan_ms,
    )


def as_dict(report: Report) -> dict[str, object]:
    """The report as JSON-ready data; counts are summed over `census.heads` heads, bytes and FLOPs over all."""
    out: dict[str, object] = {"schema": "weft.explain/1", **asdict(report)}
    out["parameters"] = dict(report.parameters)
    out["uniforms"] = dict(report.uniforms)
    skipped = report.census.tiles - report.visited.value
    out["derived"] = {
        "skipped": asdict(Amount(skipped, "exact" if report.visited.claim == "exact" else "at least")),
        "density": report.density,
        "of_causal": report.of_causal,
        "waste": report.waste,
        "flops": asdict(report.flops),
        "flops_computed": asdict(report.flops_computed),
        "kv_bytes": report.kv_bytes,
        "kv_bytes_read": asdict(report.kv_bytes_read),
    }
    return out


def as_text(report: Report) -> str:
    """The report for people."""
    lines = [f"pattern {report.pattern} ({report.where})" if report.where else f"pattern {report.pattern}"]
    lines += [f"    {clause}" for clause in report.clauses or ("(no clause: every pair is kept)",)]
    if report.parameters:
        lines += _wrapped("    with ", ", ".join(f"{name} = {value}" for name, value in report.parameters))
    return "\n".join([*lines, "", *_plan_lines(report), "", *_count_lines(report)])


def _plan_lines(report: Report) -> list[str]:
    call = report.call
    heads = plural(call.heads, "head")
    if call.kv_heads != call.heads:
        heads += f" on {plural(call.kv_heads, 'key/value head')}"
    lines = [
        f"{call.m:,} queries x {call.n:,} keys, {heads}, head dim {call.head_dim}",
        f"tiles of {report.block_m} x {report.block_n}, strategy {report.strategy}: {STRATEGIES[report.strategy]}",
    ]
    if report.reason:
        lines.append(f"  because {report.reason}")
    if report.strategy == "table":
        return [*lines, "", *_wrapped("a pair is kept where ", report.regions[-1].mask)]
    lines += ["", "key tiles j of query tile i (`a .. b` leaves out b)"]
    lines += [f"  {name} = {text}" for name, text in report.uniforms]
    for region in report.regions:
        title = "full: all pairs are kept" if region.kind == "full" else "partial: pairs are kept where "
        lines += _wrapped(f"  {title}", region.mask)
        lines += [line for loop in region.loops[:MOST_LOOPS] for line in _wrapped("    ", loop)]
        if len(region.loops) > MOST_LOOPS:
            lines.append(f"    and {len(region.loops) - MOST_LOOPS} more")
    return lines if report.regions else [*lines, "  none"]


def _count_lines(report: Report) -> list[str]:
    found, read = report.census, report.kv_bytes_read
    exact = report.visited.claim == "exact"
    skipped = Amount(found.tiles - report.visited.value, "exact" if exact else "at least")
    tiles = f"{say(found.full)} full, {say(found.partial)} partial, {say(skipped)} skipped"
    pairs = f"{say(found.pairs)} ({SOURCES[found.pairs.claim]})"
    hedge = HEDGES[found.pairs.claim]
    shares = f"{hedge}{percent(report.density)} of all, {hedge}{percent(report.of_causal)} of causal"
    lines = [f"summed over {found.heads} heads, which differ"] if found.heads > 1 else []
    lines += [
        f"tiles   {tiles}{' (exact)' if exact else ''}",
        f"pairs   {pairs}",
        f"        {shares}",
        f"waste   {report.waste:.2f} pairs computed for each one kept" if report.waste else "waste   unknown",
        f"work    {say(report.flops, si)}FLOP on kept pairs, {say(report.flops_computed, si)}FLOP computed",
        f"memory  {binary(report.kv_bytes)} of keys and values; tiles read {say(read, binary)}, before caches",
    ]
    if report.plan_ms is not None:
        lines.append(f"plan    {report.plan_ms:.1f} ms (measured)")
    return lines


HEDGES: Mapping[Claim, str] = {"exact": "", "estimated": "about ", "at least": "at least ", "at most": "at most "}
SOURCES: Mapping[Claim, str] = {
    "exact": "exact",
    "estimated": "estimated from a sample of rows",
    "at least": "a bound",
    "at most": "a bound: the inputs are not given",
}


def commas(value: float) -> str:
    """1,048,576."""
    return f"{value:,}"


def say(amount: Amount, show: Callable[[float], str] = commas) -> str:
    """A count with what is claimed of it."""
    return HEDGES[amount.claim] + show(amount.value)


def percent(share: float) -> str:
    """A share with three digits."""
    return f"{100 * share:.3g} %"


def si(value: float) -> str:
    """`2.19 T`, to be followed by a unit."""
    return _scaled(value, 1000, ("", "k", "M", "G", "T", "P", "E"))


def binary(value: float) -> str:
    """`512 MiB`."""
    return _scaled(value, 1024, ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))


def _scaled(value: float, base: int, units: tuple[str, ...]) -> str:
    power = 0
    while value >= 999.5 and power + 1 < len(units):
        value, power = value / base, power + 1
    return f"{value:.3g} {units[power]}"


def _wrapped(head: str, text: str) -> list[str]:
    indent = " " * (len(head) - len(head.lstrip()) + 4)
    return wrap(head + text, WIDTH, subsequent_indent=indent, max_lines=MOST_LINES, placeholder=" [...]")


def plural(count: int, noun: str) -> str:
    """`1 head`, `2 heads`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
