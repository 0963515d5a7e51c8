"""Launching a kernel again for tensors of the same shapes: as little on the host as the launch itself needs."""

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from triton import knobs
from triton.runtime import driver

LOG2E = 1.4426950408889634


class Described:
    """What Triton's launcher reads of a tensor descriptor, without the checks that the first call made."""

    __slots__ = ("base", "shape", "strides")
    padding = "zero"
    round_f32_to_tf32 = False

    def __init__(self, base: torch.Tensor, extent: tuple[list[int], list[int]]) -> None:
        self.base = base
        self.shape, self.strides = extent


@dataclass(frozen=True, slots=True)
class Repeat:
    """A launch that only the tensors' addresses and the scale are missing from: for short kernels the host decides."""

    compiled: Any
    device: int
    grid: tuple[int, int, int]
    extents: tuple[tuple[list[int], list[int]], ...]
    rows: tuple[int, int, int]
    fixed: tuple[Any, ...]

    def run(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, stream: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Launcher.run`, for tensors of the same shapes, strides, dtype and device."""
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        lse = torch.empty(self.rows, dtype=torch.float32, device=q.device)
        compiled, grid = self.compiled, self.grid
        described = map(Described, (q, k, v, out), self.extents)
        arguments = (*described, lse, *self.fixed, scale * LOG2E)
        hooks = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
        elsewhere = self.device != cast("Any", driver.active).get_current_device()
        with torch.cuda.device(q.device) if elsewhere else nullcontext():
            metadata = compiled.launch_metadata(grid, stream, *arguments)
            compiled.run(*grid, stream, compiled.function, compiled.packed_metadata, metadata, *hooks, *arguments)
        return out, lse
