"""Faulty kernels of maps, one fault each: the definition must find every one, and no other."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import pytest
import torch

from tests import test_map_kernel as of_maps
from tests.conftest import HAS_GPU
from tests.mutant import Mutant, title, untouched
from tests.test_map_match import program
from weft.codegen import map_call
from weft.codegen.map_kernel import emit
from weft.codegen.map_parts import Kernel

pytestmark = pytest.mark.skipif(HAS_GPU, reason="faulty kernels run in the interpreter, where they do no harm")

# Tiles are 64 rows by 64 columns, or what there is of them.
TEXTS = {
    "runs": "let x[I] = max(u in I, k where k <= u) Q[u] . K[k]",
    "cells": "axis A = q // 24  axis B = k // 20  let x[A, B] = sum(u in A, v in B where v <= u) Q[u] . K[v]",
    "parts": "axis A = q // 71  let x[A, J] = sum(u in A, w in J) Q[u] . K[w]",
    "weights": "let p[q, k] = softmax(Q[q] . K[k] over k where k != q)  let x[I, J] = sum(u in I, w in J) p[u, w]",
    "shifts": "let p[q, j] = softmax(Q[q] . K[j * 4] over j where j % 3 != 1)"
    "  let x[q, J] = sum(r < 3, o < 2) p[q, J * 2 + 2 * r - 3]",
    "things": "input f[q, e]: vector input c[k]: vector let x[q, J] = max(e, k in J where k <= q + e) (f[q, e] . c[k])",
    "heads": "let x[q, J] = sum(h in g) max(Q[q] . K[J * 8], h - 2)",
}
LONG = {"runs", "cells", "parts", "weights"}


def check(subject: str) -> None:
    built = program(TEXTS[subject])
    of_maps.assert_same(built, built.scores[-1].name, *((82, 82) if subject in LONG else (36, 30)))


def check_parts_of_numbers() -> None:
    of_maps.test_rows_of_16_bits_by_means("flash_prefill", "sums", seen())


def seen() -> list[Any]:
    """Stands for the kernels that ran, of which these checks need one."""
    return [mock.Mock(products=[mock.Mock(left=1, right=3, mixed=False)])]


CHECKS: dict[str, Callable[[], None]] = {
    **{subject: partial(check, subject) for subject in TEXTS},
    "halves": check_parts_of_numbers,
    "nan": lambda: of_maps.test_no_number_is_lost("max", seen()),
    "later nan": lambda: of_maps.test_no_number_is_lost_in_a_later_tile("max", seen()),
}
MUTANTS = [
    # Rows and columns that there are.
    Mutant(
        "room of a piece for cells", "cells", r"\(lane_m % 32 < width_m\) & \(within_m < ratio_m\)", "(lane_m < 64)"
    ),
    Mutant("one row more than a part has", "parts", r"lane_m % 64 < width_m", "lane_m % 64 <= width_m"),
    Mutant("one row more than a cell has", "parts", r"within_m < ratio_m", "within_m <= ratio_m"),
    Mutant("the last row twice", "cells", r"cell_m < end_m", "cell_m <= end_m"),
    Mutant("the first part of each cell", "parts", r"piece_m % parts_m \* width_m", "0 * width_m"),
    Mutant("columns before the first", "shifts", r"\(inner >= inner_begin\)", "(inner == inner)", "for shift"),
    Mutant("columns past the last", "shifts", r"\(inner < inner_end\)", "(inner == inner)", "for shift"),
    Mutant("rows of another batch element", "runs", r"batch \* a0_batch", "0 * a0_batch"),
    Mutant("columns of another group", "runs", r"group \* b0_group", "0 * b0_group"),
    Mutant("rows counted from the first token", "runs", r"at_m - begin_m", "at_m"),
    # Tiles that a condition leaves.
    Mutant("a run one tile short", "runs", r"(runs \+ 2 \* run \+ 1\))", r"\1 - 1"),
    Mutant("no run but the first rows'", "runs", r"begin \+ tile_m.*?\), (.*) \+ tile_m // step_m", r"begin), \1"),
    Mutant("tiles that the first rows need", "cells", r"tile_m // step_m \* may_columns", "0 * may_columns"),
    Mutant("the condition left to tiles", "runs", r" & \(column <= row\)", ""),
    # Folds.
    Mutant("what does not hold counts", "cells", r"tl\.where\(holds, value, 0\.0\)", "value"),
    Mutant("the last tile alone", "runs", r"larger\(total, (.*)\)", r"\1"),
    Mutant("no NaN beside a number", "later nan", r" \| \(a != a\)", ""),
    Mutant("no NaN among numbers", "nan", r" \+ nan_in\(total, \d\)", ""),
    Mutant("columns for pieces", "cells", r"tl\.sum\(total, 2\)", "tl.max(total, 2)"),
    # Weights.
    Mutant("sums relative to another peak", "weights", r"total \* tl\.exp\(peak - safe\)", "total"),
    Mutant("log-sum-exp without its peak", "weights", r"peak \+ tl\.log", "tl.log"),
    Mutant("weights of another row", "weights", r"relative_row\)", "0)", "relative_number ="),
    Mutant("each shift once", "shifts", r"value \* times", "value"),
    Mutant("one shift too few", "shifts", r"range\(-3, 2\)", "range(-3, 1)"),
    # Loops and products.
    Mutant("rows of the first thing", "things", r"loop0\.to\(tl\.int64\) \* a0_0", "0 * a0_0"),
    Mutant("one thing too few", "things", r"loop0_high\):", "loop0_high - 1):"),
    Mutant("one head of a group", "heads", r"range\(0, each\)", "range(0, 1)"),
    Mutant("heads by their place in a group", "heads", r"h = group \* each \+ head", "h = head"),
    Mutant("the second part of a number missing", "halves", r"(\w+)( = tl\.dot\(.*_1_rows.*)", r"\1 = \1"),
    Mutant("parts too large", "halves", r"(_1_rows.*\n.*)dot0 \* 0\.000\d+", r"\1dot0"),
    # What is stored.
    Mutant("all heads in one place", "runs", r"lead\.to\(tl\.int64\) \* pieces_m", "0 * lead"),
    Mutant("columns of the first tile", "weights", r"columns = tile_n \* \d+", "columns = 0"),
]


def nothing(shape: tuple[int, ...], **rest: Any) -> torch.Tensor:
    """Places of a result that a kernel leaves out hold no number."""
    return torch.full(shape, float("nan"), **rest)


@contextmanager
def mapping(mutant: Mutant) -> Generator[None]:
    """Kernels with the fault on CPU tensors; some kernel must have what it changes."""
    changes = list[bool]()

    def faulty(kernel: Kernel) -> str:
        source = emit(kernel)
        changes.append(mutant.apply(source) != source)
        return mutant.apply(source)

    compiled: Any = vars(map_call)["_compiled"]
    with mock.patch.multiple(map_call, emit=faulty, suits=lambda *_: True, _compiled=compiled.__wrapped__):
        yield
    assert any(changes) or not mutant.old, f"no kernel of `{mutant.subject}` matches {mutant.old}"


@pytest.mark.parametrize("subject", CHECKS)
@pytest.mark.filterwarnings("ignore:All-NaN")
def test_true_kernels_pass(subject: str) -> None:
    with mapping(untouched(subject)):
        CHECKS[subject]()


@pytest.mark.parametrize("mutant", MUTANTS, ids=title)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_map_mutants_are_killed(mutant: Mutant) -> None:
    empty = mock.patch.object(torch, "empty", nothing)
    with mapping(mutant), empty, pytest.raises(AssertionError):
        CHECKS[mutant.subject]()
