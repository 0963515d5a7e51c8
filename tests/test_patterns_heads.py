"""Shipped patterns whose mask depends on the head, each head against the paper's rule."""

import numpy as np
import pytest

import weft
from tests.brute import PATTERNS, Bools, assert_mask, blocks, blown_up, causal, load, rows


def block_layout(mask: Bools, block: int) -> Bools:
    """One entry a block, after checking that blocks are uniform."""
    layout = mask[..., ::block, ::block]
    assert np.array_equal(blown_up(layout, block, mask.shape[-1]), mask)
    return layout


def bigbird_fixed(count: int) -> Bools:
    """Window of three blocks, first and last block global."""
    layout = rows(lambda i: {i - 1, i, i + 1, 0, count - 1}, count)
    layout[0] = layout[-1] = True
    return layout


@pytest.mark.parametrize(
    ("n", "block"), [(3, 4), (8, 4), (12, 4), (16, 4), (20, 4), (24, 4), (45, 4), (64, 4), (30, 1)]
)
@pytest.mark.parametrize("random", [0, 1, 3])
def test_bigbird(n: int, block: int, random: int) -> None:
    """Besides the fixed blocks, each row has `random` blocks, or all that are left if they are fewer."""
    layout = block_layout(load("bigbird", block=block, random=random).mask(n, heads=4), block)
    layout = np.broadcast_to(layout, (4, *layout.shape[-2:]))
    fixed = bigbird_fixed(blocks(block, n))
    assert layout[:, fixed].all()
    drawn = (layout & ~fixed).sum(axis=-1)
    assert (drawn == np.minimum(random, (~fixed).sum(axis=-1))).all()


def test_bigbird_draws_differ_by_head_row_and_seed_only() -> None:
    first = load("bigbird", block=1, seed=7).mask(64, heads=4)
    assert np.array_equal(first, load("bigbird", block=1, seed=7).mask(64, heads=4))
    assert np.array_equal(first[:, 40:], load("bigbird", block=1, seed=7).mask(64, m=24, heads=4))
    assert not np.array_equal(first, load("bigbird", block=1, seed=8).mask(64, heads=4))
    assert len({head.tobytes() for head in first}) == 4
    drawn = first[0] & ~bigbird_fixed(64)
    assert len({row.tobytes() for row in drawn[1:-1]}) > 50


@pytest.mark.parametrize("n", [6, 7, 10])
def test_bigbird_can_draw_every_block_left(n: int) -> None:
    assert load("bigbird", block=1, random=1).mask(n, heads=256).any(axis=0).all()


def test_bigbird_density() -> None:
    """64 blocks: 2 full rows, 60 rows of 8 blocks and 2 of 7."""
    mask = load("bigbird", block=1).mask(64, heads=2)
    assert mask.sum(axis=(1, 2)).tolist() == [622, 622]
    assert round(622 / 64**2, 3) == 0.152


