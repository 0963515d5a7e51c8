"""The one place that emits loads of queries, keys and values, and the one that emits the store."""

import ast
from typing import TYPE_CHECKING, Literal

from .configure import padded
from .quote import Hole, constant, expression, name, statements

if TYPE_CHECKING:
    from .forward import Kernel

Operand = Literal["query", "key", "value"]
TENSORS = ("query", "key", "value", "out")


def parameters(tma: bool) -> tuple[str, ...]:
    """Tensor parameters: descriptors, or pointers with the strides of batch, head and row."""
    if tma:
        return TENSORS
    return tuple(f"{t}{s}" for t in TENSORS for s in ("", "_batch", "_head", "_row"))


def _holes(kernel: "Kernel", operand: str, tile: str, gathered: bool = False) -> dict[str, Hole]:
    outer, pack = operand in ("query", "out"), kernel.config.pack
    rows = kernel.config.block_m if outer else kernel.config.block_n
    head, length = name("h" if outer else "g"), name("m" if outer else "n")
    steps = "ROW.to(tl.int64) * ROW_STEP"
    if outer and pack > 1:
        head, length = expression("(h * P)", P=constant(pack)), expression("m * P", P=constant(pack))
        steps = "(ROW // P).to(tl.int64) * ROW_STEP + (ROW % P).to(tl.int64) * HEAD_STEP"
    names = {"ROW": f"{operand}_rows", "ROW_STEP": f"{operand}_row", "HEAD_STEP": f"{operand}_head"}
    return {
        "T": name(operand),
        "TILE": name(f"{operand}_tile"),
        "HEAD": head,
        "J": name(tile),
        "ROWS": constant(rows),
        "NUMBERS": name("keys") if gathered else expression("J * R + tl.arange(0, R)", J=name(tile), R=constant(rows)),
        "WIDE": constant(padded(kernel.head_dim)),
        "D": constant(kernel.head_dim),
        "LENGTH": length,
        "STEPS": expression(steps, **{key: name(title) for key, title in names.items()}, P=constant(pack)),
        "BATCH_STEP": name(f"{operand}_batch"),
        "HEAD_STEP": name(f"{operand}_head"),
        "ROW_STEP": name(f"{operand}_row"),
        "BASE": name(f"{operand}_base"),
        "ROW": name(f"{operand}_rows"),
    }


POINTERS = """
BASE = T + b.to(tl.int64) * BATCH_STEP + HEAD.to(tl.int64) * HEAD_STEP
ROW = NUMBERS
BASE = BASE + (STEPS)[:, None] + tl.arange(0, WIDE)[None, :]
"""


def _guard(kernel: "Kernel", ragged: bool, holes: dict[str, Hole]) -> ast.expr | None:
    """What a pointer access must check: rows past the end, columns that only pad the head dimension."""
    rows = expression("(ROW < LENGTH)[:, None]", **_only_expressions(holes)) if ragged else None
    if padded(kernel.head_dim) == kernel.head_dim:
        return rows
    columns = expression("(tl.arange(0, WIDE) < D)[None, :]", **_only_expressions(holes))
    return columns if rows is None else expression("R & C", R=rows, C=columns)


def _only_expressions(holes: dict[str, Hole]) -> dict[str, ast.expr]:
    return {key: hole for key, hole in holes.items() if isinstance(hole, ast.expr)}


def emit_load(
    kernel: "Kernel", operand: Operand, tile: str, ragged: bool = True, gathered: bool = False
) -> list[ast.stmt]:
    """`OPERAND_tile = ` rows of one tile; full key tiles are `ragged=False` and need no bounds check.

    Gathered rows are those that `keys` numbers, n where there is none.
    """
    holes = _holes(kernel, operand, tile, gathered)
    if kernel.config.tma:
        assert not gathered
        return statements("TILE = T.load([b, HEAD, J * ROWS, 0]).reshape(ROWS, WIDE)", **holes)
    guard = _guard(kernel, ragged or operand == "query", holes)
    if guard is None:
        return [*statements(POINTERS, **holes), *statements("TILE = tl.load(BASE)", **holes)]
    load = statements("TILE = tl.load(BASE, mask=GUARD, other=0.0)", **holes, GUARD=guard)
    return [*statements(POINTERS, **holes), *load]


def emit_store(kernel: "Kernel") -> list[ast.stmt]:
    """Write the result of this program's query tile."""
    holes = _holes(kernel, "out", "i")
    if kernel.config.tma:
        return statements("T.store([b, HEAD, J * ROWS, 0], result.to(T.dtype).reshape(1, 1, ROWS, WIDE))", **holes)
    guard = _guard(kernel, True, holes)
    assert guard is not None
    store = statements("tl.store(BASE, result.to(T.dtype.element_ty), mask=GUARD)", **holes, GUARD=guard)
    return [*statements(POINTERS, **holes), *store]
