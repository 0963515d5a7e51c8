# Written by `weft stubs`; run it again when the .sparse file changes.
from weft import Pattern

__all__ = ["power"]

# power(window: int = 5, block: tokens = 256)
power: Pattern
"""PowerAttention (Chen et al. 2025, arXiv:2503.03588): near blocks, blocks 1, 2, 4, 8, .. back, and the first."""

attention = power.attention
coverage = power.coverage
mask = power.mask
plan = power.plan
show = power.show
source = power.source
svg = power.svg
