"""Faulty kernels that pack cells and list tiles, one fault each: the definitions must find every one, and no other."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest

from tests import test_cell_bits as of_bits
from tests import test_selection as of_selection
from tests.conftest import HAS_GPU
from tests.mutant import Mutant, imported, rewritten, title, untouched
from weft.codegen import cell_bits, cell_bits_kernel, list_tiles, list_tiles_kernel
from weft.codegen.list_tiles import lists_by_kernel

pytestmark = pytest.mark.skipif(HAS_GPU, reason="faulty kernels run in the interpreter, where they do no harm")


def examples(test: Any, *arguments: tuple[object, ...]) -> None:
    """A property of these examples alone."""
    for each in arguments:
        test.hypothesis.inner_test(*each)


def check_lists() -> None:
    """Limits that all heads share; rows of several steps."""
    with mock.patch.object(list_tiles, "STEP", 8):
        of_selection.test_lists(lambda found: lists_by_kernel(found, 300), (1, 4, 9), 1)


def check_cells() -> None:
    """Tiles inside larger cells and as large; one row of cells for all queries; cells of some rows of a call."""
    sizes = ((70, 150, 32, 2, False), (20, 140, 16, 1, False), (20, 150, 32, 1, True))
    with mock.patch.object(list_tiles, "STEP", 8):
        examples(of_selection.test_lists_of_cells_that_tiles_lie_in, *sizes)
    of_bits.test_lists_of_some_rows()


def check_bits() -> None:
    """Rows of one step and of two."""
    with mock.patch.object(cell_bits, "PACKED", 16):
        examples(of_bits.test_bits, (2, 13, 0), (3, 150, 1))


def check_tiles() -> None:
    """Cells inside tiles, across them and around them, ragged; one row for all queries; rows of several steps."""
    sizes = ((40, 50, 3, 24, 16, False, 0), (20, 70, 3, 3, 16, False, 1), (34, 50, 16, 16, 32, False, 2))
    with mock.patch.object(cell_bits, "FOUND", 4):
        examples(of_bits.test_tiles, *sizes, (20, 90, 32, 64, 16, True, 3))
    of_bits.test_tiles_of_some_rows()


CHECKS: dict[str, tuple[ModuleType, Callable[[], None]]] = {
    "lists": (list_tiles_kernel, check_lists),
    "cells": (list_tiles_kernel, check_cells),
    "bits": (cell_bits_kernel, check_bits),
    "tiles": (cell_bits_kernel, check_tiles),
}
LISTING = [
    # Lists of tiles.
    Mutant("full tiles among the partial ones", "lists", r"may & \(all_of == 0\)", "may"),
    Mutant("tiles outside the limits", "lists", r"may = may & .*", "may = may"),
    Mutant("full without full limits", "lists", r"all_of = all_of & .*", "all_of = all_of"),
    Mutant("limits of another head", "lists", r"row % limits", "0 * limits"),
    Mutant("lists by limits of another head", "lists", r"row % limits", "0 * limits", "def write_tiles"),
    Mutant("tiles of the next row", "lists", r"first, count, tiles", "first, count + 1, tiles", "def count_tiles"),
    Mutant("as many partial as full ones", "lists", r"tl\.sum\(partials, 0\)", "tl.sum(fulls, 0)"),
    Mutant("counts of one step", "lists", r"fulls \+= ", "fulls = "),
    Mutant("full tiles over full ones", "lists", r"at_full \+= .*", "at_full += 0"),
    Mutant("partial tiles over partial ones", "lists", r"at_partial \+= .*", "at_partial += 0"),
    Mutant("tiles counted from each step", "lists", r"j = first \+ tl", "j = 0 * first + tl", "def write_tiles"),
    Mutant("one place too far", "lists", r"(tl\.cumsum\(some.*, 0\)) - 1", r"\1"),
    # Lists of tiles that lie in cells, which are bits.
    Mutant("a cell for each tile", "cells", r"cell = j // tiles_of_cell", "cell = j"),
    Mutant("cells of four bits", "cells", r"cell >> 3", "cell >> 2"),
    Mutant("the last of eight bits first", "cells", r">> \(cell & 7\)", ">> (7 - (cell & 7))"),
    Mutant("full without its cell", "cells", r"all_of = may\n", "all_of = may | True\n"),
    Mutant("cells outside the limits", "cells", r"may = may & .*", "may = may"),
    Mutant("cells full without full limits", "cells", r"all_of = all_of & .*", "all_of = all_of"),
    Mutant("cells where tiles would be", "cells", r"if PACKED:", "if 0:", "def start_of"),
    Mutant("cells of the first lane", "cells", r"\* lane_stride", "* 0 * lane_stride"),
    Mutant("the first row of cells", "cells", r"\* row_stride", "* 0 * row_stride"),
    Mutant("the next row's cells", "cells", r"row % rows_of_lane", "(row + 1) % rows_of_lane"),
    Mutant("rows of cells one larger", "cells", r"// rows_of_cell", "// (rows_of_cell + 1)"),
]
FINDING = [
    # Cells as bits.
    Mutant("the first cell the highest bit", "bits", r"<< place", "<< 7 - place"),
    Mutant("bytes of four cells", "bits", r"byte\[:, None\] \* 8", "byte[:, None] * 4"),
    Mutant("a cell of the next row", "bits", r"cell < columns", "cell <= columns"),
    Mutant("cells of the first row", "bits", r"row \* columns", "0 * columns"),
    Mutant("bits of the first row", "bits", r"row \* width", "0 * width"),
    Mutant("the first step again and again", "bits", r"byte, place = first \+ ", "byte, place = "),
    # Tiles of cells.
    Mutant("rows of cells from one too late", "tiles", r"else i \* block_m // query_size", r"\g<0> + 1"),
    Mutant("rows of cells to one too few", "tiles", r"// query_size \+ 1", "// query_size"),
    Mutant(
        "rows of cells past the last query", "tiles", r"tl\.minimum\(\(i \+ 1\) \* block_m, m\)", "((i + 1) * block_m)"
    ),
    Mutant("one row of many", "tiles", r"0 if SHARED else", "0 if True else"),
    Mutant("cells that begin in a tile", "tiles", r"first = j \* block_n", "first = (j * block_n + key_size - 1)"),
    Mutant("cells that end in a tile", "tiles", r"n\) - 1\) // key_size", "n) - 1) // key_size - 1"),
    Mutant("cells past the last key", "tiles", r"tl\.minimum\(\(j \+ 1\) \* block_n, n\)", "((j + 1) * block_n)"),
    Mutant("cells after a tile", "tiles", r"\(cell <= last\) & ", ""),
    Mutant("other lanes' cells", "tiles", r"lane \* lane_stride", "0 * lane_stride"),
    Mutant("the first row of cells", "tiles", r"row \* row_stride", "0 * row_stride"),
    Mutant("rows of another head", "tiles", r"at % rows_of_lane", "0 * at"),
    Mutant("bytes of four bits", "tiles", r"cell >> 3", "cell >> 2"),
    Mutant("the highest bit first", "tiles", r">> \(cell & 7\)", ">> (7 - (cell & 7))"),
    Mutant("what is past a tile for one of its cells", "tiles", r"\(there, bit, 1\)", "(there, bit, 0)"),
    Mutant("the last cell for some", "tiles", r"some = some \| ", "some = "),
    Mutant("the last cell for every", "tiles", r"every = every & ", "every = "),
    Mutant("the first step of tiles for all", "tiles", r"tl\.program_id\(1\) \* STEP", "0 * STEP"),
]
CALLING: list[tuple[ModuleType, str, Mutant]] = [
    (
        list_tiles,
        "lists_by_kernel",
        Mutant("rows of cells next to each other", "cells", r"touched\.stride\(1\)", "touched[0, 0].numel()"),
    ),
    (
        list_tiles,
        "whole",
        Mutant("cells of keys as long as of queries", "cells", r"cells\.key_size //", "cells.query_size //"),
    ),
    (list_tiles, "whole", Mutant("a row of cells for all", "cells", r"if cells\.shared else", "if True else")),
    (cell_bits, "tiles_by_kernel", Mutant("no cell lies in two tiles", "tiles", r"else 2\)", "else 1)")),
    (
        cell_bits,
        "tiles_by_kernel",
        Mutant("lanes next to each other", "tiles", r"bits\.stride\(1\),", "bits[0, 0].numel(),"),
    ),
]


@pytest.mark.parametrize("subject", CHECKS)
def test_true_kernels_pass(subject: str, tmp_path: Path) -> None:
    kernels, check = CHECKS[subject]
    with imported(kernels, untouched(subject), tmp_path):
        check()


@pytest.mark.parametrize("mutant", [*LISTING, *FINDING], ids=title)
def test_tiling_mutants_are_killed(mutant: Mutant, tmp_path: Path) -> None:
    kernels, check = CHECKS[mutant.subject]
    with imported(kernels, mutant, tmp_path), pytest.raises(AssertionError):
        check()


@pytest.mark.parametrize(("module", "name", "mutant"), CALLING, ids=[title(mutant) for *_, mutant in CALLING])
def test_mutants_of_calls_are_killed(module: ModuleType, name: str, mutant: Mutant) -> None:
    with rewritten(module, name, mutant), pytest.raises(AssertionError):
        CHECKS[mutant.subject][1]()
