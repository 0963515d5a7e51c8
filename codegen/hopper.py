"""The forward kernel for Hopper: one producer warp feeds two consumer warpgroups (Triton's Gluon dialect).

The consumers issue the next tile's scores and the last tile's values together, and do the softmax while the matrix
units work. A row's tiles are one stream, full tiles first; only the others pay for masks.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from ..compiler.ir import Formula, Truth
from ..compiler.plan import Plan, Run
from .configure import padded
from .expressions import emit_truth
from .forward import (
    Kernel,
    argument_names,
    describe_plan,
    emit_place,
    emit_symbols,
    list_rows,
    mixed,
    query_position,
    run_bounds,
    steady_arguments,
)
from .quote import Hole, comment, constant, expression, name, render, statements

HEADER = """
from triton.experimental import gluon
from triton.experimental.gluon import language as tl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared, mbarrier, tma, warpgroup_mma, warpgroup_mma_wait
)

@gluon.jit
def read(table, size, index):
    inside = (index >= 0) & (index < size)
    return tl.load(table + index, mask=inside, other=-1)
"""

PRODUCER = """
STREAM
for t in range(tl.maximum(tiles_here, 1)):
    j = TILE
    stage = t % STAGES
    phase = t // STAGES & 1
    mbarrier.wait(key_free.index(stage), phase ^ 1)
    mbarrier.expect(key_ready.index(stage), key.block_type.nbytes)
    tma.async_copy_global_to_shared(key, [b, g, j * BLOCK_N, 0], key_ready.index(stage), keys.index(stage))
    mbarrier.wait(value_free.index(stage), phase ^ 1)
    mbarrier.expect(value_ready.index(stage), value.block_type.nbytes)
    tma.async_copy_global_to_shared(value, [b, g, j * BLOCK_N, 0], value_ready.index(stage), values.index(stage))
"""

CONSUMER = """
score_layout: tl.constexpr = tl.NVMMADistributedLayout(
    version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, BLOCK_N, 16]
)
mix_layout: tl.constexpr = tl.NVMMADistributedLayout(version=[3, 0], warps_per_cta=[4, 1], instr_shape=[16, WIDE, 16])
weight_layout: tl.constexpr = tl.DotOperandLayout(operand_index=0, parent=mix_layout, k_width=2)
row_layout: tl.constexpr = tl.SliceLayout(1, score_layout)
mix_row_layout: tl.constexpr = tl.SliceLayout(1, mix_layout)
STREAM
first_row = i * (2 * HALF) + side * HALF
rows = first_row + tl.arange(0, HALF, layout=row_layout)
q = QUERY_POSITION
columns = tl.arange(0, BLOCK_N, layout=tl.SliceLayout(0, score_layout))
queries = query_tiles.index(side).reshape((HALF, WIDE))
peak = tl.full([HALF], float("-inf"), tl.float32, row_layout)
zeros = tl.zeros([HALF, BLOCK_N], tl.float32, score_layout)
mix = tl.zeros([HALF, WIDE], tl.float32, mix_layout)
mbarrier.wait(query_ready, 0)
mbarrier.wait(key_ready.index(0), 0)
product = warpgroup_mma(
    queries, keys.index(0).reshape((BLOCK_N, WIDE)).permute((1, 0)), zeros, use_acc=False, is_async=True
)
scores = warpgroup_mma_wait(0, deps=(product,))
mbarrier.arrive(key_free.index(0), count=1)
t = 0
if full_tiles == 0:
    MASKS
    scores = tl.where(tiles_here > 0, scores, float("-inf"))
