"""Kernels before the first call: their text for any target, and their machine code through Triton's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .codegen.choose import Case
    from .pattern import Pattern


def case_of(target: str, dtype: str, head_dim: int) -> Case:
    """A target's name, a dtype and a head dim as what kernels are chosen by; raises ValueError for unknown names."""
    from .codegen.ahead import TORCH_DTYPES, parse_target
    from .codegen.choose import Case

    if dtype not in TORCH_DTYPES:
        raise ValueError(f"unknown dtype {dtype!r}: use fp16, bf16 or fp32")
    if not 1 <= head_dim <= 256:
        raise ValueError(f"head_dim is 1 to 256, not {head_dim}")
    capability = parse_target(target).capability
    tma = capability >= 90 and head_dim * TORCH_DTYPES[dtype].itemsize % 16 == 0
    return Case(dtype, head_dim, capability, tma)


def kernel_text(
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
) -> str:
    """The text of the module that a call with these shapes would run."""
    from .codegen.choose import kernel_for
    from .codegen.launch import kernel_source

    mask = pattern.bind(heads, kv_heads, layer, layers)
    shape = pattern.shape(n, m, heads, kv_heads, layer, layers)
    return kernel_source(kernel_for(mask, shape, case_of(target, dtype, head_dim), (n, m)))


def precompile(
    pattern: Pattern, target: str, dtype: str, head_dim: int, heads: int = 1, kv_heads: int | None = None
) -> list[Any]:
    """Compile the prefill kernels (as many queries as keys) for a target; returns Triton's compiled kernels.

    All that a call may choose from are compiled, since the choice depends on the length.
    """
    from .check import natural_heads
    from .codegen.ahead import compile_kernel, parse_target
    from .codegen.choose import kernels_for

    heads = heads if heads > 1 else natural_heads(pattern)
    mask, shape = pattern.bind(heads, kv_heads), pattern.shape(8192, 8192, heads, kv_heads)
    kernels = kernels_for(mask, shape, case_of(target, dtype, head_dim), 8192)
    return [compile_kernel(kernel, parse_target(target), heads, kv_heads or heads) for kernel in kernels]
