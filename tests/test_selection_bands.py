"""What random programs broke in bands of selections: lists, bounds of how much they hold, and what heads share."""

import pytest
import torch

from weft.codegen.list_tiles import Visited, lists_by_kernel, lists_plainly
from weft.codegen.select_tiles import Tiles


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_lists_of_one_row_each(batch: int) -> None:
    """One head and one row of query tiles for each batch element."""
    generator = torch.Generator().manual_seed(batch)
    touched, full = (torch.rand(batch, 1, 1, 9, generator=generator) < share for share in (0.8, 0.5))
    found = Visited(Tiles(*2 * (torch.ones(1, 1, 9, dtype=torch.bool),)), (Tiles(touched, touched & full),), batch, 1)
    right, lists = lists_plainly(found), lists_by_kernel(found, 9 * batch)
    assert torch.equal(lists.start, right.start) and torch.equal(lists.split, right.split)
    assert torch.equal(lists.tiles[: len(right.tiles) - 1], right.tiles[:-1])