top = tl.max(scores, 1) * scale
safe = tl.where(top == float("-inf"), 0.0, top)
weights = tl.exp2(scores * scale - safe[:, None])
total = tl.sum(weights, 1)
peak = top
packed = tl.convert_layout(weights.to(ELEMENT), weight_layout)
for t in range(1, tiles_here):
    stage = t % STAGES
    phase = t // STAGES & 1
    mbarrier.wait(key_ready.index(stage), phase)
    product = warpgroup_mma(
        queries, keys.index(stage).reshape((BLOCK_N, WIDE)).permute((1, 0)), zeros, use_acc=False, is_async=True
    )
    before = (t - 1) % STAGES
    mbarrier.wait(value_ready.index(before), (t - 1) // STAGES & 1)
    mixing = warpgroup_mma(packed, values.index(before).reshape((BLOCK_N, WIDE)), mix, is_async=True)
    scores = warpgroup_mma_wait(1, deps=(product,))
    mbarrier.arrive(key_free.index(stage), count=1)
    if t >= full_tiles:
        MASKS
    top = tl.maximum(peak, tl.max(scores, 1) * scale)
    safe = tl.where(top == float("-inf"), 0.0, top)
    weights = tl.exp2(scores * scale - safe[:, None])
    shrink = tl.exp2(peak - safe)
    total = total * shrink + tl.sum(weights, 1)
    peak = top
    mix = warpgroup_mma_wait(0, deps=(mixing,))
    mbarrier.arrive(value_free.index(before), count=1)
    mix = mix * tl.convert_layout(shrink, mix_row_layout)[:, None]
    packed = tl.convert_layout(weights.to(ELEMENT), weight_layout)
last = tl.maximum(tiles_here, 1) - 1
mbarrier.wait(value_ready.index(last % STAGES), last // STAGES & 1)
mixing = warpgroup_mma(packed, values.index(last % STAGES).reshape((BLOCK_N, WIDE)), mix, is_async=True)
mix = warpgroup_mma_wait(0, deps=(mixing,))
some = total > 0.0
divisor = tl.where(some, total, 1.0)
mix = mix / tl.convert_layout(divisor, mix_row_layout)[:, None]
mix = tl.where(tl.convert_layout(total, mix_row_layout)[:, None] > 0.0, mix, 0.0)
sums = tl.where(some, peak * LN2 + tl.log(divisor), float("-inf"))
tl.store(lse + bh.to(tl.int64) * m + rows, sums, mask=rows < m)
queries.store(mix.to(ELEMENT))
fence_async_shared()
tma.async_copy_shared_to_global(out, [b, h, first_row, 0], query_tiles.index(side))
tma.store_wait(0)
"""

FORWARD = """
PLACE
query_tiles = tl.allocate_shared_memory(query.dtype, [2, 1, 1, HALF, WIDE], query.layout)
keys = tl.allocate_shared_memory(key.dtype, [STAGES, 1, 1, BLOCK_N, WIDE], key.layout)
values = tl.allocate_shared_memory(value.dtype, [STAGES, 1, 1, BLOCK_N, WIDE], value.layout)
key_ready = tl.allocate_shared_memory(tl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
key_free = tl.allocate_shared_memory(tl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
value_ready = tl.allocate_shared_memory(tl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
value_free = tl.allocate_shared_memory(tl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
query_ready = tl.allocate_shared_memory(tl.int64, [1], mbarrier.MBarrierLayout())
for stage in tl.static_range(STAGES):
    mbarrier.init(key_ready.index(stage), count=1)
    mbarrier.init(value_ready.index(stage), count=1)
    mbarrier.init(key_free.index(stage), count=2)
    mbarrier.init(value_free.index(stage), count=2)
mbarrier.init(query_ready, count=1)
mbarrier.expect(query_ready, 2 * query.block_type.nbytes)
tma.async_copy_global_to_shared(query, [b, h, i * (2 * HALF), 0], query_ready, query_tiles.index(0))
tma.async_copy_global_to_shared(query, [b, h, i * (2 * HALF) + HALF, 0], query_ready, query_tiles.index(1))
tl.warp_specialize([(upper, ARGUMENTS), (lower, ARGUMENTS), (produce, ARGUMENTS)], [4, 1], [240, 24])
"""

# What the three partitions share besides the kernel's own arguments.
SHARED = (
    *("query_tiles", "keys", "values", "key_ready", "key_free", "value_ready", "value_free", "query_ready"),
    *("count", "i", "bh", "b", "h", "g"),
)


@dataclass(frozen=True, slots=True)
class Listed:
    """The tiles of a row's list between two of its marks."""

    low: str
    high: str


@dataclass(frozen=True, slots=True)
class Section:
    """Tiles of the stream that are treated alike."""

    mask: Formula
    runs: tuple[Run | Listed, ...]


def emit_hopper(kernel: Kernel) -> str:
    """The kernel's module, in Gluon."""
    plan = kernel.plan
    passed = (*argument_names(kernel), *SHARED)
    title = f"{plan.mask.name}: {kernel.dtype}, head dim {kernel.head_dim}, {describe_plan(plan)}, Hopper"
    body: list[ast.stmt] = [ast.Expr(ast.Constant(f"Generated by weft. {title}."))]
    body += [comment(f"  {clause.text}") for clause in plan.mask.clauses]
    body += ast.parse(HEADER).body
    holes = _holes(kernel)
    body += _function("produce", passed, statements(PRODUCER, **holes, STREAM=_stream(kernel), TILE=_tile(kernel)))
    consumer = statements(CONSUMER, **holes, STREAM=_stream(kernel), MASKS=_masks(kernel))
    body += _function("consume", (*passed, "side"), consumer, constexpr=("side",))
    for role, side in (("upper", 0), ("lower", 1)):
        arguments = [*(name(a) for a in passed), constant(side)]
        call = ast.Expr(ast.Call(name("consume"), list(arguments), []))
        body += _function(role, passed, [call])
    shared = ast.Tuple([name(a) for a in passed], ast.Load())
    body += _function(
        "forward",
        argument_names(kernel),
        statements(FORWARD, **holes, PLACE=emit_place(kernel), ARGUMENTS=shared),
        steady_arguments(kernel),
    )
    return render(body)


def _holes(kernel: Kernel) -> dict[str, Hole]:
    return {
        "BLOCK_N": constant(kernel.config.block_n),
        "HALF": constant(kernel.config.block_m // 2),
        "WIDE": constant(padded(kernel.head_dim)),
        "STAGES": constant(kernel.config.stages),
        "ELEMENT": expression("tl.float16" if kernel.dtype == "fp16" else "tl.bfloat16"),
        "LN2": ast.Constant(0.6931471805599453),
        "QUERY_POSITION": query_position(kernel),
    }


def _function(
    title: str,
    arguments: tuple[str, ...],
    body: list[ast.stmt],
    steady: tuple[str, ...] = (),
    constexpr: tuple[str, ...] = (),
) -> list[ast.stmt]:
    decorator = expression("gluon.jit")
    if steady:
        names = ast.Tuple([ast.Constant(a) for a in steady], ast.Load())
        decorator = expression("gluon.jit(do_not_specialize=STEADY)", STEADY=names)
    function = statements("@DECORATOR\ndef f():\n    pass", DECORATOR=decorator)[0]
    assert isinstance(function, ast.FunctionDef)
    function.name = title
    annotated = [ast.arg(a, expression("tl.constexpr") if a in constexpr else None) for a in arguments]
    function.args = ast.arguments([], annotated, None, [], [], None, [])
    function.body = body
    return [function]


def _only_lists(plan: Plan) -> bool:
    """Whether a row's tiles are those of its list, with no runs before or after them."""
    return plan.strategy != "run" and not mixed(plan)


def _sections(plan: Plan) -> list[Section]:
    """What the stream goes through, full tiles first."""
    if not mixed(plan):
        return [Section(region.mask, region.runs) for region in plan.regions]
    *loops, listed = plan.regions
    full = [Section(region.mask, region.runs) for region in loops if region.full]
    partial = [Section(region.mask, region.runs) for region in loops if not region.full]
    lists = [Section(Truth(True), (Listed("begin", "middle"),)), Section(listed.mask, (Listed("middle", "end"),))]
    return [*full, *lists, *partial]


def _end(place: int) -> ast.expr:
    """How many tiles of the stream there are up to the end of its run at a place; none before the first."""
    return name(f"end_{place}" if place >= 0 else "end_none")


def _stream(kernel: Kernel) -> list[ast.stmt]:
    """How many tiles this row has, how many of them are full, and where its runs begin and end."""
    plan = kernel.plan
    body = emit_symbols(kernel)
    if plan.strategy != "run":
        body += list_rows(kernel)
    if _only_lists(plan):
        return body + statements("tiles_here = end - begin\nfull_tiles = middle - begin")
    body += statements("end_none = 0")
    fulls = place = -1
    for section in _sections(plan):
        for run in section.runs:
            place += 1
            body += _count(kernel, run, place)
        fulls = place if section.mask == Truth(True) else fulls
    return body + statements("tiles_here = LAST\nfull_tiles = FULLS", LAST=_end(place), FULLS=_end(fulls))


def _count(kernel: Kernel, run: Run | Listed, place: int) -> list[ast.stmt]:
    """Where the run at a place of the stream ends."""
    ends: dict[str, Hole] = {"END": _end(place), "BEFORE": _end(place - 1)}
    match run:
        case Listed(low, high):
            return statements("END = BEFORE + (HIGH - LOW)", **ends, HIGH=name(high), LOW=name(low))
        case Run():
            return [
                *run_bounds(kernel, run, place),
                *statements(
                    "END = BEFORE + tl.maximum(0, (HIGH - LOW + STEP - 1) // STEP)",
                    **ends,
                    HIGH=name(f"high_{place}"),
                    LOW=name(f"low_{place}"),
                    STEP=constant(run.step),
                ),
            ]
        case _:
            assert_never(run)


def _tile(kernel: Kernel) -> ast.expr:
    """The key tile at place `t` of the stream."""
    if _only_lists(kernel.plan):
        return expression("tl.load(tiles + begin + t)")
    return _tile_of([run for section in _sections(kernel.plan) for run in section.runs], 0)


def _tile_of(runs: Sequence[Run | Listed], first: int) -> ast.expr:
    """The key tile at place `t` among some runs of the stream, of which one is the `first`."""
    out: ast.expr | None = None
    for place, run in reversed(list(enumerate(runs, first))):
        match run:
            case Listed("begin"):
                # The next run goes on where this one ends.
                continue
            case Listed():
                # Every side of `tl.where` is computed, so a place outside the list must not be read.
                inside = expression("tl.minimum(tl.maximum(t - BEFORE, 0), end - begin)", BEFORE=_end(place - 2))
                here = expression("tl.load(tiles + begin + INSIDE)", INSIDE=inside)
            case Run():
                holes = {"LOW": name(f"low_{place}"), "BEFORE": _end(place - 1), "STEP": constant(run.step)}
                here = expression("LOW + (t - BEFORE) * STEP", **holes)
            case _:
                assert_never(run)
        out = here if out is None else expression("tl.where(t < END, A, B)", END=_end(place), A=here, B=out)
    return constant(0) if out is None else out


def _masks(kernel: Kernel) -> list[ast.stmt]:
    """The masks of partial sections, each where the stream is inside it."""
    sections = _sections(kernel.plan)
    partial = [section for section in sections if section.mask != Truth(True)]
    if not partial:
        return statements("pass")
    body: list[ast.stmt] = []
    keys = "k = (TILE * BLOCK_N + columns)[None, :]"
    if not mixed(kernel.plan):
        body = statements(keys, TILE=_tile(kernel), BLOCK_N=_holes(kernel)["BLOCK_N"])
    last = sum(len(section.runs) for section in sections if section.mask == Truth(True)) - 1
    for section in partial:
        mask = statements(
            'scores = tl.where(MASK, scores, float("-inf"))', MASK=emit_truth(section.mask, kernel.context)
        )
        if mixed(kernel.plan):
            mask = [*statements(keys, TILE=_tile_of(section.runs, last + 1), BLOCK_N=_holes(kernel)["BLOCK_N"]), *mask]
        if len(partial) > 1:
            first, last = last, last + len(section.runs)
            mask = statements("if (t >= START) & (t < END):\n    MASK", START=_end(first), END=_end(last), MASK=mask)
        body += mask
    return body
