"""Faulty kernels that choose, one fault each: plain torch must find every one, and no other."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest import mock

import pytest
import torch

from tests import test_rank as of_rank
from tests import test_weigh_fused as of_weighing
from tests.conftest import HAS_GPU
from tests.mutant import Mutant, imported, title, untouched
from weft.codegen import rank, rank_kernel, weigh_fused_kernel
from weft.codegen.weigh_fused import Affine, Fold, Ratios, Weighing

pytestmark = pytest.mark.skipif(HAS_GPU, reason="faulty kernels run in the interpreter, where they do no harm")

Cell = tuple[float, bool, bool]


def ranked(*cells: float | str) -> list[Cell]:
    """A row of scores; "3!" is kept in any case, "3?" is no candidate."""
    return [(float(str(x).rstrip("!?")), "?" not in str(x), "!" in str(x)) for x in cells]


# Ties within a step of eight cells and across, forced cells, cells that are no candidates, numbers below 0.
TIED = ranked(1.0, -2.0, 0.5, 3.0, 3.0, 3.0, "3!", "9?", 3.0, 0.25)
HALVES = ranked("2!", 0.5, 0.5, "4?", -1.0, "nan", 0.5, 0.5, 0.5, 2.0)
EDGES = ranked(1.0, 3.4028234663852886e38, float("inf"), -0.0, 0.0, -3.0, -1.0, -2.0, "1?", "1?")
# Numbers next to each other.
CLOSE = ranked(*(1 + place / 2**23 for place in (0, 1, 2, 3, 18)))
FEW = ranked(1.0, 1.0, -0.5)
LOSSES = ranked("2!", -1.0, -1.0, -1.0, -1.0)
NAN = float("nan")
RANKED: dict[str, tuple[tuple[list[Cell], float], ...]] = {
    "top": (*((CLOSE, count) for count in (1, 2, 3, 4)), (EDGES, 1), (EDGES, 4), (EDGES, 6), (TIED, 3), (HALVES, 20)),
    "cover": (
        (TIED, 0.75),
        (HALVES, 0.5),
        (HALVES, 0.875),
        (LOSSES, 0.25),
        (ranked(1.0, 0.0, 0.5), 1.0),
        (ranked(1.0, "inf"), 0.5),
    ),
    "reach": ((TIED, 6.0), (TIED, 16.0), (HALVES, 3.5)),
    "under": ((TIED, 15.0), (TIED, 0.25), (HALVES, 5.0), (FEW, NAN), (FEW, 0.5)),
}


def check_rule(rule: str) -> None:
    """Rows held in registers, and rows read in steps; alone, and some together that take unlike numbers of halvings."""
    for warps in (16, 0):
        with mock.patch.object(rank, "STEP", 8), mock.patch.object(rank, "WARPS", warps):
            for row, amount in RANKED[rule]:
                of_rank.agree(of_rank.chosen(rule, None), [row], [amount])
            rows, amounts = zip(*(each for each in RANKED[rule] if len(each[0]) == 10), strict=True)
            of_rank.agree(of_rank.chosen(rule, None), list(rows), list(amounts))


def weighings() -> dict[str, Weighing]:
    """Pieces narrower than their room, a condition on falling columns, a chunk of queries, heads added up, a corner."""
    one = of_weighing.diagonals(39, 4, torch.float32, 20)
    left, right = (of_weighing.rows(shape, torch.float32, 3) for shape in ((1, 1, 2, 9, 16), (1, 1, 1, 50, 16)))
    rows, keys = Fold(left, 0, 9), Fold(right, 0, 50)
    return {
        "pieces": Weighing(rows, keys, 0.3, 1, None, Ratios(2, 23)),
        "falling": Weighing(rows, keys, 9.0, 1, Affine(-1, -4, 3), Ratios(4, 5)),
        "chunk": replace(one, left=replace(one.left, start=3, count=5), where=Affine(2, 3, -10)),
        "together": replace(one, ratios=Ratios(3, 3, True)),
        "corner": Weighing(rows, keys, 0.3, 1, Affine(1, 2, 0), Ratios(2, 4)),
    }


def check_weights(case: str) -> None:
    of_weighing.assert_same(weighings()[case], room=1000 if case == "together" else 1 << 28)


CHECKS: dict[str, tuple[ModuleType, Callable[[], None]]] = {
    **{rule: (rank_kernel, partial(check_rule, rule)) for rule in RANKED},
    **{case: (weigh_fused_kernel, partial(check_weights, case)) for case in weighings()},
}
CHOOSING = [
    # Scores as integers.
    Mutant("infinities past all numbers", "top", r"tl\.maximum\(weight, -LARGEST\), LARGEST", "weight, weight"),
    Mutant("negative scores in the wrong order", "top", r"bits \^ 0x7FFFFFFF", "bits"),
    Mutant("two zeros", "top", r"bounded == 0", "bounded != bounded"),
    Mutant("no number ranked", "top", r"may & \(x == x\)", "may"),
    Mutant("cells that are no candidates", "top", r"may & \(x == x\)", "(x == x)"),
    Mutant("forced cells ranked again", "cover", r"!= 0, MUST, key", "!= 0, key, key"),
    Mutant("weights counted as cells", "cover", r"if RULE == TOP else weight", "if RULE <= COVER else weight"),
    # What a row keeps, once its sums are known.
    Mutant("everything is not all", "under", r"some = whole <= limit", "some = whole < 0"),
    Mutant("an amount that is no number", "under", r"limit, amount == amount", "limit, spent == spent"),
    Mutant("a peak that is the end", "cover", r"\(peak >= limit\) == 0", "(peak > limit) == 0"),
    Mutant("cells kept beside enough forced ones", "cover", r" & \(\(spent >= limit\) == 0\)", ""),
    Mutant("a sum that is never reached", "reach", r"\(peak >= limit\) & ", "(peak < limit) & "),
    Mutant("one tie more", "reach", r"spends, 0\.0\) < limit", "spends, 0.0) <= limit"),
    Mutant("one tie less", "under", r"\(place \+ 1\)\.to", "(place + 2).to"),
    Mutant("not even one cell", "under", r"\(place == 0\) & alone", "(place < 0) & alone"),
    Mutant("none of infinitely much", "cover", r"tl\.where\(place > 0, (.*), 0\.0\) < limit", r"\1 < limit"),
    # Rows held in registers.
    Mutant("all rows begin where the first does", "top", r"places\[3\] \* strides\[3\]", "0 * strides[3]"),
    Mutant("the amount of another row", "reach", r"begin\(places, strides\[3\], False\)", "0 * row"),
    Mutant("a forced cell costs nothing", "reach", r"where\(must, spends", "where(must, 0 * spends"),
    Mutant("the whole without what is forced", "cover", r"whole = spent \+ ", "whole = "),
    Mutant("the peak is the whole", "reach", r"peak = whole if .*", "peak = whole"),
    Mutant("no score below 0", "top", r"LEAST if RULE == TOP else 0", "0"),
    Mutant("a share of 1", "cover", r"amount \* whole", "amount"),
    Mutant("the end among those past it", "top", r"key > middle", "key >= middle"),
    Mutant("a search that ends one too late", "top", r"low, middle \+ 1", "low, middle + 2"),
    Mutant("what is spent past another score", "top", r"key > end\[:, None\], spends", "key >= end[:, None], spends"),
    Mutant("ties counted from one", "top", r"same\.to\(tl\.int32\), 1\) - 1", "same.to(tl.int32), 1)"),
    Mutant("ties not kept", "top", r" \| \(same & fits\)", ""),
    Mutant("all ties kept", "top", r"same & fits", "same"),
    Mutant("forced cells not kept", "top", r"keep = must \| ", "keep = "),
    Mutant("one cell beside forced ones", "under", r" & \(tl\.max\(must.*", ""),
    # Rows read in steps.
    Mutant("a forced cell of a step costs nothing", "reach", r"spent = tl\.sum\(before, 0\)", "spent = 0.0"),
    Mutant("the whole of steps without what is forced", "cover", r"spent \+ tl\.sum\(others, 0\)", "tl.sum(others, 0)"),
    Mutant("the peak of steps is the whole", "reach", r"peak = whole if .*", "peak = whole", "def of_row"),
    Mutant("cells of the next row", "top", r"forced, j < count", "forced, j <= count", "def cells_from"),
    Mutant("ends among those past them", "top", r"> ends\[:, None\]", ">= ends[:, None]"),
    Mutant("sums of the last step", "cover", r"total \+= ", "total = "),
    Mutant("a range that begins one too late", "top", r"LEAST, middles \+ 1", "LEAST, middles + 2"),
    Mutant("nothing spent in any case", "reach", r"past = spent \+ tl\.sum\(past_each", "past = tl.sum(past_each"),
    Mutant("one cell beside forced ones of steps", "under", r" & \(musts == 0\)", ""),
    Mutant("ties counted from each step", "top", r"earlier \+= .*", "earlier += 0"),
    # Tiles of scores.
    Mutant("a bound that truncates", "chunk", r"bound -= .*", "bound -= 0"),
    Mutant("a condition without offset", "chunk", r"\* query \+ offset", "* query"),
    Mutant("a condition one off", "corner", r"signed\[None, :\] <= ", "signed[None, :] < "),
    Mutant("a tile that is needed", "corner", r"<= tl\.max\(bounds, 0\)", "< tl.max(bounds, 0)"),
    Mutant("the sign of a condition", "falling", r"j \* sign", "j"),
    Mutant("steps in the wrong direction", "chunk", r"r \* step \* token_step", "r * token_step"),
    Mutant("one token past the last", "together", r"token < tokens", "token <= tokens"),
    Mutant("the first token missing", "chunk", r"token >= 0", "token > 0"),
    Mutant("rows wider than they are", "chunk", r"BLOCK_D\) < WIDTH", "BLOCK_D) < WIDTH + 1"),
    Mutant("one slice of a row", "chunk", r"d = s % .*", "d = 0 * s"),
    Mutant("padding of a piece", "pieces", r"column % PIECE < width", "column % PIECE < width + 1"),
    Mutant("columns of the next group", "pieces", r"inner < ratio", "inner < ratio + 1"),
    Mutant("columns past the last", "pieces", r"\(j < columns\)", "(j < columns + 1)"),
    Mutant("parts of one width", "pieces", r"piece % parts \* width", "piece % parts * PIECE"),
    Mutant("one batch element for all", "chunk", r"\(first_lead \+ lead\) // groups", "first_lead // groups"),
    Mutant("chunks of the first", "together", r"\(first_lead \+ lead\) // groups", "lead // groups"),
    Mutant("one head for all", "corner", r"\(row // rows\)", "(0 * row)"),
    Mutant("no factor", "corner", r"scores \* factor", "scores"),
    Mutant("a tile without a pair", "corner", r"tl\.where\(top == float\(\"-inf\"\), 0\.0, top\)", "top"),
    Mutant("weights to base e", "corner", r"tl\.exp2", "tl.exp"),
    Mutant("totals of one group", "corner", r"total = tl\.sum\(found, 1\)", "total = tl.max(found, 1)"),
    # Sums over cells.
    Mutant("cells from the first row there is", "chunk", r"cell \* ratio - front", "cell * ratio"),
    Mutant("cells one row short", "corner", r"begin \+ ratio, rows", "begin + ratio - 1, rows"),
    Mutant("rows of the next cell", "corner", r"begin \+ ratio, rows", "begin + ratio + 1, rows"),
    Mutant("the share of another tile", "corner", r"place // PER_TILE", "0 * place"),
    Mutant("one head for their sum", "together", r"heads if SUM_HEADS else head \+ 1", "head + 1"),
    Mutant("the last row for their sum", "corner", r"found \+= share", "found = share"),
    Mutant("rows of the first group", "chunk", r"lead\.to\(tl\.int64\) \* heads \+ each", "each"),
]


@pytest.mark.parametrize("subject", CHECKS)
def test_true_choosing_passes(subject: str, tmp_path: Path) -> None:
    kernels, check = CHECKS[subject]
    with imported(kernels, untouched(subject), tmp_path):
        check()


@pytest.mark.parametrize("mutant", CHOOSING, ids=title)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_choosing_mutants_are_killed(mutant: Mutant, tmp_path: Path) -> None:
    kernels, check = CHECKS[mutant.subject]
    with imported(kernels, mutant, tmp_path), pytest.raises(AssertionError):
        check()