def branch_tokens(n: int, heads: int, segment: int, rate: int, head: int) -> list[list[int]]:
    """For each segment the tokens a head keeps, found as torchscale does: by padding, reshaping and a diagonal."""
    padded_heads = blocks(rate, heads) * rate
    padded_length = blocks(rate, segment) * rate
    kept: list[list[int]] = []
    for start in range(0, n, segment):
        place = np.broadcast_to(np.arange(padded_length)[:, None], (padded_length, padded_heads))
        cells = place.reshape(padded_length // rate, rate, rate, padded_heads // rate)  # l r1 r2 h
        by_head = np.diagonal(cells, axis1=1, axis2=2).transpose(2, 1, 0).reshape(padded_heads, -1)  # (r h) l
        end = min(segment, n - start)
        kept.append([start + int(p) for p in by_head[head] if p < end])
    return kept


def branch_masks(n: int, heads: int, segment: int, rate: int) -> Bools:
    """[heads, n, n]: causal attention among the tokens that a branch keeps in a segment."""
    mask = np.zeros((heads, n, n), dtype=bool)
    for head in range(heads):
        for tokens in branch_tokens(n, heads, segment, rate, head):
            mask[head][np.ix_(tokens, tokens)] = True
    return causal(mask)


@pytest.mark.parametrize("n", [1, 6, 45, 64])
@pytest.mark.parametrize(("heads", "segment"), [(4, 4), (6, 5), (12, 8)])
def test_longnet(n: int, heads: int, segment: int) -> None:
    configuration = [(segment, 1), (2 * segment, 2), (4 * segment, 4), (8 * segment, 6), (16 * segment, 12)]
    union = np.zeros((heads, n, n), dtype=bool)
    for count, (width, rate) in enumerate(configuration, start=1):
        one = branch_masks(n, heads, width, rate)
        assert_mask(weft.load(PATTERNS / "longnet.sparse", "branch", segment=width, rate=rate), one)
        union |= one
        assert_mask(weft.load(PATTERNS / "longnet.sparse", "union", segment=segment, branches=count), union)


@pytest.mark.parametrize("heads", [1, 4, 7])
@pytest.mark.parametrize("branches", [1, 2, 5])
def test_longnet_gives_each_group_of_heads_one_branch(heads: int, branches: int) -> None:
    n, segment = 100, 4
    configuration = [(segment, 1), (2 * segment, 2), (4 * segment, 4), (8 * segment, 6), (16 * segment, 12)]
    expected = np.zeros((heads, n, n), dtype=bool)
    for head in range(heads):
        expected[head] = branch_masks(n, heads, *configuration[head * branches // heads])[head]
    assert_mask(load("longnet", segment=segment, branches=branches), expected)


@pytest.mark.parametrize("n", [1, 3, 45, 64])
@pytest.mark.parametrize(("heads", "kv_heads"), [(8, 8), (8, 2), (4, 4), (2, 1)])
@pytest.mark.parametrize(("offset", "dense"), [(0, 0), (1, 0), (0, 1)])
def test_s2_attention(n: int, heads: int, kv_heads: int, offset: int, dense: int) -> None:
    """A local band of blocks and every stride-th key block, which ones by the key/value head; dense last heads."""
    block, local, stride, step = 4, 2, 4, max(1, 4 // heads)
    group = heads // kv_heads
    expected = np.zeros((heads, n, n), dtype=bool)
    for head in range(heads):
        shard = head // group

        def keys(i: int, shard: int = shard) -> set[int]:
            shards = {j for j in range(i + 1) if (j + shard * step + offset) % stride == 0}
            return {*range(i + 1)} if shard >= kv_heads - dense else {*range(i - local + 1, i + 1), *shards}

        expected[head] = causal(blown_up(rows(keys, blocks(block, n)), block, n))
    pattern = load("s2_attention", local=local, stride=stride, block=block, offset=offset, dense=dense * group)
    assert_mask(pattern, expected, kv_heads=kv_heads)


def test_s2_attention_counts() -> None:
    """Phi-3-small at 8K keeps 0.335 of the causal blocks in a head; at least `stride` heads cover everything."""
    phi = load("s2_attention", block=1).mask(128, heads=32)
    assert round(phi[0].sum() / (128 * 129 / 2), 3) == 0.335
    shards = load("s2_attention", block=1, local=4)
    assert shards.mask(256, heads=8)[0].sum() == 5114
    assert shards.mask(256, heads=8).any(axis=0).sum() == 256 * 257 / 2
    assert shards.mask(256, heads=4).any(axis=0).sum() == 17020


def test_s2_attention_never_needs_a_block_again() -> None:
    """Once a key has left the window unseen, no later query sees it."""
    local = 4
    for head in load("s2_attention", block=1, local=local).mask(64, heads=8):
        for k in range(64):
            far = head[k + local :, k]
            assert far.all() or not far.any()


ALPHA = [[0, 64, -1024], [2048, 0, 128]]
BETA_EIGHTHS = [[4, 0, 8], [0, 1, 3]]


def moa_span(alpha: int, beta_eighths: int, n: int, block: int) -> int:
    """Blocks in the band: int(alpha // block + beta * blocks), at least the diagonal one."""
    return max(1, int(alpha // block + beta_eighths / 8 * (n // block)))


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(("n", "block", "sink"), [(45, 4, 4), (64, 8, 8), (200, 64, 64), (40, 1, 3), (5, 64, 64)])
def test_moa(n: int, block: int, sink: int, layer: int) -> None:
    expected = np.zeros((3, n, n), dtype=bool)
    for head, (alpha, beta) in enumerate(zip(ALPHA[layer], BETA_EIGHTHS[layer], strict=True)):
        span = moa_span(alpha, beta, n, block)
        layout = rows(lambda i, span=span: range(i - span + 1, i + 1), blocks(block, n))
        expected[head] = blown_up(layout, block, n)
        expected[head, :, :sink] = True
    pattern = load("moa", alpha=ALPHA, beta_eighths=BETA_EIGHTHS, block=block, sink=sink)
    assert_mask(pattern, causal(expected), layer=layer, layers=2)


def test_moa_window_grows_with_the_sequence() -> None:
    """The same query sees more of a longer sequence: a plan at one length says nothing about another."""
    pattern = load("moa", alpha=[[0]], beta_eighths=[[4]], block=1, sink=1)
    assert pattern.mask(32)[31].sum() == 16 + 1
    assert pattern.mask(64)[31].sum() == 32
