"""The definition: a mask as a dense boolean array, straight from the formula. Everything else is tested against it."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from .evaluate import truth
from .expand import NUMPY
from .ir import Mask
from .plan import Shape
from .tables import Ints, table_values
from .walk import depends_on_head


def dense_mask(
    mask: Mask, n: int, m: int, shape: Shape, inputs: Mapping[str, Ints], rows: slice | None = None
) -> NDArray[np.bool_]:
    """`[m, n]`, or `[heads, m, n]` when heads differ: True where the query (row) attends to the key."""
    tables = {table.name: table_values(table, inputs, n, m, shape) for table in mask.tables}
    row = np.arange(m, dtype=np.int64)[rows or slice(None)]
    q = (row + (n - m))[:, None]
    k = np.arange(n, dtype=np.int64)[None, :]

    def one(h: int) -> NDArray[np.bool_]:
        group = max(1, shape.heads // max(1, shape.kv_heads))
        values = {"q": q, "k": k, "h": h, "g": h // group, "n": n, "m": m}
        return np.broadcast_to(truth(mask.formula, values, tables, NUMPY), (len(row), n)).astype(bool)

    if not depends_on_head(mask):
        return one(0)
    return np.stack([one(h) for h in range(shape.heads)])
