"""The numbers behind table reads: inputs, heads' constants, seeded draws, and trees as preorder intervals."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..dsl.diagnostics import CompileError, Diagnostic
from .evaluate import INTEGERS, number
from .ir import Sample, Table
from .plan import Shape

Ints = NDArray[np.int64]

# A draw's unused places hold this: no sampled value is negative.
NOTHING = -2
# Numbers one sample may draw.
MOST_DRAWN = 1 << 26


def table_values(table: Table, inputs: Mapping[str, Ints], n: int, m: int, shape: Shape) -> Ints:
    """One table as a flat array; raises KeyError when its input was not given."""
    match table.kind:
        case "input":
            return inputs[table.source]
        case "order":
            return inputs[table.name]
        case "head":
            return np.asarray(table.values, dtype=np.int64)
        case "sample":
            assert table.sample is not None
            return draw(table.sample, n, m)
        case "enter":
            return preorder(inputs[table.source])[0]
        case "leave":
            return preorder(inputs[table.source])[1]


def draw(sample: Sample, n: int, m: int) -> Ints:
    """Floyd's algorithm on all rows at once: a uniform set of `count` distinct integers below `size`."""
    lengths = {"n": n, "m": m}
    size = int(number(sample.size, lengths, {}, INTEGERS))
    rows = 1
    for extent in sample.keys:
        rows *= int(number(extent, lengths, {}, INTEGERS))
    if rows * sample.count > MOST_DRAWN:
        message = f"a sample of {sample.count} for each of {rows} rows is more than {MOST_DRAWN} numbers"
        raise CompileError([Diagnostic("E011", None, message, "use coarser keys, such as q // 64")])
    chosen = np.full((rows, sample.count), NOTHING, dtype=np.int64)
    row = np.arange(rows, dtype=np.uint64)
    for place, top in enumerate(range(max(0, size - sample.count), max(0, size))):
        pick = (mix(row, sample.seed, place) % np.uint64(top + 1)).astype(np.int64)
        taken = (chosen[:, :place] == pick[:, None]).any(axis=1)
        chosen[:, place] = np.where(taken, top, pick)
    return chosen.reshape(-1)


def mix(row: NDArray[np.uint64], seed: int, place: int) -> NDArray[np.uint64]:
    """splitmix64's finaliser over row, seed and place; wraps modulo 2^64."""
    salt = (seed * 0x9E3779B97F4A7C15 + place * 0xD1B54A32D192ED03 + 0x8CB92BA72F3D8DD7) % (1 << 64)
    x = row * np.uint64(0xBF58476D1CE4E5B9) + np.uint64(salt)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x


def preorder(parent: Ints) -> tuple[Ints, Ints]:
    """Preorder number of each token, and one past the last in its subtree; parents come before children."""
    count = len(parent)
    index = np.arange(count)
    if ((parent < -1) | (parent >= index)).any():
        wrong = int(np.nonzero((parent < -1) | (parent >= index))[0][0])
        raise ValueError(f"token {wrong} has parent {int(parent[wrong])}: a parent is -1 or an earlier token")
    children = np.nonzero(parent >= 0)[0]
    size = np.ones(count, dtype=np.int64)
    for child in children[::-1]:
        size[parent[child]] += size[child]
    roots = parent < 0
    enter = np.zeros(count, dtype=np.int64)
    enter[roots] = np.cumsum(size[roots]) - size[roots]
    free = enter + 1
    for child in children:
        above = parent[child]
        enter[child] = free[above]
        free[above] += size[child]
        free[child] = enter[child] + 1
    return enter, enter + size
