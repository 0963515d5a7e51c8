"""The kernels of `weigh_fused`: tiles of scores to sums over groups of keys, and those to shares of their rows."""

# Triton reads the annotations of a kernel itself and knows no types of ours.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportGeneralTypeIssues=false

import triton
import triton.language as tl


@triton.jit
def tile_of(tiles_m, tiles_n, SIDE: tl.constexpr):
    """Batch and group, row tile and column tile: SIDE row tiles walk along the columns together, last rows first."""
    t = tl.program_id(0) % (tiles_m * tiles_n)
    band = t // (SIDE * tiles_n)
    size = tl.minimum(tiles_m - band * SIDE, SIDE)
    inside = t % (SIDE * tiles_n)
    return tl.program_id(0) // (tiles_m * tiles_n), tiles_m - 1 - band * SIDE - inside % size, inside // size


@triton.jit
def bounds_of(i, key, query, offset):
    """For each row the largest j for which the condition holds; the smallest, negated, where j's factor is negative."""
    value = i.to(tl.int64) * query + offset
    bound = value // key
    # Division rounds towards 0 on devices.
    bound -= tl.where(value < bound * key, 1, 0)
    return tl.minimum(tl.maximum(bound, -(1 << 30)), 1 << 30).to(tl.int32)


@triton.jit
def rows_at(at, place, tokens, fold, s, MASKED: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr):
    """Step s of the rows that begin at `at` with tokens `place`: a slice of one token each; 0 where there is none."""
    token_step, d_step, step = fold
    r = s // ((WIDTH + BLOCK_D - 1) // BLOCK_D)
    d = s % ((WIDTH + BLOCK_D - 1) // BLOCK_D) * BLOCK_D
    at += r * step * token_step + d * d_step
    if MASKED:
        token = place + r * step
        inside = ((token >= 0) & (token < tokens))[:, None] & (d + tl.arange(0, BLOCK_D) < WIDTH)[None, :]
        return tl.load(at, mask=inside, other=0.0)
    return tl.load(at)


# Numbers that differ from chunk to chunk, or from length to length, for which the kernel is the same. Triton looks into
# tuples, which therefore hold strides alone.
PLAIN = (
    *("tiles_m", "tiles_n", "first_lead", "groups", "heads", "rows", "columns", "left_cell", "left_first"),
    *("left_tokens", "right_cell", "right_first", "right_tokens", "ratio", "parts", "width"),
    *("key", "query", "offset", "sign"),
)


@triton.jit(do_not_specialize=PLAIN)
def piece_sums(
    left, right, sums, tops, totals, tiles_m, tiles_n,
    first_lead, groups, heads, rows, columns, left_lead, right_lead, left_fold, right_fold,
    left_cell, left_first, left_tokens, right_cell, right_first, right_tokens,
    ratio, parts, width, key, query, offset, sign, factor,
    STEPS: tl.constexpr, WIDTH: tl.constexpr, LIMITED: tl.constexpr, MASKED: tl.constexpr,
    COMPUTE: tl.constexpr, PRECISION: tl.constexpr, PIECE: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, SIDE: tl.constexpr,
):  # fmt: skip
    """One tile: scores of rows (each head's i) by columns (j), its rows' largest ones, and sums of exponentials.

    A tile's columns are BLOCK_N / PIECE pieces; J is `parts` pieces of `width` columns, PIECE of them with padding.
    """
    lead, tile_m, tile_n = tile_of(tiles_m, tiles_n, SIDE)
    batch, group = (first_lead + lead) // groups, (first_lead + lead) % groups
    flat = tile_m * BLOCK_M + tl.arange(0, BLOCK_M)
    row = tl.minimum(flat, heads * rows - 1)
    i = row % rows
    column = tl.arange(0, BLOCK_N)
    piece = tile_n * (BLOCK_N // PIECE) + column // PIECE
    inner = piece % parts * width + column % PIECE
    j = piece // parts * ratio + inner
    exists = (column % PIECE < width) & (inner < ratio) & (j < columns)
    if LIMITED:
        bounds = bounds_of(i, key, query, offset)
        signed = j * sign
        needed = tl.min(tl.where(exists, signed, 1 << 30), 0) <= tl.max(bounds, 0)
    else:
        needed = True
    mine = lead.to(tl.int64) * heads * rows + flat
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    if needed:
        d = tl.arange(0, BLOCK_D)
        left_place = left_cell * i + left_first
        right_place = right_cell * tl.minimum(j, columns - 1) + right_first
        left += batch.to(tl.int64) * left_lead[0] + group.to(tl.int64) * left_lead[1]
        right += batch.to(tl.int64) * right_lead[0] + group.to(tl.int64) * right_lead[1]
        lefts = (row // rows).to(tl.int64) * left_lead[2] + left_place.to(tl.int64) * left_fold[0]
        at_left = left + lefts[:, None] + (d * left_fold[1])[None, :]
        at_right = right + (right_place.to(tl.int64) * right_fold[0])[:, None] + (d * right_fold[1])[None, :]
        scores = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
        for s in range(STEPS * ((WIDTH + BLOCK_D - 1) // BLOCK_D)):
            a = rows_at(at_left, left_place, left_tokens, left_fold, s, MASKED, WIDTH, BLOCK_D).to(COMPUTE)
            b = rows_at(at_right, right_place, right_tokens, right_fold, s, MASKED, WIDTH, BLOCK_D).to(COMPUTE)
            scores = tl.dot(a, b.T, scores, input_precision=PRECISION)
        holds = tl.broadcast_to(exists[None, :], [BLOCK_M, BLOCK_N])
        if LIMITED:
            holds &= signed[None, :] <= bounds[:, None]
        scores = tl.where(holds, scores * factor, float("-inf"))
        top = tl.max(scores, 1)
        weights = tl.exp2(scores - tl.where(top == float("-inf"), 0.0, top)[:, None])
        found = tl.sum(tl.reshape(weights, [BLOCK_M, BLOCK_N // PIECE, PIECE]), 2)
        total = tl.sum(found, 1)
        place = tile_n * (BLOCK_N // PIECE) + tl.arange(0, BLOCK_N // PIECE)
        at = sums + (mine * tiles_n * (BLOCK_N // PIECE))[:, None] + place[None, :]
        tl.store(at, found, mask=(flat < heads * rows)[:, None])
    tl.store(tops + mine * tiles_n + tile_n, top, mask=flat < heads * rows)
    tl.store(totals + mine * tiles_n + tile_n, total, mask=flat < heads * rows)


COUNTS = ("lead_step", "head_step", "cell_step", "heads", "rows", "cells", "ratio", "front", "tiles_n", "pieces")


@triton.jit(do_not_specialize=COUNTS)
def cell_sums(
    sums, shares, out, lead_step, head_step, cell_step, heads, rows, cells, ratio, front, tiles_n, pieces,
    PER_TILE: tl.constexpr, SUM_HEADS: tl.constexpr, BLOCK_P: tl.constexpr,
):  # fmt: skip
    """Sums over the rows of one cell I: pieces times their tile's share of the row. What tiles skipped is not read."""
    kept = 1 if SUM_HEADS else heads
    lead, cell = tl.program_id(0) // (kept * cells), tl.program_id(0) % cells
    head = tl.program_id(0) // cells % kept
    # The first cell may have rows that are not there.
    begin = cell * ratio - front
    place = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    there = place < pieces
    found = tl.zeros([BLOCK_P], tl.float32)
    for each in range(head, heads if SUM_HEADS else head + 1):
        first = (lead.to(tl.int64) * heads + each) * rows
        for i in range(tl.maximum(begin, 0), tl.minimum(begin + ratio, rows)):
            share = tl.load(shares + (first + i) * tiles_n + place // PER_TILE, mask=there, other=0.0)
            used = there & (share != 0.0)
            found += share * tl.load(sums + (first + i) * tiles_n * PER_TILE + place, mask=used, other=0.0)
    at = out + lead.to(tl.int64) * lead_step + head.to(tl.int64) * head_step + cell.to(tl.int64) * cell_step
    tl.store(at + place, found, mask=there)
