"""Random patterns as text, from a seed alone: failures can be read, kept and repeated anywhere."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Make = Callable[["Dice"], str]


@dataclass
class Dice:
    """Seeded choices."""

    rng: np.random.Generator

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def pick(self, *choices: str) -> str:
        return choices[self.number(0, len(choices) - 1)]

    def width(self) -> int:
        """Small, near a tile's edge, or large."""
        low, high = ((0, 12), (60, 68), (120, 132), (200, 700))[self.number(0, 3)]
        return self.number(low, high)

    def block(self) -> int:
        return [3, 8, 16, 48, 64, 100, 128][self.number(0, 6)]


# Conditions whose tiles are loops.
PLAIN: tuple[Make, ...] = (
    lambda d: f"|q - k| <= {d.width()}",
    lambda d: f"0 <= q - k < {d.width() + 1}",
    lambda d: f"{-d.number(0, 40)} <= q - k < {d.width()}",
    lambda d: f"k < {d.width()}",
    lambda d: f"q < {d.width()}",
    lambda d: f"k >= n - {d.width()}",
    lambda d: f"k < n // {d.number(2, 4)}",
    lambda d: f"(q - k) % {d.number(2, 9)} == {d.number(0, 2)}",
    lambda d: f"(k - 3 * q) % {d.number(2, 9)} < {d.number(1, 3)}",
    lambda d: f"k % {d.block()} < {d.number(1, 5)}",
    lambda d: f"q % {d.number(2, 7)} != {d.number(0, 1)}",
    lambda d: f"q // {d.block()} == k // {d.block()}",
    lambda d: f"|q // {(b := d.block())} - k // {b}| <= {d.number(0, 2)}",
    lambda d: f"q - k in {{0, 1, {d.number(2, 70)}, {d.number(71, 400)}}}",
    lambda d: f"|2 * q - k| < {d.width() + 1}",
    lambda d: f"min(q, k) < {d.width()}",
    lambda d: f"max(q, k) >= n - {d.width()}",
    lambda d: f"k in q - {d.width()} .. q - {d.number(0, 5)}",
    lambda d: f"h % 2 == {d.number(0, 1)}",
    lambda d: f"(k // {d.block()} + h) % heads == 0",
    lambda d: f"(k + g * {d.number(1, 7)}) % {d.number(3, 20)} < 2",
    lambda d: f"q - k < {d.number(10, 90)} * (h + 1)",
)
# Conditions that take lists or tables.
ODD: tuple[Make, ...] = (
    lambda d: f"q // {(b := d.block())} - k // {b} in powers(2)",
    lambda d: f"(q // {(b := d.block())}) ^ (k // {b}) in powers(2)",
    lambda d: f"q - k in powers({d.number(2, 3)})",
    lambda d: f"(q ^ k) & {d.number(1, 15)} == 0",
    lambda d: f"q * k % {d.number(2, 9)} == 0",
    lambda d: f"k // {d.block()} in sample({d.number(1, 4)}, n // 16 + 1, {d.number(0, 9)}, h, q // {d.block()})",
    lambda d: f"k in sample({d.number(2, 6)}, n, {d.number(0, 9)})",
)
# What a pattern may declare, and the conditions that it may use then.
DECLARED: tuple[tuple[Make, tuple[Make, ...]], ...] = (
    (
        lambda d: "input doc[token]: int",
        (lambda d: "doc[q] == doc[k]", lambda d: f"doc[k] < {d.number(1, 6)}", lambda d: "doc[q] >= doc[k]"),
    ),
    (lambda d: "input bag[key]: int", (lambda d: f"bag[k] % {d.number(2, 4)} == 0",)),
    (lambda d: "input seg[query]: int", (lambda d: f"seg[q] % {d.number(2, 4)} == 0",)),
    (lambda d: "input reach[head]: int", (lambda d: "|q - k| <= 8 * reach[h]", lambda d: "k < reach[h] + 3")),
    (lambda d: "input parent[token]: int", (lambda d: "ancestor(parent)", lambda d: "parent[q] >= k")),
    (
        lambda d: f"grid (y, x) over ({d.number(3, 40)}, {d.number(3, 40)})",
        (
            lambda d: f"near(y, {d.number(0, 4)}) and near(x, {d.number(1, 6)}, clamp)",
            lambda d: f"near(x, {d.number(0, 5)}, wrap)",
            lambda d: "q.y == k.y or q.x == k.x",
        ),
    ),
    (
        lambda d: f"grid (t, y, x) over (4, {d.number(2, 9)}, {d.number(3, 12)}) of {d.number(1, 5)}",
        (lambda d: f"near(t, 1) and near(y, {d.number(0, 3)}, clamp)", lambda d: f"|q.x - k.x| < {d.number(1, 4)}"),
    ),
)


def random_pattern(seed: int) -> str:
    """A pattern's text; the same for the same seed."""
    dice = Dice(np.random.default_rng(seed))
    atoms, lines = [*PLAIN * 3, *ODD], list[str]()
    if dice.number(1, 100) <= 35:
        declare, extra = DECLARED[dice.number(0, len(DECLARED) - 1)]
        lines.append(declare(dice))
        atoms += extra * 30  # often enough to matter

    def condition(most: int) -> str:
        parts = [atoms[dice.number(0, len(atoms) - 1)](dice) for _ in range(dice.number(1, most))]
        parts = [f"not ({part})" if dice.number(1, 12) == 1 else f"({part})" for part in parts]
        return dice.pick(" and ", " and ", " or ").join(parts)

    if dice.number(0, 1):
        lines.append("causal")
    lines += [f"keep {condition(2)}" for _ in range(dice.number(1, 3))]
    if dice.number(1, 4) == 1:
        lines.append(f"require {condition(1)} or {condition(1)}")
    if dice.number(1, 4) == 1:
        lines.append(f"drop {condition(2)}")
    return f"pattern random_{seed} {{\n    " + "\n    ".join(lines) + "\n}\n"
