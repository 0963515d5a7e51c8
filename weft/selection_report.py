"""What a dynamic pattern keeps of given tensors: density, attention mass, empty rows, NaN scores by head; and cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from .compiler.report import plural
from .selection_kept import Kept, cost, keep, nan_scores
from .tensors import TensorError
from .terminal import UsageError

if TYPE_CHECKING:
    from .pattern import Pattern
    from .selection_tensors import Tensors

# Query rows up to which all are looked at, and how many of more.
MOST_ROWS, SAMPLED_ROWS = 32768, 1024


@dataclass(frozen=True, slots=True)
class HeadReport:
    """One head, over the rows looked at: those with an admissible key."""

    head: int
    # Kept pairs of the admissible ones.
    density: float | None
    # The softmax mass on kept keys of attention to all admissible ones, a mean over rows; rows with NaN are left out.
    recall: float | None
    # Rows that keep nothing.
    empty_rows: int
    # Scores that cells are chosen by and that are NaN; None where nobody can tell.
    nan_scores: int | None


@dataclass(frozen=True, slots=True)
class SelectionReport:
    """All heads of one call, a mean over the batch where not a count."""

    pattern: str
    source: str
    device: str
    dtype: str
    batch: int
    heads: int
    kv_heads: int
    n: int
    m: int
    head_dim: int
    # Rows looked at in each head of each batch element; all where they are m.
    rows: int
    by_head: tuple[HeadReport, ...]
    select_seconds: float
    attend_seconds: float

    @property
    def selecting(self) -> float:
        """The share of the time that choosing takes."""
        return self.select_seconds / max(1e-12, self.select_seconds + self.attend_seconds)


def report_on(pattern: Pattern, tensors: Tensors, layers: tuple[int, int] = (0, 1)) -> SelectionReport:
    """The report of a pattern on tensors, on the device they are on; raises UsageError."""
    try:
        kept = keep(pattern, tensors, layers)
        nan, times = nan_scores(kept), cost(kept)
    except TensorError as error:
        raise UsageError(f"{tensors.source}: {error}") from None
    q = tensors.q
    rows = looked_at(q.shape[2]).to(q.device)
    by_head = tuple(_head(kept, h, rows, nan[h] if nan else None) for h in range(tensors.heads))
    device = torch.cuda.get_device_name(q.device) if q.is_cuda else "cpu"
    sizes = (q.shape[0], tensors.heads, tensors.kv_heads, tensors.n, q.shape[2], q.shape[3], len(rows))
    about = (pattern.name, tensors.source, device, str(q.dtype).removeprefix("torch."))
    return SelectionReport(*about, *sizes, by_head, *times)


def looked_at(m: int) -> torch.Tensor:
    """All rows, or one at random in each of so many bands."""
    if m <= MOST_ROWS:
        return torch.arange(m)
    edges = torch.arange(SAMPLED_ROWS + 1) * m // SAMPLED_ROWS
    place = torch.rand(SAMPLED_ROWS, generator=torch.Generator().manual_seed(m))
    return edges[:-1] + (place * edges.diff()).long()


def _head(kept: Kept, h: int, rows: torch.Tensor, nan: int | None) -> HeadReport:
    pairs = admissible = empty = counted = 0
    mass = 0.0
    for b in range(kept.tensors.q.shape[0]):
        for chunk in kept.chunks(rows):
            some, allowed = kept.rows(b, h, chunk)
            pairs += int((some & allowed).sum())
            admissible += int(allowed.sum())
            here = allowed.any(-1)
            empty += int((here & ~some.any(-1)).sum())
            found = _mass(kept.tensors, b, h, chunk, some, allowed)
            real = here & ~found.isnan()
            counted += int(real.sum())
            mass += float(found[real].double().sum())
    density = pairs / admissible if admissible else None
    return HeadReport(h, density, mass / counted if counted else None, empty, nan)


def _mass(
    tensors: Tensors, b: int, h: int, rows: torch.Tensor, some: torch.Tensor, allowed: torch.Tensor
) -> torch.Tensor:
    """The softmax mass of each row that falls on kept keys."""
    # Keys past the last that any of these rows admits cost nothing.
    end = int((allowed.any(0) * torch.arange(1, allowed.shape[1] + 1, device=rows.device)).max())
    exact = torch.float64 if tensors.q.dtype == torch.float64 else torch.float32
    queries = tensors.q[b, h, rows].to(exact) * tensors.scale
    keys = tensors.k[b, h * tensors.kv_heads // tensors.heads, :end].to(exact)
    weights = torch.softmax((queries @ keys.T).masked_fill_(~allowed[:, :end], float("-inf")), -1)
    return weights.masked_fill_(~some[:, :end], 0.0).sum(-1)


def as_dict(report: SelectionReport) -> dict[str, object]:
    """The report as JSON-ready data."""
    return {"schema": "weft.selection/1", **asdict(report), "sampled": report.rows < report.m}


def as_text(report: SelectionReport) -> str:
    """The report for people."""
    heads = plural(report.heads, "head")
    if report.kv_heads != report.heads:
        heads += f" on {plural(report.kv_heads, 'key/value head')}"
    batch = f", batch {report.batch}" if report.batch > 1 else ""
    lines = [
        f"{report.pattern}: {report.n:,} tokens, {heads}, head dim {report.head_dim}{batch}, {report.source}",
        "  head    density     recall   empty rows   NaN scores",
    ]
    for one in report.by_head:
        nan = "unknown" if one.nan_scores is None else f"{one.nan_scores:,}"
        shares = (share(x) for x in (one.density, one.recall))
        lines.append(f"  {one.head:>4} {' '.join(f'{x:>10}' for x in shares)} {one.empty_rows:>12,} {nan:>12}")
    looked = "all rows" if report.rows == report.m else f"a sample of {report.rows:,} of {report.m:,} rows"
    return "\n".join(
        [
            *lines,
            f"  density: kept of admissible pairs; recall: attention's mass on them, mean of rows; over {looked}",
            f"  selecting {seconds(report.select_seconds)}, attending {seconds(report.attend_seconds)} "
            f"({100 * report.selecting:.0f} % selecting; measured, {report.device}, {report.dtype})",
        ]
    )


def share(value: float | None) -> str:
    """A share in percent."""
    return "none" if value is None else f"{100 * value:.2f} %"


def seconds(value: float) -> str:
    """A duration with three digits."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
