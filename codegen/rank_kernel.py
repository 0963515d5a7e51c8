"""The kernel of `rank`: which cells of a row a rule keeps, found by halving the range of scores instead of sorting.

The cells of a row are ordered by falling score, equal ones by position. What a rule keeps is a first part of that
order, so it is told by a score at which keeping ends, and by how many cells of that very score are still kept.
"""

# Triton reads the annotations of a kernel itself and knows no types of ours.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportGeneralTypeIssues=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

import triton
import triton.language as tl

TOP, COVER, REACH, UNDER = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2), tl.constexpr(3)
LARGEST = tl.constexpr(3.4028234663852886e38)


@triton.jit
def cells_at(scores, candidates, forced, first, count, RULE: tl.constexpr, STEP: tl.constexpr):
    """Scores as integers of the same order, what each spends, which are ranked, and which are kept in any case."""
    j = first + tl.arange(0, STEP)
    x = tl.load(scores + j, mask=j < count, other=0.0)
    may = tl.load(candidates + j, mask=j < count, other=0) != 0
    must = tl.load(forced + j, mask=j < count, other=0) != 0
    real = may & (x == x)
    weight = tl.where(real, x, 0.0)
    # Zero has one sign, and infinities rank with the largest numbers.
    bounded = tl.minimum(tl.maximum(weight, -LARGEST), LARGEST)
    bits = bounded.to(tl.int32, bitcast=True)
    key = tl.where(bounded == 0, 0, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits))
    spends = tl.full([STEP], 1.0, tl.float32) if RULE == TOP else weight
    return key, spends, real & ~must, must


@triton.jit
def above(scores, candidates, forced, count, end, RULE: tl.constexpr, STEP: tl.constexpr):
    """What the ranked cells with a score past `end` spend."""
    total = tl.zeros([STEP], dtype=tl.float32)
    for first in range(0, count, STEP):
        key, spends, ranked, _ = cells_at(scores, candidates, forced, first, count, RULE, STEP)
        total += tl.where(ranked & (key > end), spends, 0.0)
    return tl.sum(total, 0)


@triton.jit
def of_row(scores, candidates, forced, count, RULE: tl.constexpr, STEP: tl.constexpr):
    """What is spent in any case and by how many cells, what all spend, the largest score, and where cells end."""
    before, others = tl.zeros([STEP], dtype=tl.float32), tl.zeros([STEP], dtype=tl.float32)
    musts, last = tl.zeros([STEP], dtype=tl.int32), tl.zeros([STEP], dtype=tl.int32)
    most = tl.full([STEP], -2147483648, dtype=tl.int32)
    for first in range(0, count, STEP):
        key, spends, ranked, must = cells_at(scores, candidates, forced, first, count, RULE, STEP)
        before += tl.where(must, spends, 0.0)
        others += tl.where(ranked, spends, 0.0)
        musts += must.to(tl.int32)
        most = tl.maximum(most, tl.where(ranked, key, -2147483648))
        last = tl.maximum(last, tl.where(ranked, first + tl.arange(0, STEP) + 1, 0))
    spent = tl.sum(before, 0)
    return spent, tl.sum(musts, 0), spent + tl.sum(others, 0), tl.max(most, 0), tl.max(last, 0)


@triton.jit
def rank(
    scores_ptr,
    candidates_ptr,
    forced_ptr,
    amounts_ptr,
    kept_ptr,
    count,
    RULE: tl.constexpr,
    STEP: tl.constexpr,
):
    """One row; its amount is a number of cells for `top`, a share of what the row weighs for `cover`, else a weight."""
    row = tl.program_id(0).to(tl.int64)
    scores, candidates, forced = scores_ptr + row * count, candidates_ptr + row * count, forced_ptr + row * count
    amount = tl.load(amounts_ptr + row)
    spent, musts, whole, largest, last = of_row(scores, candidates, forced, count, RULE, STEP)
    # Sums rise while scores are positive, and fall after.
    peak = whole if RULE == TOP else spent + above(scores, candidates, forced, last, 0, RULE, STEP)
    if RULE == COVER:
        amount = amount * whole
    # Keeping ends at the least score past which there is room.
    low = tl.full([], -2147483648 if RULE == TOP else -1, dtype=tl.int32)
    end = largest
    while low < end:
        middle = (low & end) + ((low ^ end) >> 1)
        past = spent + above(scores, candidates, forced, last, middle, RULE, STEP)
        room = past <= amount if RULE == UNDER else past < amount
        end = tl.where(room, middle, end)
        low = tl.where(room, low, middle + 1)
    past = spent + above(scores, candidates, forced, last, end, RULE, STEP)
    # A row keeps all its cells, or none of those that are ranked, or those of the first part of the order.
    some = amount == amount
    everything = whole <= amount
    if RULE == COVER:
        everything = peak < amount
        some = spent < amount
    if RULE == REACH:
        everything = amount != amount
        some = tl.where(peak >= amount, spent < amount, False)
    earlier = tl.zeros([], dtype=tl.int32)
    for first in range(0, count, STEP):
        j = first + tl.arange(0, STEP)
        key, spends, ranked, must = cells_at(scores, candidates, forced, first, count, RULE, STEP)
        same = ranked & (key == end)
        place = earlier + tl.cumsum(same.to(tl.int32), 0) - 1
        if RULE == UNDER:
            fits = past + (place + 1).to(tl.float32) * spends <= amount
            # One cell at least.
            fits = fits | ((place == 0) & (end == largest) & (musts == 0))
        else:
            fits = past + place.to(tl.float32) * spends < amount
        keep = ranked & tl.where(everything, True, (key > end) | (same & fits))
        keep = must | tl.where(some, keep, False)
        tl.store(kept_ptr + row * count + j, keep.to(tl.int8), mask=j < count)
        earlier += tl.sum(same.to(tl.int32), 0)
