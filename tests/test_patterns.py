"""Shipped patterns against their papers' rules, written here a second time, key by key."""

from pathlib import Path

import numpy as np
import pytest

from tests.brute import PATTERNS, assert_mask, blocks, blown_up, causal, load, rows
from weft.dsl.parser import parse
from weft.dsl.source import Source

LENGTHS = (1, 2, 7, 16, 45, 64)


@pytest.mark.parametrize("path", sorted(PATTERNS.glob("*.sparse")), ids=lambda path: path.stem)
def test_file_holds_a_pattern_of_its_name_with_its_source(path: Path) -> None:
    patterns = {p.name: p for p in parse(Source(path.name, path.read_text())).patterns}
    assert "arXiv:" in patterns[path.stem].doc


@pytest.mark.parametrize("n", LENGTHS)
def test_causal_attention(n: int) -> None:
    assert_mask(load("causal_attention"), rows(lambda q: range(q + 1), n))


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("window", [1, 5, 16, 4096])
def test_sliding_window(n: int, window: int) -> None:
    expected = rows(lambda q: range(q - window + 1, q + 1), n)
    assert_mask(load("sliding_window", window=window), expected)
    assert expected.sum(axis=1).tolist() == [min(window, q + 1) for q in range(n)]  # exactly `window` keys


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize(("first", "window"), [(4, 16), (0, 3), (5, 1), (4, 2000)])
def test_sinks_and_window(n: int, first: int, window: int) -> None:
    expected = causal(rows(lambda q: {*range(first), *range(q - window + 1, q + 1)}, n))
    assert_mask(load("attention_sinks", start=first, recent=window), expected)
    assert_mask(load("minference_a_shape", sinks=first, window=window), expected)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize(("window", "dilation", "count"), [(3, 1, 1), (4, 3, 0), (2, 2, 5), (256, 1, 1)])
def test_longformer(n: int, window: int, dilation: int, count: int) -> None:
    expected = rows(lambda q: {q + dilation * step for step in range(-window, window + 1)}, n)
    expected[:count, :] = True
    expected[:, :count] = True
    assert_mask(load("longformer", window=window, dilation=dilation, globals=count), expected)


@pytest.mark.parametrize(("layer", "window"), [(0, 2), (1, 2), (2, 4), (3, 4), (4, 8)])
def test_longformer_windows_that_grow_with_depth(layer: int, window: int) -> None:
    expected = rows(lambda q: range(q - window, q + window + 1), 45)
    assert_mask(load("longformer", window="2 << layer // 2", globals=0), expected, layer=layer, layers=5)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize(("window", "dilation"), [(4, 2), (16, 4), (3, 1), (512, 2)])
def test_dilated_window(n: int, window: int, dilation: int) -> None:
    expected = rows(lambda q: {q - dilation * step for step in range(window)}, n)
    assert_mask(load("dilated_window", window=window, dilation=dilation), expected)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("stride", [4, 7, 128])
def test_sparse_transformer_strided(n: int, stride: int) -> None:
    """A(1) = {t, .., i} with t = max(0, i - l), and A(2) = {j : (i - j) mod l = 0}."""
    expected = rows(lambda q: {*range(max(0, q - stride), q + 1), *range(q % stride, q + 1, stride)}, n)
    assert_mask(load("sparse_transformer_strided", stride=stride), expected)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize(("stride", "summary"), [(8, 2), (7, 3), (8, 8), (128, 32)])
def test_sparse_transformer_fixed(n: int, stride: int, summary: int) -> None:
    """A(1): the same segment; A(2): positions l - c .. l - 1 of every segment."""

    def keys(q: int) -> set[int]:
        own = q // stride * stride
        ends = {end - 1 - back for end in range(stride, q + stride + 1, stride) for back in range(summary)}
        return {k for k in {*range(own, own + stride), *ends} if k <= q}

    assert_mask(load("sparse_transformer_fixed", stride=stride, summary=summary), rows(keys, n))


def test_sparse_transformer_fixed_with_phases() -> None:
    """num_verts = 4: heads take turns at the four sub-blocks of a segment, the last one first."""
    n, stride, summary, heads = 45, 8, 2, 6
    expected = np.zeros((heads, n, n), dtype=bool)
    for h, first in enumerate([6, 4, 2, 0, 6, 4]):
        for q in range(n):
            for k in range(q + 1):
                expected[h, q, k] = q // stride == k // stride or k % stride in (first, first + 1)
    assert_mask(load("sparse_transformer_fixed", stride=stride, summary=summary, phases=4), expected)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("window", [1, 4])
def test_logsparse(n: int, window: int) -> None:
    expected = rows(lambda q: {*range(q - window + 1, q + 1), *(q - 2**e for e in range(10))}, n)
    assert_mask(load("logsparse", window=window), expected)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize(("window", "block"), [(2, 4), (5, 1), (1, 3), (5, 256)])
