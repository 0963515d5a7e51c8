"""`weft explain` of a dynamic pattern: what holds for all tensors, and, given some, what they keep."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import TYPE_CHECKING

from .check import table_heads
from .commands import parameters
from .compiler.cells_of_pairs import axes_of
from .compiler.plan import Shape
from .compiler.program_bounds import bounds, without_orders
from .compiler.program_work import scoring_flops
from .compiler.report import Call
from .compiler.report_program import ProgramReport, as_dict, as_text, score_texts
from .compiler.selection import Axis
from .inputs import host_arrays
from .terminal import UsageError

if TYPE_CHECKING:
    from .compiler.selection import Program
    from .pattern import Pattern

# Tokens of the smallest tile.
SMALLEST_TILE = 16


def run_explain_selection(pattern: Pattern, arguments: Namespace) -> int:
    """`weft explain` of a pattern that selects by content."""
    layers = (arguments.layer, arguments.layers)
    if layers[1] > 1 and layers[0] >= layers[1]:
        raise UsageError(f"there is no layer {layers[0]} among {layers[1]}")
    measured = None
    n, m, head_dim = arguments.n, arguments.m or arguments.n, arguments.head_dim
    heads = arguments.heads or table_heads(pattern.definition.parameters, pattern.given) or 1
    kv_heads = arguments.kv_heads or heads
    if arguments.qkv:
        # Only here: what needs no tensors needs no torch either.
        from .selection_trial import measured as measure

        measured = measure(pattern, arguments, n, layers)
        n, m, head_dim, heads, kv_heads = (getattr(measured, x) for x in ("n", "m", "head_dim", "heads", "kv_heads"))
    if heads % kv_heads:
        raise UsageError(f"{heads} heads are not a multiple of {kv_heads} key/value heads")
    call = Call(n, m, heads, kv_heads, head_dim, 4 if arguments.dtype == "fp32" else 2)
    report = program_report(pattern, arguments, call)
    if arguments.format == "json":
        found = as_dict(report)
        if measured:
            from .selection_report import as_dict as measured_dict

            found["measured"] = measured_dict(measured)
        print(json.dumps(found, indent=2))
        return 0
    print(as_text(report))
    if measured:
        from .selection_report import as_text as measured_text

        print("\n" + measured_text(measured))
    return 0


def program_report(pattern: Pattern, arguments: Namespace, call: Call) -> ProgramReport:
    """The report without tensors."""
    n, m, heads, kv_heads = call.n, call.m, call.heads, call.kv_heads
    program = pattern.program(heads, kv_heads, arguments.layer, arguments.layers)
    arrays = host_arrays(pattern, without_orders(program), arguments, n, m, heads, needed=False)
    shape = Shape(n == m, heads, kv_heads, arguments.layer, arguments.layers, bits=max(20, (n - 1).bit_length()))
    where, reason = execution(program)
    return ProgramReport(
        pattern.name,
        pattern.where,
        parameters(pattern),
        tuple(clause.text for clause in program.limits.clauses),
        tuple(clause.text for clause in program.keeps),
        score_texts(program, n),
        call,
        where,
        reason,
        bounds(program, shape, n, m, arrays),
        scoring_flops(program, n, call.head_dim) * heads,
    )


def execution(program: Program) -> tuple[str, str]:
    """How attention reaches what is chosen, and why not in a better way."""
    from .compiler.dense_only import only_densely

    if reason := only_densely(program):
        return "definition", f"{reason}; it holds all pairs"
    ways: dict[str, str] = {}
    for choice in program.choices:
        axes = axes_of(program)
        query, key = (axes[name] if name else Axis("", "", SMALLEST_TILE) for name in (choice.query, choice.key))
        if key.size < SMALLEST_TILE and key.side == "k" and not key.order:
            ways.setdefault("gathered keys", f"cells of `{key.name}` are smaller than tiles")
        elif small := next((axis for axis in (query, key) if axis.size % SMALLEST_TILE), None):
            ways.setdefault("look-ups in tiles", f"tiles hold several cells of `{small.name}`")
        else:
            ways.setdefault("tiles of places" if key.order else "tiles", "")
    return ", ".join(ways), "; ".join(reason for reason in ways.values() if reason)
