"""Machine code without a GPU: the very compilation a first call would do, for a named target."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

import torch

from .configure import Dtype
from .forward import Kernel, used_tables
from .launch import Columns, DeviceLists, arguments_for, launcher

TORCH_DTYPES: dict[Dtype, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
TARGETS = ("sm80", "sm86", "sm89", "sm90", "sm100", "sm103", "sm120", "gfx90a", "gfx942", "gfx950")


@dataclass(frozen=True, slots=True)
class Target:
    """A GPU to compile for: "cuda" with a compute capability, or "hip" with an architecture's name."""

    backend: str
    arch: int | str
    warp: int

    @property
    def capability(self) -> int:
        """The number `configure` wants; 0 for AMD."""
        return self.arch if isinstance(self.arch, int) else 0


def parse_target(text: str) -> Target:
    """A name of TARGETS, `sm_90` for `sm90` too; raises ValueError."""
    name = text.replace("sm_", "sm", 1) if text.startswith("sm_") else text
    if name not in TARGETS:
        raise ValueError(f"unknown target {text!r}: use {', '.join(TARGETS[:-1])} or {TARGETS[-1]}")
    return Target("cuda", int(name[2:]), 32) if name.startswith("sm") else Target("hip", name, 64)


class _StubDriver:
    """Answers what Triton asks a driver before launching; nothing here touches a GPU."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def get_current_device(self) -> int:
        """A device number no real device has, so that nothing is mixed up in Triton's caches."""
        return -1

    def get_current_stream(self, _device: int) -> int:
        """No stream."""
        return 0

    def get_current_target(self) -> Any:
        """The target compiled for."""
        return self.target


_lock = Lock()


@contextmanager
def _pretend(target: Target) -> Generator[None]:
    """Let Triton believe in the target while compiling."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    config: Any = driver
    with _lock:
        before = config._active
        config.set_active(_StubDriver(GPUTarget(target.backend, target.arch, target.warp)))
        try:
            yield
        finally:
            config._active = before


def compile_kernel(kernel: Kernel, target: Target, heads: int = 1, kv_heads: int = 1) -> Any:
    """Compile for a target into Triton's on-disk cache; returns Triton's compiled kernel."""
    tokens = max(kernel.config.block_m, kernel.config.block_n)
    dtype = TORCH_DTYPES[kernel.dtype]
    q = torch.empty(1, heads, tokens, kernel.head_dim, dtype=dtype)
    k = torch.empty(1, kv_heads, tokens, kernel.head_dim, dtype=dtype)
    ints = torch.zeros(16, dtype=torch.int32)
    columns = Columns(ints.clone(), ints.clone(), ints.clone()) if kernel.plan.columns else None
    key_of = ints.clone() if kernel.plan.ordered else None
    lists = DeviceLists(ints, ints.clone(), ints.clone(), 0, columns, key_of)
    lists = None if kernel.plan.strategy == "run" and not kernel.plan.band else lists
    tables = {name: ints.clone() for name in used_tables(kernel.plan)}
    launch = launcher(kernel)
    arguments = arguments_for(launch, q, k, k.clone(), q.clone(), torch.empty(1, heads, tokens), 1.0, lists, tables)
    function = launch.function
    with _pretend(target):
        # Triton keeps what it compiled by device number; the stub's number must not outlive this target.
        function.device_caches.pop(-1, None)
        compiled = function.run(*arguments, grid=(1,), warmup=True, **launch.options)
        function.device_caches.pop(-1, None)
    return compiled
