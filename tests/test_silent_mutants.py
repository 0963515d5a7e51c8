"""Faults outside of kernels that change no result on a CPU, or few: a test of what is promised must find each."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from tests import test_gather
from tests import test_selection_room as of_room
from tests.mutant import Mutant, rewritten, title, untouched
from weft import selection_tiles
from weft.codegen import columns, lanes
from weft.codegen.select_tiles import Packed
from weft.compiler import program_bounds

BY_TOKEN, BY_CELL = "keep k in top 9 by c[k]", "keep k in top 9 by a[I, k]"
BLOCKS = "keep J in top 3 by b[I, J]"


def check_rows() -> None:
    for body, heads in of_room.RANKED:
        of_room.test_rows_that_are_ranked(body, heads)


def check_packed() -> None:
    property_of: Any = test_gather.test_packed_cells
    property_of.hypothesis.inner_test(4, 9, 5, 0)


CHECKS: dict[str, Callable[[], None]] = {
    **{
        body: partial(of_room.test_lists_have_room, body)
        for body in (BY_TOKEN, BY_CELL, BLOCKS, of_room.NARROW, of_room.ASTRIDE)
    },
    "loops": of_room.test_no_tile_is_listed_that_loops_visit_whole,
    "rows": check_rows,
    "packed": check_packed,
}
MUTANTS: list[tuple[ModuleType | type, str, Mutant]] = [
    # Room for lists.
    (program_bounds, "most_keys", Mutant("one key too few", BY_TOKEN, r"found\.keys", "found.keys - 1")),
    (program_bounds, "most_keys", Mutant("one key too few", BY_CELL, r"found\.keys", "found.keys - 1")),
    (program_bounds, "_most_cells", Mutant("one cell too few", BLOCKS, r"math\.floor\(most\)", "math.floor(most) - 1")),
    (columns, "longest", Mutant("keys of one choice of cells", BY_CELL, r"min\(n, ", "min(8, ")),
    (columns, "rows_within", Mutant("cells that begin before a tile", of_room.NARROW, r"return 1 - ", "return -")),
    (selection_tiles, "row_tiles", Mutant("no cell across tiles", of_room.ASTRIDE, r" \+ \(large % small > 0\)", "")),
    (
        selection_tiles,
        "row_tiles",
        Mutant("no tile for a cell", BLOCKS, r"-\(-one\.key_size .*?\)", "0"),
    ),
    (selection_tiles, "most_tiles", Mutant("lists of one batch element", BLOCKS, r"job\.batch \* ", "")),
    # Tiles that nobody need look at.
    (selection_tiles, "_visited", Mutant("tiles of loops listed", "loops", r" & ~own\.full", "")),
    (selection_tiles, "_visited", Mutant("full tiles beside loops", "loops", r" & ~own\.touched", "")),
    # Rows of scores, by which memory is shared out.
    (lanes, "_of_term", Mutant("queries alike for all heads", "rows", r"HEAD if source", "ALL if source")),
    (lanes, "_of_term", Mutant("keys alike for all heads", "rows", r"else GROUP", "else ALL")),
    (lanes, "_of_term", Mutant("sums of a group alike for all", "rows", r"min\(inner, GROUP\)", "ALL")),
    (lanes, "_of_term", Mutant("sums of all heads by head", "rows", r"else ALL\n(?= *return inner)", "else inner\n")),
    (lanes, "of_formula", Mutant("conditions alike for all heads", "rows", r"HEAD if", "ALL if")),
    (lanes, "_of_choice", Mutant("one side of a threshold", "rows", r"_of_term\(right, call\), ", "")),
    # Rows of cells.
    (Packed, "part", Mutant("one row off", "packed", r"band\.first - self\.first", r"\g<0> - self.query_size")),
    (Packed, "part", Mutant("one row short", "packed", r"start:end", "start : end - 1")),
    (Packed, "part", Mutant("rows from the first token", "packed", r"band\.first - self\.first", "band.first")),
]


@pytest.mark.parametrize("subject", CHECKS)
def test_true_functions_pass(subject: str) -> None:
    with rewritten(program_bounds, "most_keys", untouched(subject)):
        CHECKS[subject]()


@pytest.mark.parametrize(("owner", "name", "mutant"), MUTANTS, ids=[title(mutant) for *_, mutant in MUTANTS])
def test_silent_mutants_are_killed(owner: ModuleType | type, name: str, mutant: Mutant) -> None:
    with rewritten(owner, name, mutant), pytest.raises(AssertionError):
        CHECKS[mutant.subject]()
