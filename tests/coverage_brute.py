"""Coverage by brute force: boolean matrices over tokens, written from the definitions and from nothing else."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tests.brute import Bools


@dataclass(frozen=True)
class Facts:
    """`reached[d]`: which pairs the first d layers connect, staying in place being free."""

    unions: list[Bools]
    admissible: Bools
    reached: list[Bools]
    complete_at: int | None
    limit: int
    limit_depth: int


def product(a: Bools, b: Bools) -> Bools:
    return (a.astype(np.float32) @ b.astype(np.float32)) > 0


def through(layers: Sequence[Bools], here: Bools) -> list[Bools]:
    """What is reached after each of some layers, from what is reached before them."""
    out: list[Bools] = []
    for layer in layers:
        here = product(layer | np.eye(len(layer), dtype=bool), here)
        out.append(here)
    return out


def facts(layers: Sequence[Bools]) -> Facts:
    """Everything about layers given as [heads, n, n], the first at the input."""
    unions = [np.asarray(layer.any(axis=0)) for layer in layers]
    n = unions[0].shape[0]
    triangle = np.tril(np.ones((n, n), dtype=bool))
    causal = all(not (union & ~triangle).any() for union in unions)
    admissible = triangle if causal else np.ones((n, n), dtype=bool)
    start = np.eye(n, dtype=bool)
    reached = [start, *through(unions, start)]
    whole = [d for d, r in enumerate(reached) if d and (r | ~admissible).all()]
    # Repeated until a whole round of layers adds nothing.
    history = list(reached)
    while True:
        more = through(unions, history[-1])
        if np.array_equal(more[-1], history[-1]):
            break
        history += more
    end = history[-1]
    depth = next(d for d, r in enumerate(history) if np.array_equal(r, end))
    return Facts(unions, admissible, reached, min(whole, default=None), int((end & admissible).sum()), depth)


def contiguous(row: Bools, q: int) -> int:
    """How many keys a query reaches without a gap back from itself."""
    count = 0
    while count <= q and row[q - count]:
        count += 1
    return count


def live(union: Bools) -> int:
    """The most keys, up to some time t, that a query at t or later attends to."""
    n = len(union)
    return max(int(union[t:, : t + 1].any(axis=0).sum()) for t in range(n))


def dropped_too_early(union: Bools) -> bool:
    """Whether some key is skipped by a query at or after it and needed by a later one."""
    return any(not union[q, k] and union[q + 1 :, k].any() for k in range(len(union)) for q in range(k, len(union)))
