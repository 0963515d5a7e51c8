"""Published prefill selections written out in loops, one head at a time: (queries, keys) to the kept pairs."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Rule = Callable[[Floats, Floats], Bools]

SCALE = 0.25


def softmax(row: list[float]) -> list[float]:
    weights = [math.exp(x - max(row)) for x in row]
    return [w / math.fsum(weights) for w in weights]


def probes(q: Floats, k: Floats, count: int) -> dict[int, list[float]]:
    """The causal weights of the last queries, by position."""
    n = len(q)
    return {t: softmax([float(q[t] @ k[j]) * SCALE for j in range(t + 1)]) for t in range(max(0, n - count), n)}


def falling(score: list[float]) -> list[int]:
    return sorted(range(len(score)), key=lambda x: (-score[x], x))


def blocks_of(n: int, block: int) -> list[range]:
    return [range(at, min(n, at + block)) for at in range(0, n, block)]


def pbs(block: int, segment: int, mass: float) -> Rule:
    def rule(q: Floats, k: Floats) -> Bools:
        n = len(q)
        whole = n - n % segment
        heat = [0.0] * n
        for t in range(max(0, n - block), n):
            # The probe sees keys after it too, and none of the tail.
            for j, w in enumerate(softmax([float(q[t] @ k[j]) * SCALE for j in range(whole)]) if whole else []):
                heat[j] += w
        order: list[int] = []
        for start in range(0, whole, segment):
            order += sorted(range(start, start + segment), key=lambda j: (-heat[j], j))
        order += range(whole, n)
        held = [[order[place] for place in places] for places in blocks_of(n, block)]
        kept = np.zeros((n, n), dtype=bool)
        for rows in blocks_of(n, block):
            own = rows[0] // segment * segment
            past = held[: own // block]
            weights = softmax([float(q[rows].mean(0) @ k[keys].mean(0)) * SCALE for keys in past]) if past else []
            taken, spent = list[int](), 0.0
            for b in falling(weights):
                taken.append(b)
                spent += weights[b]
                if spent >= mass:
                    break
            else:
                taken = []
            for b, keys in enumerate(held):
                if b in taken or 0 in keys or rows[0] // segment == min(keys) // segment:
                    kept[np.ix_(rows, keys)] = True
        return np.tril(kept)

    return rule


def vertical_slash(columns: int, slashes: int, count: int, sink: int, near: int) -> Rule:
    def rule(q: Floats, k: Floats) -> Bools:
        n = len(q)
        vertical, slash = [0.0] * n, [0.0] * n
        for t, row in probes(q, k, count).items():
            for j, w in enumerate(row):
                vertical[j] += w
                slash[t - j] += w
        vertical[:sink] = [math.inf] * min(n, sink)
        slash[:near] = [math.inf] * min(n, near)
        keys = falling(vertical)[: max(columns, sink)]
        offsets = falling(slash)[: max(slashes, near)]
        return np.tril(np.array([[j in keys or i - j in offsets for j in range(n)] for i in range(n)]))

    return rule


def divergence(a: list[float], b: list[float]) -> float:
    """Jensen and Shannon's, in nats."""
    halves = [(x, (x + y) / 2) for x, y in zip(a, b, strict=True)] + [
        (y, (x + y) / 2) for x, y in zip(a, b, strict=True)
    ]
    return math.fsum(x * math.log(x / middle) for x, middle in halves if x > 0) / 2


