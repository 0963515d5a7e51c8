"""`weft test`: a pattern's tiles and attention against its dense mask, on this machine."""

from __future__ import annotations

import json
import math
from argparse import Namespace
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from . import selection_report
from .check import natural_heads
from .codegen.tables import gather, tile_lists
from .commands import chosen_pattern, require_selection
from .compiler.dense import dense_mask
from .compiler.evaluate import truth
from .compiler.expand import NUMPY, Ints, expand_run, query_tiles, row_values
from .compiler.ir import Formula, Truth
from .compiler.pipeline import make_plan
from .compiler.plan import Plan, Shape, Tiling
from .inputs import made_up
from .selection_lengths import SHORT, usual_lengths
from .selection_tensors import heads_of
from .selection_trial import MOST_PAIRS, compared, enough_memory, measured
from .terminal import paint

if TYPE_CHECKING:
    from .pattern import Pattern

TILINGS = (Tiling(16, 16), Tiling(64, 32), Tiling(128, 128))
HEAD_DIM = 16
DOCUMENTS = 3
# What rounding may do: float64 on the CPU, float32 on a GPU, whose exponential is approximate.
TOLERANCE = {"cpu": 1e-10, "cuda": 1e-4}


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison."""

    n: int
    m: int
    what: str
    ok: bool
    detail: str
    # Whether a selection left out no admissible pair.
    every_pair: bool = False


def run_test(arguments: Namespace) -> int:
    """`weft test`."""
    pattern = chosen_pattern(arguments)
    require_selection(pattern, arguments, "qkv", "kv_heads", "head_dim", "seed")
    # What a selection keeps depends on rounding: only where both sides round alike can they be compared.
    device = "cuda" if torch.cuda.is_available() and not pattern.dynamic else "cpu"
    text = arguments.format == "text"
    lengths = lengths_of(pattern, arguments)
    cases: list[Case] = []
    for case in (
        selection_cases(pattern, arguments, lengths)
        if pattern.dynamic
        else mask_cases(pattern, arguments, lengths, device)
    ):
        cases.append(case)
        if text:
            word = paint("ok  ", "green") if case.ok else paint("FAIL", "red")
            print(f"{word}  n = {case.n}, m = {case.m}: {case.what}, {case.detail}", flush=True)
    failed = sum(not case.ok for case in cases)
    report = measured(pattern, arguments, max(lengths)) if pattern.dynamic else None
    if text:
        if all(case.every_pair for case in cases):
            longer = f"; try --n {1 << max(13, max(lengths).bit_length())}, or smaller values with -p"
            print(f"every pair was kept: nothing was chosen{'' if arguments.qkv else longer}")
        if report:
            print(selection_report.as_text(report))
        print(f"{pattern.name} on {device}: {failed} of {len(cases)} failed" if failed else f"{pattern.name}: ok")
    else:
        head = {"schema": "weft.test/1", "pattern": pattern.name, "device": device, "ok": not failed}
        found = {"selection": selection_report.as_dict(report)} if report else {}
        print(json.dumps({**head, "cases": [asdict(case) for case in cases], **found}, indent=2))
    return int(failed > 0)


def lengths_of(pattern: Pattern, arguments: Namespace) -> tuple[int, ...]:
    """The lengths of a command line, or the usual ones."""
    if arguments.n or arguments.qkv or not pattern.dynamic:
        return tuple(arguments.n or SHORT)
    heads = heads_of(pattern, arguments)
    return usual_lengths(pattern.program(heads, heads), heads, MOST_PAIRS)


def mask_cases(pattern: Pattern, arguments: Namespace, lengths: tuple[int, ...], device: str) -> Iterator[Case]:
    """A fixed mask, at each length, with all queries and with half of them."""
    heads = arguments.heads or natural_heads(pattern)
    for n in lengths:
        for m in sorted({n, (n + 1) // 2}, reverse=True):
            with enough_memory(pattern, n):
                yield from trials(pattern, n, m, heads, device)


def selection_cases(pattern: Pattern, arguments: Namespace, lengths: tuple[int, ...]) -> Iterator[Case]:
    """A dynamic pattern on the tensors of a file, or on made-up ones of each length."""
    for length in [0] if arguments.qkv else lengths:
        found = compared(pattern, arguments, length)
        ok = found.error <= TOLERANCE["cpu"]
        yield Case(found.n, found.m, "attention by selection", ok, found.words, found.every_pair)


def trials(pattern: Pattern, n: int, m: int, heads: int, device: str) -> Iterator[Case]:
    """All comparisons for one pair of lengths."""
    mask = pattern.bind(heads)
    inputs = made_up(mask, n, m, heads, DOCUMENTS)
    wanted = np.broadcast_to(dense_mask(mask, n, m, Shape(n == m, heads, heads), inputs), (heads, m, n))
    for tiling in TILINGS:
        plan = make_plan(mask, pattern.shape(n, m, heads), tiling)
        wrong = int(np.count_nonzero(pairs_of(plan, n, m, heads, inputs) != wanted))
        detail = f"{wrong} pairs differ" if wrong else f"{int(wanted.sum())} pairs agree"
        yield Case(n, m, f"tiles of {tiling.block_m} x {tiling.block_n} ({plan.strategy})", not wrong, detail)
    error = attention_error(pattern, n, m, heads, device, inputs)
    yield Case(n, m, "attention", error <= TOLERANCE[device], f"largest difference {error:.1e}")


def pairs_of(plan: Plan, n: int, m: int, heads: int, inputs: Mapping[str, Ints]) -> Ints:
    """How often a plan's tiles compute each pair, `[heads, m, n]`: once where the mask keeps it, else never."""
    tables = dict(gather(plan, inputs, n, m).arrays)
    counted, count, across = (heads if plan.per_head else 1), query_tiles(plan, m), -(-n // plan.tiling.block_n)
    values = row_values(plan, n, m, tables, np.arange(counted), 0, count)
    out = np.zeros((counted, count, across, plan.tiling.block_m, plan.tiling.block_n), dtype=np.int64)
    for mask, row, tile in visits(plan, n, m, values, tables):
        at = {name: v[row, None, None] if np.ndim(v) else v for name, v in values.items()}
        at["q"] = at["i"] * plan.tiling.block_m + (n - m) + np.arange(plan.tiling.block_m)[:, None]
        at["k"] = tile[:, None, None] * plan.tiling.block_n + np.arange(plan.tiling.block_n)
        np.add.at(out, (values["h"][row], values["i"][row], tile), truth(mask, at, tables, NUMPY))
    pairs = out.transpose(0, 1, 3, 2, 4).reshape(counted, count * plan.tiling.block_m, across * plan.tiling.block_n)
    # Full tiles have no mask, so they may not reach past the last key; rows past the last query are never stored.
    if pairs[:, :m, n:].any():
        pairs[:, :m, :n] = -1
    return np.broadcast_to(pairs[:, :m, :n], (heads, m, n))


def visits(
    plan: Plan, n: int, m: int, values: Mapping[str, Ints], tables: Mapping[str, Ints]
) -> Iterator[tuple[Formula, Ints, Ints]]:
    """Each mask that the kernel evaluates, with the rows and key tiles it evaluates it on."""
    if plan.strategy != "table":
        for region in plan.regions:
            for run in region.runs:
                yield region.mask, *expand_run(run, values)
        return
    lists = tile_lists(plan, tables, n, m, torch.device("cpu"))
    row = np.repeat(np.arange(len(lists.split)), np.diff(lists.start))
    full = np.arange(len(row)) < lists.split[row]
    partial = next((region.mask for region in plan.regions if not region.full), Truth(True))
    for mask, chosen in ((Truth(True), full), (partial, ~full)):
        yield mask, row[chosen], lists.tiles[chosen].astype(np.int64)


def attention_error(pattern: Pattern, n: int, m: int, heads: int, device: str, inputs: Mapping[str, Any]) -> float:
    """Largest difference between the fast attention and the dense one, outputs and log-sum-exps."""
    random = torch.Generator().manual_seed(n)
    exact = torch.float64 if device == "cpu" else torch.float32
    q, k, v = (torch.randn(1, heads, size, HEAD_DIM, generator=random, dtype=exact).to(device) for size in (m, n, n))
    got, wanted = (
        pattern.attention(q, k, v, return_lse=True, backend=backend, **inputs) for backend in ("auto", "reference")
    )
    pairs = zip(got, wanted, strict=True)  # equal infinities are equal, and a NaN is as wrong as can be
    return max(float(torch.where(a == b, 0.0, (a - b).abs()).nan_to_num(nan=math.inf).max()) for a, b in pairs)
