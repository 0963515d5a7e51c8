"""The kernels of `rank`: which cells of a row a rule keeps, found by halving the range of scores instead of sorting.

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
# Below the scores of all ranked cells: a cell that is not kept by score, one kept in any case, and the least score.
OUT, MUST, LEAST = tl.constexpr(-2147483648), tl.constexpr(-2147483647), tl.constexpr(-2147483646)
BEYOND = tl.constexpr(2147483647)
# Halvings after which the range shrinks to the scores that are in it: that costs as much as two.
HALVINGS = tl.constexpr(6)
# Numbers that differ from call to call; a kernel for each would be compiled.
SHAPES = ("rows", "second", "third", "fourth")


@triton.jit
def place_of(row, second, third, fourth):
    """Where rows are along their four axes, of which the last three are so long."""
    inner, outer = row // fourth, row // fourth // third
    places = (outer // second, outer % second, inner % third, row % fourth)
    return (places[0].to(tl.int64), places[1].to(tl.int64), places[2].to(tl.int64), places[3].to(tl.int64))


@triton.jit
def begin(places, strides, ALIGNED: tl.constexpr):
    """Where rows begin."""
    found = places[0] * strides[0] + places[1] * strides[1] + places[2] * strides[2] + places[3] * strides[3]
    return tl.multiple_of(found, [16]) if ALIGNED else found


@triton.jit
def cells_at(scores, candidates, forced, inside, RULE: tl.constexpr):
    """Scores as integers of the same order, or what cells are that are not ranked; and what each cell spends."""
    x = tl.load(scores, mask=inside, other=0.0)
    may = tl.load(candidates, mask=inside, other=0) != 0
    real = may & (x == x)
    weight = tl.where(real, x, 0.0)
    # Zero has one sign, and infinities rank with the largest numbers.
    bounded = tl.minimum(tl.maximum(weight, -LARGEST), LARGEST)
    bits = bounded.to(tl.int32, bitcast=True)
    key = tl.where(bounded == 0, 0, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits))
    key = tl.where(real, key, OUT)
    if forced is not None:
        key = tl.where(tl.load(forced, mask=inside, other=0) != 0, MUST, key)
    return key, tl.full(key.shape, 1.0, tl.float32) if RULE == TOP else weight


@triton.jit
def verdict(amount, limit, spent, whole, peak, RULE: tl.constexpr):
    """Whether a row keeps all ranked cells, and whether any; of infinities, sums may be no number."""
    everything, some = whole <= limit, amount == amount
    if RULE == COVER:
        everything, some = (peak >= limit) == 0, some & ((spent >= limit) == 0)
    if RULE == REACH:
        everything, some = amount != amount, (peak >= limit) & (spent < limit)
    return everything, some


@triton.jit
def fitting(place, spends, past, limit, alone, RULE: tl.constexpr):
    """Whether there is room for a cell of the score at which keeping ends, after `place` others; the first `alone`."""
    if RULE == UNDER:
        return (past + (place + 1).to(tl.float32) * spends <= limit) | ((place == 0) & alone)
    # None of infinitely much is nothing.
    return past + tl.where(place > 0, place.to(tl.float32) * spends, 0.0) < limit


@triton.jit
def last_kept(key, spends, spent, limit, end, RULE: tl.constexpr):
    """The least score of each row past which there is room; rows that are done stay as they are."""
    low = tl.min(tl.where(key >= (LEAST if RULE == TOP else 0), key, BEYOND), 1)
    while tl.max((low < end).to(tl.int32), 0) > 0:
        for _ in tl.static_range(HALVINGS):
            middle = (low & end) + ((low ^ end) >> 1)
            past = spent + tl.sum(tl.where(key > middle[:, None], spends, 0.0), 1)
            room = past < limit
            end = tl.where(room, middle, end)
            low = tl.where(room, low, middle + 1)
        upper = tl.max(tl.where(key <= end[:, None], key, OUT), 1)
        lower = tl.min(tl.where(key >= low[:, None], key, BEYOND), 1)
        low, end = tl.where(upper >= low, lower, end), tl.where(upper >= low, upper, end)
    return end


@triton.jit(do_not_specialize=SHAPES)
def rank_held(
    tensors,
    strides,
    steps,
    amount,
    kept_ptr,
    rows,
    second,
    third,
    fourth,
    count,
    RULE: tl.constexpr,
    ROWS: tl.constexpr,
    CELLS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Some rows of at most CELLS cells, read once.

    Amounts are numbers of cells for `top`, shares of what the row weighs for `cover`, else weights.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    j = tl.arange(0, CELLS)
    inside = (row < rows)[:, None] & (j < count)[None, :]
    at = j.to(tl.int64)[None, :]
    places = place_of(row, second, third, fourth)
    scores = tensors[0] + (begin(places, strides[0], ALIGNED)[:, None] + at * steps[0])
    candidates = tensors[1] + (begin(places, strides[1], ALIGNED)[:, None] + at * steps[1])
    forced = tensors[2]
    if forced is not None:
        forced += begin(places, strides[2], ALIGNED)[:, None] + at * steps[2]
    amount += tl.zeros([ROWS], tl.float32)
    if tensors[3] is not None:
        amount = tl.load(tensors[3] + begin(places, strides[3], False), mask=row < rows, other=0.0)
    key, spends = cells_at(scores, candidates, forced, inside, RULE)
    must, ranked = key == MUST, key > MUST
    spent = tl.sum(tl.where(must, spends, 0.0), 1)
    whole = spent + tl.sum(tl.where(ranked, spends, 0.0), 1)
    # Sums rise while scores are positive, and fall after.
    peak = whole if RULE == TOP else spent + tl.sum(tl.where(key > 0, spends, 0.0), 1)
    limit = amount * whole if RULE == COVER else amount
    largest = tl.maximum(tl.max(key, 1), LEAST)
    end = last_kept(key, spends, spent, limit, largest, RULE)
    past = spent + tl.sum(tl.where(key > end[:, None], spends, 0.0), 1)
    same = key == end[:, None]
    place = tl.cumsum(same.to(tl.int32), 1) - 1
    # One cell at least, but for those that are kept in any case.
    alone = (end == largest) & (tl.max(must.to(tl.int32), 1) == 0)
    fits = fitting(place, spends, past[:, None], limit[:, None], alone[:, None], RULE)
    everything, some = verdict(amount, limit, spent, whole, peak, RULE)
    keep = ranked & (everything[:, None] | (key > end[:, None]) | (same & fits))
    keep = must | (keep & some[:, None])
    tl.store(kept_ptr + (row.to(tl.int64) * count)[:, None] + j[None, :], keep.to(tl.int8), mask=inside)


@triton.jit
def of_row(scores, candidates, forced, steps, count, RULE: tl.constexpr, STEP: tl.constexpr):
    """What is spent in any case, by how many cells, by all, and by those above 0; the largest score, and the least."""
    before, others, above = tl.zeros([STEP], tl.float32), tl.zeros([STEP], tl.float32), tl.zeros([STEP], tl.float32)
    musts = tl.zeros([STEP], tl.int32)
    most, least = tl.full([STEP], LEAST, tl.int32), tl.full([STEP], BEYOND, tl.int32)
    for first in tl.range(0, count, STEP, num_stages=3):
        key, spends = cells_from(scores, candidates, forced, steps, first, count, RULE, STEP)
        before += tl.where(key == MUST, spends, 0.0)
        others += tl.where(key > MUST, spends, 0.0)
        above += tl.where(key > 0, spends, 0.0)
        musts += (key == MUST).to(tl.int32)
        most = tl.maximum(most, key)
        least = tl.minimum(least, tl.where(key >= (LEAST if RULE == TOP else 0), key, BEYOND))
    spent = tl.sum(before, 0)
    whole = spent + tl.sum(others, 0)
    peak = whole if RULE == TOP else spent + tl.sum(above, 0)
    return spent, tl.sum(musts, 0), whole, peak, tl.max(most, 0), tl.min(least, 0)


@triton.jit
def cells_from(scores, candidates, forced, steps, first, count, RULE: tl.constexpr, STEP: tl.constexpr):
    """`cells_at` of STEP cells of a row."""
    j = first + tl.arange(0, STEP)
    at = j.to(tl.int64)
    if forced is not None:
        forced += at * steps[2]
    return cells_at(scores + at * steps[0], candidates + at * steps[1], forced, j < count, RULE)


@triton.jit
def past_each(
    scores, candidates, forced, steps, count, ends, RULE: tl.constexpr, STEP: tl.constexpr, ENDS: tl.constexpr
):
    """What the ranked cells with scores past each of some ends spend."""
    total = tl.zeros([ENDS, STEP], tl.float32)
    for first in tl.range(0, count, STEP, num_stages=3):
        key, spends = cells_from(scores, candidates, forced, steps, first, count, RULE, STEP)
        total += tl.where(key[None, :] > ends[:, None], spends[None, :], 0.0)
    return tl.sum(total, 1)


@triton.jit(do_not_specialize=SHAPES)
def rank_long(
    tensors,
    strides,
    steps,
    amount,
    kept_ptr,
    second,
    third,
    fourth,
    count,
    RULE: tl.constexpr,
    STEP: tl.constexpr,
    MIDDLES: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """One row of any length, read again for every few halvings; amounts are as in `rank_held`."""
    row = tl.program_id(0)
    places = place_of(row, second, third, fourth)
    scores = tensors[0] + begin(places, strides[0], ALIGNED)
    candidates = tensors[1] + begin(places, strides[1], ALIGNED)
    forced = tensors[2]
    if forced is not None:
        forced += begin(places, strides[2], ALIGNED)
    amount += tl.zeros([], tl.float32)
    if tensors[3] is not None:
        amount = tl.load(tensors[3] + begin(places, strides[3], False))
    spent, musts, whole, peak, largest, low = of_row(scores, candidates, forced, steps, count, RULE, STEP)
    limit = amount * whole if RULE == COVER else amount
    end = largest
    while low < end:
        span = end.to(tl.int64) - low
        middles = (low + span * (tl.arange(0, MIDDLES) + 1) // (MIDDLES + 1)).to(tl.int32)
        past = spent + past_each(scores, candidates, forced, steps, count, middles, RULE, STEP, MIDDLES)
        room = past < limit
        end = tl.minimum(end, tl.min(tl.where(room, middles, BEYOND), 0))
        low = tl.maximum(low, tl.max(tl.where(room, LEAST, middles + 1), 0))
    past = tl.full([1], 0, tl.int32) + end
    past = spent + tl.sum(past_each(scores, candidates, forced, steps, count, past, RULE, STEP, 1), 0)
    everything, some = verdict(amount, limit, spent, whole, peak, RULE)
    alone = (end == largest) & (musts == 0)
    earlier = tl.zeros([], tl.int32)
    for first in tl.range(0, count, STEP, num_stages=3):
        key, spends = cells_from(scores, candidates, forced, steps, first, count, RULE, STEP)
        same = key == end
        place = earlier + tl.cumsum(same.to(tl.int32), 0) - 1
        fits = fitting(place, spends, past, limit, alone, RULE)
        keep = (key > MUST) & tl.where(everything, True, (key > end) | (same & fits))
        keep = (key == MUST) | tl.where(some, keep, False)
        j = first + tl.arange(0, STEP)
        tl.store(kept_ptr + row.to(tl.int64) * count + j, keep.to(tl.int8), mask=j < count)
        earlier += tl.sum(same.to(tl.int32), 0)
