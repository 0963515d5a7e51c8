"""What a kernel does to keys that are listed one by one: which they are, and the loop over them."""

import ast
from typing import TYPE_CHECKING

from ..compiler.plan import Plan
from .quote import comment, constant, statements

if TYPE_CHECKING:
    from .forward import Kernel


def gathered_arguments(plan: Plan) -> tuple[str, ...]:
    """The parameters after the tile lists: where a query tile's columns stand in their list, the key at each place."""
    columns = ("column_first", "column_end", "columns") if plan.columns else ()
    return (*columns, "key_of") if plan.ordered else columns


def keys_of_places(kernel: "Kernel") -> list[ast.stmt]:
    """The keys at the places of tile j; n past the last place. Nothing where tiles are of keys."""
    if not kernel.plan.ordered:
        return []
    return statements(
        """
spots = j * BLOCK_N + tl.arange(0, BLOCK_N)
keys = tl.load(key_of + bh.to(tl.int64) * n + spots, mask=spots < n, other=n)
""",
        BLOCK_N=constant(kernel.config.block_n),
    )


def column_loop(kernel: "Kernel", step: list[ast.stmt]) -> list[ast.stmt]:
    """`step` for each BLOCK_N of the keys listed for this query tile."""
    return [
        *statements("column = tl.load(column_first + bh * count + i)\nstop = tl.load(column_end + bh * count + i)"),
        comment("single keys: pairs of the tiles above are left out"),
        *statements(
            """
for t in tl.range(column, stop, BLOCK_N, num_stages=STAGES):
    spots = t + tl.arange(0, BLOCK_N)
    keys = tl.load(columns + spots, mask=spots < stop, other=n)
    STEP
""",
            BLOCK_N=constant(kernel.config.block_n),
            STAGES=constant(kernel.config.stages),
            STEP=step,
        ),
    ]