def test_power_attention(n: int, window: int, block: int) -> None:
    layout = rows(lambda i: {0, *range(i - window + 1, i + 1), *(i - 2**e for e in range(10))}, blocks(block, n))
    assert_mask(load("power_attention", window=window, block=block), causal(blown_up(layout, block, n)))


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("block", [1, 4, 32])
def test_flat_butterfly(n: int, block: int) -> None:
    """A butterfly's factor f pairs blocks 2^f apart inside aligned runs of 2^(f+1); the flat one is their union."""

    def partners(i: int) -> set[int]:
        runs = ((i // 2 ** (f + 1) * 2 ** (f + 1), i % 2 ** (f + 1), 2**f) for f in range(8))
        return {i, *(start + (place + apart) % (2 * apart) for start, place, apart in runs)}

    assert_mask(load("flat_butterfly", block=block), blown_up(rows(partners, blocks(block, n)), block, n))


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("prefix", [0, 1, 10, 64])
def test_prefix_lm(n: int, prefix: int) -> None:
    assert_mask(load("prefix_lm", prefix=prefix), rows(lambda q: range(max(prefix, q + 1)), n))


def spans(lengths: list[int]) -> list[slice]:
    """Consecutive runs of tokens."""
    ends = np.cumsum(lengths)
    return [slice(int(end) - length, int(end)) for end, length in zip(ends, lengths, strict=True)]


@pytest.mark.parametrize("lengths", [[1], [64], [10, 1, 20, 14], [3, 0, 5]])
def test_packed_documents(lengths: list[int]) -> None:
    expected = np.zeros((sum(lengths), sum(lengths)), dtype=bool)
    for span in spans(lengths):
        expected[span, span] = True
    doc = np.repeat(np.arange(len(lengths)), lengths)
    assert_mask(load("packed_documents"), causal(expected), doc=doc)


@pytest.mark.parametrize("lengths", [[5], [10, 1, 20, 14], [0, 4, 4]])
def test_shared_question(lengths: list[int]) -> None:
    question, *answers = spans(lengths)
    expected = np.zeros((sum(lengths), sum(lengths)), dtype=bool)
    expected[:, question] = True
    for span in answers:
        expected[span, span] = True
    doc = np.repeat(np.arange(len(lengths)), lengths)
    assert_mask(load("shared_question"), causal(expected), doc=doc)


@pytest.mark.parametrize(("prefix", "lengths"), [(7, [5, 1, 9]), (0, [4, 4]), (6, [])])
def test_shared_prefix(prefix: int, lengths: list[int]) -> None:
    everything = spans([prefix, *lengths])
    expected = np.zeros((prefix + sum(lengths), prefix + sum(lengths)), dtype=bool)
    expected[:, everything[0]] = True
    for span in everything[1:]:
        expected[span, span] = True
    branch = np.repeat(np.arange(len(lengths) + 1) - 1, [prefix, *lengths])
    assert_mask(load("shared_prefix", prefix=prefix), causal(expected), branch=branch)


@pytest.mark.parametrize("block", [1, 4, 1024])
@pytest.mark.parametrize("lengths", [[8, 16, 4], [10, 1, 20, 14], [3]])
def test_block_causal_documents(block: int, lengths: list[int]) -> None:
    """As LongCA-bench lists it: each block of a document sees the document up to the block's end."""
    expected = np.zeros((sum(lengths), sum(lengths)), dtype=bool)
    for span in spans(lengths):
        for first in range(span.start, span.stop, block):
            last = min(first + block, span.stop)
            expected[first:last, span.start : last] = True
    start = np.repeat([span.start for span in spans(lengths)], lengths)
    assert_mask(load("block_causal_documents", block=block), expected, start=start)


@pytest.mark.parametrize(("half", "block"), [(16, 4), (21, 4), (3, 16), (8, 1)])
def test_block_diffusion(half: int, block: int) -> None:
    """Block diagonal, offset block causal and block causal: the three parts of the paper's figure."""
    clean = half
    expected = np.zeros((2 * half, 2 * half), dtype=bool)
    for first in range(0, half, block):
        last = min(first + block, half)
        expected[first:last, first:last] = True
        expected[first:last, clean : clean + first] = True
        expected[clean + first : clean + last, clean : clean + last] = True
    assert_mask(load("block_diffusion", block=block), expected)


@pytest.mark.parametrize("prefix", [0, 1, 9])
def test_token_tree(prefix: int) -> None:
    """Each draft token sees the prefix and the path from its root, itself included."""
    tree = [-1, 0, 0, 1, 1, 2, 3, -1, 7, 8]
    n = prefix + len(tree)
    parent = np.array([-1] * prefix + [prefix + p if p >= 0 else -1 for p in tree])

    def keys(q: int) -> set[int]:
        path = set(range(prefix))
        while q >= 0:
            path.add(q)
            q = int(parent[q])
        return path

    expected = causal(rows(keys, n))
    assert_mask(load("token_tree", prefix=prefix), expected, parent=parent)
    drafted = load("token_tree").mask(n, m=len(tree), parent=parent)
    assert np.array_equal(drafted, expected[prefix:])


def nnz(name: str, n: int, **params: int) -> int:
    """How many pairs the shipped pattern keeps."""
    return int(load(name, **params).mask(n).sum())


def test_published_counts() -> None:
    """Counts at 256 tokens that follow from the rules, computed once outside this project's code."""
    assert nnz("sliding_window", 256, window=16) == 3976
    assert nnz("attention_sinks", 256, start=4, recent=16) == 4930
    assert nnz("dilated_window", 256, window=16, dilation=4) == 3616
    assert nnz("sparse_transformer_strided", 256, stride=16) == 5896
    assert nnz("sparse_transformer_fixed", 256, stride=16, summary=4) == 9856
    assert nnz("sparse_transformer_fixed", 256, stride=16, summary=1) == 4096
    assert nnz("logsparse", 256) == 2049
    assert nnz("flat_butterfly", 256, block=1) == 2304


def test_power_attention_at_32k_tokens() -> None:
    """The paper's setting, 128 blocks of 256, one token a block: at most 10 blocks a row, 0.1382 of causal."""
    mask = load("power_attention", block=1).mask(128)
    assert mask.sum() == 1141
    assert mask.sum(axis=1).max() == 10
    assert round(mask.sum() / (128 * 129 / 2), 4) == 0.1382


@pytest.mark.parametrize(("half", "block"), [(64, 8), (48, 16)])
def test_block_diffusion_keeps_n2_plus_nb_pairs(half: int, block: int) -> None:
    assert nnz("block_diffusion", 2 * half, block=block) == half * half + half * block
