"""The kernel of `weigh`: rows of scores to sums of weights."""

# Triton reads the annotations of a kernel itself and knows no types of ours.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownMemberType=false

import triton
import triton.language as tl


@triton.jit
def weigh(
    x_ptr,
    where_ptr,
    sums_ptr,
    total_ptr,
    rows,
    count,
    groups,
    factor,
    RATIO: tl.constexpr,
    STEP: tl.constexpr,
):
    """One row: its largest score, then the weights from that, which come from the cache the second time."""
    row = tl.program_id(0).to(tl.int64)
    scores, allowed = x_ptr + row * count, where_ptr + (row % rows) * count
    most = tl.full([STEP], float("-inf"), tl.float32)
    for first in range(0, count, STEP):
        j = first + tl.arange(0, STEP)
        inside = tl.load(allowed + j, mask=j < count, other=0) != 0
        most = tl.maximum(most, tl.load(scores + j, mask=inside, other=float("-inf")))
    peak = tl.max(most, 0)
    peak = tl.where(peak == float("-inf"), 0.0, peak)
    total = tl.full([STEP], 0.0, tl.float32)
    for first in range(0, count, STEP):
        j = first + tl.arange(0, STEP)
        inside = tl.load(allowed + j, mask=j < count, other=0) != 0
        weight = tl.math.exp2((tl.load(scores + j, mask=inside, other=float("-inf")) - peak) * factor)
        total += weight
        place = first // RATIO + tl.arange(0, STEP // RATIO)
        tl.store(sums_ptr + row * groups + place, tl.sum(tl.reshape(weight, [STEP // RATIO, RATIO]), 1), place < groups)
    tl.store(total_ptr + row, tl.sum(total, 0))
