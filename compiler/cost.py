"""What a stack costs in forward attention and in a decoder's cache, beside dense attention: a prediction."""

from collections.abc import Sequence

from .coverage import Cost, LayerFacts

# One H100 in bf16, as docs/performance.md measured it: products on whole tiles, and memory.
FLOPS_PER_SECOND = 620e12
BYTES_PER_SECOND = 2.6e12


def cost(
    layers: Sequence[LayerFacts],
    n: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    element: int,
    dense_pairs: int,
    dense_tile_pairs: int,
) -> Cost:
    """The cost of layers with `element` bytes a number; two products of 2 FLOPs a pair and dimension."""
    per_pair = 4 * head_dim
    count = sum(len(layer.layers) for layer in layers)
    # Of layers that are known between bounds, what is possible.
    sparse = [(len(layer.layers), layer.possible_head_pairs, layer.tile_pairs, layer.cached) for layer in layers]
    # Queries and outputs of every head, keys and values of every group, once a layer.
    moved = (2 * heads + 2 * kv_heads) * n * head_dim * element
    key = 2 * head_dim * element

    def milliseconds(tile_pairs: int) -> float:
        return 1000 * max(per_pair * tile_pairs / FLOPS_PER_SECOND, moved / BYTES_PER_SECOND)

    return Cost(
        head_dim=head_dim,
        flops=per_pair * sum(times * pairs for times, pairs, _, _ in sparse),
        dense_flops=per_pair * dense_pairs * heads * count,
        bytes=moved * count,
        dense_bytes=moved * count,
        cache_bytes=key * sum(times * cached for times, _, _, cached in sparse),
        dense_cache_bytes=key * kv_heads * n * count,
        milliseconds=sum(times * milliseconds(tile_pairs) for times, _, tile_pairs, _ in sparse),
        dense_milliseconds=count * milliseconds(dense_tile_pairs * heads),
    )
