"""Orders of keys: by falling score in whole segments, equal ones by position, what is no number last."""

import math
import random

import pytest
import torch

import weft
from weft.codegen.orders import placed
from weft.codegen.scores import call_of

SCORES = (math.inf, 2.0, 1.0, 5e-324, 0.0, -0.0, -5e-324, -1.0, -math.inf, math.nan, -math.nan)


@pytest.mark.parametrize("within", [1, 4, 16, 50])
@pytest.mark.parametrize("heads", [1, 4])
def test_what_ties_and_what_is_no_number(within: int, heads: int) -> None:
    n, drawn = 50, random.Random(within)
    rows = [[drawn.choice(SCORES) for _ in range(n)] for _ in range(heads)]
    pattern = weft.load(f"pattern x {{ causal input hot[k]: float order p = k by hot[k] within {within}  keep p < 9 }}")
    q, k = (torch.zeros(1, count, n, 4, dtype=torch.float64) for count in (4, 2))
    hot = torch.tensor(rows, dtype=torch.float64)[None]
    call = placed(call_of(pattern.program(4, 2), q, k, k, 1.0, {"hot": hot}))
    key_of, place_of = (x.flatten(1, 2)[0].tolist() for x in (call.orders["p"].key_of, call.orders["p"].place_of))
    for head in range(4):
        row, wanted = rows[head % heads], list[int]()
        for first in range(0, n - within + 1, within):
            segment = range(first, first + within)
            wanted += sorted(segment, key=lambda key: (math.isnan(row[key]), -row[key] if row[key] == row[key] else 0))
        wanted += range(len(wanted), n)
        assert key_of[head] == wanted
        assert [place_of[head][key] for key in wanted] == list(range(n))


def test_places_of_keys_that_all_heads_share() -> None:
    """A score of keys alone is sorted once for a group."""
    pattern = weft.load("pattern x { causal let hot[k] = K[k] . K[k] order p = k by hot[k] within 8  keep p % 8 < 3 }")
    generator = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(2, heads, 37, 4, generator=generator, dtype=torch.float64) for heads in (4, 2, 2))
    right = pattern.attention(q, k, v, backend="reference")
    torch.testing.assert_close(pattern.attention(q, k, v, backend="cpu"), right)