def budget_of(share: list[float], mass: float, block: int, least: int) -> int:
    """Blocks for the tokens that the mass takes, one more token and one more block."""
    spent, inside = 0.0, 0
    for x in sorted(share, reverse=True):
        spent += x
        inside += spent <= mass
    return max((inside + 1) // block + 1, least)


def flex(block: int, mass: float, tau: float, least: int) -> Rule:
    def rule(q: Floats, k: Floats) -> Bools:
        n = len(q)
        if n <= max(2 * block, least):
            return np.tril(np.ones((n, n), dtype=bool))
        cells = blocks_of(n, block)
        vertical, slash = [0.0] * n, [0.0] * n
        for t, row in probes(q, k, block).items():
            for j, w in enumerate(row):
                vertical[j] += w / block
                slash[t - j] += w / block
        column, band = ([math.fsum(share[x] for x in cell) for cell in cells] for share in (vertical, slash))
        means = [k[keys].mean(0) for keys in cells]
        guess = softmax([float(q[-block:].mean(0) @ key) * SCALE for key in means])
        aware = math.sqrt(max(0.0, divergence(guess, column))) < tau
        across, along = (
            least // block if aware else budget_of(share, mass, block, least // block) for share in (vertical, slash)
        )
        column[0] = band[0] = math.inf
        columns, bands = falling(column)[:across], falling(band)[:along]
        chosen = {(i, j) for i in range(len(cells)) for j in range(i + 1) if j in columns or i - j in bands}
        if aware:
            chosen |= heaviest(map_of(q, means, cells), mass * len(cells))
        kept = np.zeros((n, n), dtype=bool)
        for i, j in chosen | {(0, 0)}:
            kept[np.ix_(cells[i], cells[j])] = True
        return np.tril(kept)

    return rule


def map_of(q: Floats, means: list[Floats], cells: list[range]) -> dict[tuple[int, int], float]:
    out: dict[tuple[int, int], float] = {}
    for i, rows in enumerate(cells):
        weights = softmax([float(q[rows].mean(0) @ key) * SCALE for key in means[: i + 1]])
        out |= {(i, j): w for j, w in enumerate(weights)}
    return out


def heaviest(weight: dict[tuple[int, int], float], mass: float) -> set[tuple[int, int]]:
    """The largest entries of a map while their sum stays within the mass."""
    taken, spent = set[tuple[int, int]](), 0.0
    for cell in sorted(weight, key=lambda cell: (-weight[cell], cell)):
        spent += weight[cell]
        if spent > mass:
            break
        taken.add(cell)
    return taken


def anchor(block: int, step: int, theta: float) -> Rule:
    def rule(q: Floats, k: Floats) -> Bools:
        n, wide = len(q), block * step
        logits = q @ k.T * SCALE
        kept = np.zeros((n, n), dtype=bool)
        for start in range(0, n, wide):
            rows = range(start, min(n, start + wide))
            # First the anchor exactly: every query's largest logit there.
            highest: dict[int, float] = {}
            for i in rows:
                region = {*range(block), *range(start, start + wide)} & set(range(i + 1))
                highest[i] = max(float(logits[i, j]) for j in region)
                kept[i, list(region)] = True
            # Then the columns strictly past, outside of it.
            for j in range(block, start):
                for at in range(start, rows.stop, block):
                    cell = range(at, min(n, at + block))
                    limit = sum(highest[i] for i in cell) / len(cell)
                    if float(q[cell].mean(0) @ k[j]) * SCALE + theta >= limit:
                        kept[rows.start : rows.stop, j] = True
        return kept

    return rule


def flash(block: int, alpha: float, sink: int, window: int, dense: int) -> Rule:
    def rule(q: Floats, k: Floats) -> Bools:
        n = len(q)
        cells = blocks_of(n, block)
        kept = np.zeros((n, n), dtype=bool)
        for i, rows in enumerate(cells):
            past = [(j, t, float(q[t] @ k[cells[j]].mean(0)) * SCALE) for t in rows for j in range((t + 1) // block)]
            highest = max((x for _, _, x in past), default=0.0)
            energy = [math.fsum(math.exp(x - highest) for j, _, x in past if j == b) for b in range(len(cells))]
            share = [e / (math.fsum(energy) or 1.0) for e in energy]
            for j in range(i + 1):
                forced = j < sink // block or i - j < window // block or i >= len(cells) - dense
                if forced or share[j] >= alpha * max(share):
                    kept[np.ix_(rows, cells[j])] = True
        return np.tril(kept)

    return rule
