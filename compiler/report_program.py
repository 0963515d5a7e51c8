"""What `weft explain` says of a dynamic pattern without tensors: what is sure, what is possible, and what scores it."""

from dataclasses import asdict, dataclass

from .measure import Amount
from .program_bounds import Bound, Bounds
from .report import Call, binary, commas, percent, plural, say, si
from .selection import Program


@dataclass(frozen=True, slots=True)
class ProgramReport:
    """All of it, for one pattern and size; pairs and operations are summed over all query heads."""

    pattern: str
    where: str
    parameters: tuple[tuple[str, str], ...]
    limits: tuple[str, ...]
    keeps: tuple[str, ...]
    scores: tuple[str, ...]
    call: Call
    # "tiles", "look-ups", "gathered keys" or "definition", and why.
    execution: str
    reason: str
    bounds: Bounds
    scoring_flops: int

    def attending(self, pairs: Amount) -> Amount:
        """Operations on pairs: two products of `head_dim` each."""
        return Amount(4 * self.call.head_dim * pairs.value, pairs.claim)


def as_dict(report: ProgramReport) -> dict[str, object]:
    """The report as JSON-ready data."""
    found = report.bounds
    attending = {
        name: asdict(report.attending(a)) for name, a in (("least", found.guaranteed), ("most", found.possible))
    }
    head = {"schema": "weft.explain-selection/1", **asdict(report), "parameters": dict(report.parameters)}
    return {
        **head,
        "density": {"least": _share(found.guaranteed, found), "most": _share(found.possible, found)},
        "attending_flops": attending,
    }


def _share(part: Amount, found: Bounds) -> float:
    return part.value / max(1, found.admissible.value)


def as_text(report: ProgramReport) -> str:
    """The report for people."""
    call, found = report.call, report.bounds
    lines = [f"pattern {report.pattern} ({report.where})"]
    lines += [f"    {text}" for text in (*report.limits, *report.keeps, *(one.text for one in found.choices))]
    if report.parameters:
        lines.append("    with " + ", ".join(f"{name} = {value}" for name, value in report.parameters))
    heads = plural(call.heads, "head")
    if call.kv_heads != call.heads:
        heads += f" on {plural(call.kv_heads, 'key/value head')}"
    lines += [
        "",
        f"{call.m:,} queries x {call.n:,} keys, {heads}, head dim {call.head_dim}; which pairs, scores decide",
    ]
    lines += [f"runs as  {report.execution}" + (f": {report.reason}" if report.reason else "")]
    lines += [f"score    {text}" for text in report.scores]
    lines += [line for one in found.choices for line in _choice_lines(one, call.n)]
    least, most = _share(found.guaranteed, found), _share(found.possible, found)
    work = [si(report.attending(pairs).value) for pairs in (found.guaranteed, found.possible)]
    kv_bytes = 2 * call.n * call.head_dim * call.kv_heads * call.size
    lines += [
        "",
        f"can be   {say(found.admissible)} pairs, what `require` and `causal` admit, summed over heads",
        f"always   {say(found.guaranteed)} pairs, whatever the tensors are: {percent(least)} of them",
        f"at most  {commas(found.possible.value)} pairs: {percent(most)} of them"
        + ("" if found.possible.value < found.admissible.value else "; nothing tighter is known"),
        f"scoring  at most {si(report.scoring_flops)}FLOP, of products of rows over all cells",
        f"attend   {work[0]}FLOP to {work[1]}FLOP on kept pairs",
        f"memory   {binary(kv_bytes)} of keys and values",
    ]
    return "\n".join(lines)


def _choice_lines(one: Bound, n: int) -> list[str]:
    """How much a choice may keep."""
    query = (
        "all queries"
        if one.query_size >= n
        else "each query"
        if one.query_size == 1
        else f"each {one.query_size:,} queries"
    )
    unit = {"keys": "key", "distances": "distance", "places": "place"}[one.kind]
    cells = plural(one.key_size, unit)
    if one.joint:
        amount = f"at most {one.cells:,} cells of all" if one.cells is not None else "as many cells as the scores say"
    elif one.cells is None and one.keys is None:
        amount = "as many cells as the scores say"
    elif one.cells is None:
        amount = f"at most {one.keys:,} keys a row, in what it is chosen among"
    else:
        amount = f"at most {one.cells:,} {'cell' if one.cells == 1 else 'cells'}"
    row = "" if one.keys is None or one.cells is None else f", so {one.keys:,} keys a row"
    row += " beside what is forced" if row and one.beyond else ""
    return [f"choice   {one.text}", f"         for {query} {amount}, each of {cells}{row}"]


def score_texts(program: Program, n: int) -> tuple[str, ...]:
    """Each score with how many values it has."""
    from .program_work import cells_of

    axes = {axis.name: axis for axis in program.axes}
    out: list[str] = []
    for score in program.scores:
        sizes = [n if name in ("q", "k") else cells_of(axes[name], axes, n) for name in score.axes]
        kind = "vectors" if score.vector else "numbers"
        counted = " x ".join(f"{size:,}" for size in sizes) or "1"
        out.append(f"{score.name}[{', '.join(score.axes)}]: {counted} {kind}")
    return tuple(out)
