"""The shipped prefill selections keep exactly the pairs that their papers' rules do, on hostile inputs."""

from typing import Any

import numpy as np
import pytest
import torch

import weft
from tests.brute import PATTERNS
from tests.prefill_rules import SCALE, Rule, anchor, flash, flex, pbs, vertical_slash
from weft.codegen.select_reference import selected

HEADS, GROUPS, WIDTH = 4, 2, 8
LENGTHS = (1, 63, 130)
KINDS = ("noise", "sharp", "needle", "equal", "even")


def tensors(n: int, kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """q `[1, H, n, D]` and k `[1, G, n, D]`.

    `sharp` rows have one huge weight; a `needle` is sought by the last third; in `equal` all logits are 0; in `even`
    eight keys share all weight and the others have none, so that sums are exact and many are equal.
    """
    generator = torch.Generator().manual_seed(n)
    q = torch.randn(1, HEADS, n, WIDTH, dtype=torch.float64, generator=generator) * 4
    k = torch.randn(1, GROUPS, n, WIDTH, dtype=torch.float64, generator=generator)
    match kind:
        case "sharp":
            q *= 8
        case "needle":
            k[:, :, n // 3] = 20.0
            q[:, :, 2 * n // 3 :] = 20.0
        case "equal":
            q.zero_()
        case "even":
            q.zero_()[..., 0] = 1.0
            k.zero_()[..., 0] = -8192.0
            for g in range(GROUPS):
                k[:, g, torch.randperm(max(1, n - 64), generator=generator)[:8]] = 0.0
        case _:
            pass
    return q, k


def kept(name: str, q: torch.Tensor, k: torch.Tensor, **params: Any) -> torch.Tensor:
    """The shipped pattern's pairs, by definition, `[1, H, n, n]`."""
    program = weft.load(PATTERNS / "selection" / f"{name}.sparse", **params).program(HEADS, GROUPS)
    return selected(program, q, k, k, SCALE, {})


def agrees(name: str, rule: Rule, n: int, kind: str, **params: Any) -> None:
    q, k = tensors(n, kind)
    got = kept(name, q, k, **params)[0].numpy()
    for h in range(HEADS):
        wanted = rule(q[0, h].numpy(), k[0, h // (HEADS // GROUPS)].numpy())
        assert np.array_equal(got[h], wanted), f"head {h}: {np.argwhere(got[h] != wanted)[:9].tolist()}"


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("kind", KINDS)
class TestPublished:
    @pytest.mark.parametrize(("block", "segment", "mass"), [(16, 32, 0.9), (8, 32, 0.45), (16, 16, 1.5)])
    def test_pbs(self, n: int, kind: str, block: int, segment: int, mass: float) -> None:
        agrees("pbs_attention", pbs(block, segment, mass), n, kind, block=block, segment=segment, mass=mass)

    @pytest.mark.parametrize(
        ("columns", "slashes", "probes", "sink", "near"), [(20, 24, 16, 3, 5), (4, 9, 300, 6, 9), (0, 0, 7, 2, 1)]
    )
    def test_minference(self, n: int, kind: str, columns: int, slashes: int, probes: int, sink: int, near: int) -> None:
        rule = vertical_slash(columns, slashes, probes, sink, near)
        params = {"columns": columns, "slashes": slashes, "probes": probes, "sink": sink, "near": near}
        agrees("minference", rule, n, kind, **params)

    @pytest.mark.parametrize(
        ("block", "mass", "tau", "budget"),
        [(16, 0.9, 0.1, 32), (16, 0.5, 0.25, 16), (8, 0.8125, 0.0, 8), (16, 0.75, 2.0, 32)],
    )
    def test_flex(self, n: int, kind: str, block: int, mass: float, tau: float, budget: int) -> None:
        params = {"block": block, "mass": mass, "tau": tau, "budget": budget}
        agrees("flex_prefill", flex(block, mass, tau, budget), n, kind, **params)

    @pytest.mark.parametrize(("block", "step", "theta"), [(8, 4, 1.0), (16, 2, 12.0), (16, 1, 0.0), (8, 3, -0.5)])
    def test_anchor(self, n: int, kind: str, block: int, step: int, theta: float) -> None:
        agrees("anchor_attention", anchor(block, step, theta), n, kind, block=block, step=step, theta=theta)

    @pytest.mark.parametrize(
        ("alpha", "sink", "window", "dense"), [(0.2, 16, 32, 2), (0.9, 0, 8, 0), (1.0, 8, 16, 1), (0.0, 8, 8, 0)]
    )
    def test_flash(self, n: int, kind: str, alpha: float, sink: int, window: int, dense: int) -> None:
        params = {"block": 8, "alpha": alpha, "sink": sink, "window": window, "dense": dense}
        agrees("flash_prefill", flash(8, alpha, sink, window, dense), n, kind, **params)
