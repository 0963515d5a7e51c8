"""Which lengths `weft test` looks at by itself: short ones, and one at which a rule has something to choose."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .compiler.cells_of_pairs import axes_of
from .compiler.program_bounds import most_keys
from .compiler.program_work import cells_of
from .compiler.selection import Axis, Inside, Reduce
from .compiler.terms import within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .compiler.selection import Binder, Program

SHORT = (1, 63, 100, 257)
# Each with a last cell that is not whole.
LONGER = (1025, 2049, 4097)
# How many times the largest cell, and the keys of a row, a length is that leaves most cells out.
CELLS, KEYS = 4, 2
# Numbers under one sum up to which a CPU takes a few seconds.
MOST_SUMMED = 1 << 25


def usual_lengths(program: Program, heads: int, most_pairs: int) -> tuple[int, ...]:
    """The short lengths, and the least longer one that leaves cells out, or the longest that takes a few seconds."""
    fitting = [n for n in LONGER if heads * n * n <= most_pairs and _summed(program, n) <= MOST_SUMMED]
    choosing = [n for n in fitting if _chooses(program, n)]
    return (*SHORT, *(choosing[:1] or fitting[-1:]))


def _chooses(program: Program, n: int) -> bool:
    """Whether a length has several of the largest cells, and more keys than any rule keeps."""
    largest = max((axis.size for axis in program.axes if axis.side), default=1)
    known = (most_keys(choice, program, n, n) for choice in program.choices)
    return n >= CELLS * largest and all(keys is None or n >= KEYS * keys for keys in known)


def _summed(program: Program, n: int) -> int:
    """The most numbers, of one head, that a score and one sum in it run through together."""
    axes = axes_of(program)
    found = [0]
    for score in program.scores:
        cells = math.prod(cells_of(axes[name], axes, n) for name in score.axes)
        sums = [part.binders for part in within(score.value) if isinstance(part, Reduce)]
        found += [cells * math.prod(_each(binder, axes, n) for binder in binders) for binders in (*sums, ())]
    return max(found)


def _each(binder: Binder, axes: Mapping[str, Axis], n: int) -> int:
    """How many numbers a binder runs through each time."""
    outer = axes.get(binder.outer) if isinstance(binder, Inside) else None
    return -(-cells_of(binder, axes, n) // (cells_of(outer, axes, n) if outer else 1))
