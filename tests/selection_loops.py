"""What the loops that check selections share: programs from text, hostile tensors, and the rules in words."""

import math
from fractions import Fraction
from typing import Any

import torch

from tests.brute import PATTERNS
from weft.compiler.lower_selection import lower_selection
from weft.compiler.plan import Shape
from weft.compiler.selection import Program
from weft.dsl.loader import load_text

HEADS, GROUPS, WIDTH, SCALE = 4, 2, 8, 0.25


def text_of(name: str) -> str:
    return (PATTERNS / "selection" / f"{name}.sparse").read_text(encoding="utf-8")


def program(text: str, /, **params: Any) -> Program:
    module = load_text(text)
    return lower_selection(module, module.file.patterns[-1], params, Shape(True, HEADS, GROUPS))


def body(lines: str) -> Program:
    return program("pattern p {\n" + lines + "\n}")


def tensors(n: int, kind: str, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """q `[2, H, n, D]` and k `[2, G, n, D]`: noise, sharp rows, small integers, or one needle in noise."""
    torch.manual_seed(seed + n)
    q = torch.randn(2, HEADS, n, WIDTH, dtype=torch.float64)
    k = torch.randn(2, GROUPS, n, WIDTH, dtype=torch.float64)
    match kind:
        case "sharp":
            return q * 30, k
        case "ties":
            return (q * 1.5).round().clamp(-2, 2), (k * 1.5).round().clamp(-2, 2)
        case "needle":
            k[:, :, n // 3] = 20.0
            q[:, :, 2 * n // 3 :] = 20.0
        case _:
            pass
    return q, k


def softmax(row: list[float]) -> list[float]:
    weights = [math.exp(x - max(row)) for x in row]
    return [w / sum(weights) for w in weights]


def row_rule(
    rule: str, amount: Fraction | float, budget: int, score: list[float], seen: list[int], forced: list[int]
) -> set[int]:
    """The kept cells of one row, from the words of the language's definition; `seen` are the candidates."""
    weigh = {j: 0 if math.isnan(score[j]) else Fraction(score[j]) for j in seen}
    queue = sorted((j for j in seen if j not in forced and not math.isnan(score[j])), key=lambda j: (-score[j], j))
    spent = sum((weigh[j] for j in forced), Fraction(0))
    masses = [spent + sum((weigh[j] for j in queue[:count]), Fraction(0)) for count in range(len(queue) + 1)]
    match rule:
        case "top":
            count = max(0, budget - len(forced))
        case "cover":
            total = sum(weigh.values(), Fraction(0))
            count = next((c for c, mass in enumerate(masses) if mass >= Fraction(amount) * total), len(queue))
        case "reach":
            count = next((c for c, mass in enumerate(masses) if mass >= amount), 0)
        case _:
            count = max([0 if forced else 1, *(c for c, mass in enumerate(masses) if mass <= amount)])
    return {*forced, *queue[:count]}
