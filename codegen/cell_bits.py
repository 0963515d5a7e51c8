"""Chosen cells as bits: an eighth of their bytes, and the tiles they lie in found without any map in between."""

from contextlib import nullcontext
from typing import Any

import torch

from ..compiler.plan import Tiling

# Bytes of a row packed together, and tiles of a row found together.
PACKED, FOUND = 256, 512


def pack(kept: torch.Tensor) -> torch.Tensor:
    """Booleans `[.., cells]` as bytes `[.., cells / 8]`, the first of eight in the lowest bit."""
    return pack_by_kernel(kept) if kept.is_cuda else pack_plainly(kept)


def pack_plainly(kept: torch.Tensor) -> torch.Tensor:
    """The same, by the definition."""
    eights = torch.nn.functional.pad(kept, (0, -kept.shape[-1] % 8)).unflatten(-1, (-1, 8)).view(torch.uint8)
    bits = eights[..., 0]
    for place in range(1, 8):
        bits = bits | eights[..., place] << place
    return bits


def unpack(bits: torch.Tensor, count: int) -> torch.Tensor:
    """The first `count` booleans of each row."""
    places = torch.arange(8, device=bits.device, dtype=torch.uint8)
    return (bits[..., None] >> places & 1).bool().flatten(-2)[..., :count].contiguous()


def pack_by_kernel(kept: torch.Tensor) -> torch.Tensor:
    """The same, by a kernel that makes no map in between."""
    columns = kept.shape[-1]
    width = -(-columns // 8)
    flat = kept.reshape(-1, columns)
    bits = torch.empty((*kept.shape[:-1], width), dtype=torch.uint8, device=kept.device)
    from . import cell_bits_kernel  # triton is not everywhere

    kernel: Any = cell_bits_kernel.pack
    step = min(PACKED, max(16, 1 << (width - 1).bit_length()))
    with torch.cuda.device(kept.device) if kept.is_cuda else nullcontext():
        kernel[(len(flat),)](flat.view(torch.int8), bits, columns, width, step)
    return bits


def in_line(bits: torch.Tensor) -> torch.Tensor:
    """Bits whose batch elements and heads lie at even distances, as kernels go through them."""
    return bits if bits.shape[0] == 1 or bits.stride(0) == bits.shape[1] * bits.stride(1) else bits.contiguous()


def tiles_by_kernel(
    bits: torch.Tensor, sizes: tuple[int, int], tiling: Tiling, m: int, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which tiles of m queries and n keys have a cell, and which have no other; `sizes` of a cell's queries and keys.

    Both are [B, H, query tiles, key tiles]; one row of cells is shared by all queries.
    """
    batch, heads, rows, _ = bits.shape
    bits = in_line(bits)
    tile_rows, tile_columns = -(-m // tiling.block_m), -(-n // tiling.block_n)
    shape = (batch, heads, tile_rows, tile_columns)
    touched, full = (torch.empty(shape, dtype=torch.bool, device=bits.device) for _ in range(2))
    from . import cell_bits_kernel  # triton is not everywhere

    kernel: Any = cell_bits_kernel.to_tiles
    step = min(FOUND, max(32, 1 << (tile_columns - 1).bit_length()))
    query_size, key_size = sizes
    cells = min(-(-n // key_size), (tiling.block_n - 1) // key_size + (1 if _nested(key_size, tiling.block_n) else 2))
    with torch.cuda.device(bits.device) if bits.is_cuda else nullcontext():
        kernel[(batch * heads * tile_rows, -(-tile_columns // step))](
            bits,
            touched.view(torch.int8),
            full.view(torch.int8),
            bits.stride(1),
            bits.stride(2),
            tile_rows,
            tile_columns,
            query_size,
            tiling.block_m,
            m,
            key_size,
            tiling.block_n,
            n,
            cells,
            rows == 1,
            step,
        )
    return touched, full


def _nested(cell: int, tile: int) -> bool:
    """Whether no cell lies in two tiles unless it has them whole."""
    return cell % tile == 0 or tile % cell == 0
