"""From a mask to a plan: the passes, in order, each verified."""

from functools import lru_cache

from .choose_strategy import choose_strategy
from .classify_tiles import classify_tiles
from .ir import Mask
from .name_uniforms import name_uniforms
from .plan import Plan, Shape, Tiling
from .verify import verify

PASSES = (name_uniforms, classify_tiles, choose_strategy)


@lru_cache(maxsize=512)
def make_plan(mask: Mask, shape: Shape, tiling: Tiling) -> Plan:
    """The plan of a mask for one tiling, symbolic in the lengths."""
    plan = Plan(mask, shape, tiling)
    for step in PASSES:
        plan = step(plan)
        verify(plan, step.__name__)
    return plan
