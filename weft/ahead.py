"""Kernels before the first call: their text for any target, and their machine code through Triton's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codegen.forward import Kernel
    from .pattern import Pattern


def kernel_of(
    pattern: Pattern,
    target: str,
    dtype: str,
    head_dim: int,
    n: int,
    m: int,
    heads: int,
    kv_heads: int | None,
    layer: int,
    layers: int,
) -> Kernel:
    """The kernel a call with these shapes would use on a target; raises ValueError for unknown names."""
    from .codegen.ahead import TORCH_DTYPES, parse_target
    from .codegen.launch import kernel_for

    if dtype not in TORCH_DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}: use fp16, bf16 or fp32")
    if not 1 <= head_dim <= 256:
        raise ValueError(f"head_dim is 1 to 256, not {head_dim}")
    capability = parse_target(target).capability
    size = TORCH_DTYPES[dtype].itemsize
    tma = capability >= 90 and head_dim * size % 16 == 0
    mask = pattern.bind(heads, kv_heads, layer, layers)
    shape = pattern.shape(n, m, heads, kv_heads, layer, layers)
    return kernel_for(mask, shape, dtype, head_dim, m, capability, tma, hopper=True)


def kernel_text(pattern: Pattern, target: str, dtype: str, head_dim: int, *shape: Any) -> str:
    """The generated module's text."""
    from .codegen.launch import kernel_source

    return kernel_source(kernel_of(pattern, target, dtype, head_dim, *shape))


def precompile(
    pattern: Pattern, target: str, dtype: str, head_dim: int, heads: int = 1, kv_heads: int | None = None
) -> Any:
    """Compile the prefill kernel (as many queries as keys) for a target; returns Triton's compiled kernel."""
    from .check import natural_heads
    from .codegen.ahead import compile_kernel, parse_target

    heads = heads if heads > 1 else natural_heads(pattern)
    kernel = kernel_of(pattern, target, dtype, head_dim, 8192, 8192, heads, kv_heads, 0, 1)
    return compile_kernel(kernel, parse_target(target), heads, kv_heads or heads)
