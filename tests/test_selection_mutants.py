"""Faulty kernels of selections, one fault each: exact pairs and plain torch must find every one, and no other."""

import importlib.util
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
import torch

import weft.codegen
from tests import test_rank as of_rank
from tests import test_selection as of_selection
from tests import test_weigh_fused as of_weighing
from tests.conftest import HAS_GPU
from tests.gather_case import FIRST, Case, shuffled, some
from tests.oracle import assert_close, guarded, poisoned
from tests.test_gather import NEAR, cell_of
from weft import selection_setting
from weft.codegen import columns, launch, list_tiles, list_tiles_kernel, rank, rank_kernel, weigh_fused_kernel
from weft.codegen.cache import store
from weft.codegen.forward import Kernel
from weft.codegen.list_tiles import lists_by_kernel
from weft.codegen.weigh_fused import Affine, Fold, Ratios, Weighing
from weft.selection_bands import attend, given

pytestmark = pytest.mark.skipif(HAS_GPU, reason="faulty kernels run in the interpreter, where they do no harm")


@dataclass(frozen=True)
class Mutant:
    """The first place after `part` where `old` (a regular expression) matches is replaced."""

    name: str
    subject: str
    old: str
    new: str
    part: str = ""

    def apply(self, source: str) -> str:
        before, part, after = source.partition(self.part) if self.part else ("", "", source)
        return before + part + re.sub(self.old, self.new, after, count=1)


def title(mutant: Mutant) -> str:
    return f"{mutant.subject}: {mutant.name}"


# Kernels of attention: tiles are 64 queries by 32 keys; of packed heads, 16 rows by 32 keys.


def columns_case(batch: int = 2, **rest: Any) -> Case:
    """One list for all queries, more than a step long, beside tiles."""
    shape = (batch, 4, 72)
    return Case(72, 4, 2, batch, (some(shape, 72, 1, 0.8), some(shape, 64, 32, 0.4)), **rest)


def packed_case() -> Case:
    made = (some((1, 2, 37), 1, 8, 0.2), some((1, 2, 37), 16, 1, 0.1))
    return Case(37, 4, 2, 1, made, keeps=(FIRST,))


def places_case() -> Case:
    cells = (some((2, 4, 100), 64, 32, 0.5, "p"), some((2, 4, 100), 100, 1, 0.2))
    return Case(100, 4, 2, 2, cells, keeps=(NEAR, cell_of(0, 16)), places=shuffled(2, 4, 100, 64), within=64)


def distances_case(**rest: Any) -> Case:
    return Case(40, 4, 2, 2, (some((2, 4, 40), 16, 5, 0.3, "d"),), **rest)


SUBJECTS: dict[str, Callable[[], Case]] = {
    "columns": lambda: columns_case(keeps=(NEAR,)),
    "sole": columns_case,
    "open": lambda: columns_case(1, limits=()),
    "queries": lambda: Case(72, 4, 2, 1, (some((1, 4, 72), 1, 1, 0.1), some((1, 4, 72), 16, 8, 0.1)), keeps=(FIRST,)),
    "alone": lambda: Case(40, 2, 1, 1, (some((1, 2, 40), 1, 1, 0.05),)),
    "distances": lambda: distances_case(keeps=(FIRST,)),
    "ahead": lambda: distances_case(limits=()),
    "places": places_case,
    "packed": packed_case,
}
SINGLE, PARTIAL, FULL = "# single keys", "# partial tiles", "# full tiles"
CHOSEN = r"\(read\(t\d, [^=]*=="
PLACE = r"read\(t2, t2_size, h \* \(n \+ 1\) \+ k\)"

GATHERED = [
    # Lists of keys.
    Mutant("a list from one too late", "open", r"(column = .*)", r"\1 + 1"),
    Mutant("a list to one too few", "sole", r"(stop = .*)", r"\1 - 1"),
    Mutant("a list to one too many", "open", r"(stop = .*)", r"\1 + 1"),
    Mutant("lists of another batch element", "sole", r"column_first \+ bh", "column_first + h"),
    Mutant("ends of another batch element", "sole", r"column_end \+ bh", "column_end + h"),
    Mutant("ends of another query tile", "sole", r"(column_end \+ bh \* count) \+ i", r"\1"),
    Mutant("lists of another query tile", "queries", r"(column_first \+ bh \* count) \+ i", r"\1"),
    Mutant("every other step", "open", r"stop, 32", "stop, 64"),
    Mutant("the first step again and again", "open", r"spots = t \+", "spots = column +", SINGLE),
    Mutant("a list filled up with a key", "open", r"other=n\)", "other=n - 1)", SINGLE),
    Mutant("one key past the list", "open", r"spots < stop,", "spots < stop + 1,", SINGLE),
    # Rows of keys and values.
    Mutant("keys one place off", "open", r"key_rows = keys", "key_rows = keys + 1", SINGLE),
    Mutant("values by their place in the list", "open", r"value_rows = keys", "value_rows = spots", SINGLE),
    Mutant("masked by the place in the list", "open", r"k = keys", "k = spots", SINGLE),
    Mutant("values of another group", "open", r"g \* value_head", "0 * value_head", SINGLE),
    Mutant("keys of the query's head", "open", r"g \* key_head", "h // heads * key_head", SINGLE),
    Mutant("values past the end", "open", r"(value_base), mask=.*\)", r"\1)", SINGLE),
    # Which pairs of a list count.
    Mutant("keys past the end kept", "open", r" & \(k < n\)", "", SINGLE),
    Mutant("the diagonal left out", "sole", r"k <= q", "k < q", SINGLE),
    Mutant("not causal", "sole", r"k <= q", "k < n", SINGLE),
    Mutant("kept keys counted twice", "queries", r"k >= 4", "k >= 0", SINGLE),
    Mutant("the window counted twice", "columns", r"q - k >= 30", "q - k >= 0", SINGLE),
    Mutant("a window one wider", "columns", r"q - k >= 30", "q - k >= 31", SINGLE),
    Mutant("chosen tiles counted twice", "columns", r"!= 1", "!= 2", SINGLE),
    Mutant("one of two for both of two", "columns", r"\(q - k >= 30\) &", "(q - k >= 30) |", SINGLE),
    Mutant("what a list has for what a query chose", "queries", CHOSEN + " 1", "(k == k", SINGLE),
    Mutant("rows without a key of a list", "alone", r"scale, True", "scale, False", SINGLE),
    # Looking up what was chosen.
    Mutant("cells of a key/value head", "queries", r"\(h \* m", "(g * m", SINGLE),
    Mutant("cells of another batch element", "columns", r"t1 \+ b \* t1_batch", "t1"),
    Mutant("cells of another query", "queries", r"q - off\)\)", "q - off - 1))", SINGLE),
    Mutant("half a cell of queries", "queries", r"q - off >> 4", "q - off >> 3", SINGLE),
    Mutant("rows of cells without a ragged one", "queries", r"m \+ 15 >> 4", "m >> 4", SINGLE),
    Mutant("cells of one head", "distances", r"read\(t0, t0_size, \(h \*", "read(t0, t0_size, (0 *", PARTIAL),
    # Distances.
    Mutant("keys ahead of a query", "ahead", r">= 0", ">= -1", PARTIAL),
    Mutant("no distance of 0", "distances", r">= 0", "> 0", PARTIAL),
    Mutant("keys for distances", "distances", r"\+ \(q // 5 - k // 5\)", "+ k // 5", PARTIAL),
    Mutant("cells of a difference", "distances", r"\+ \(q // 5 - k // 5\)", "+ (q - k) // 5", PARTIAL),
    # Places.
    Mutant("places taken for keys", "places", r"keys = .*", "keys = spots", PARTIAL),
    Mutant("places taken for keys, full tiles", "places", r"keys = .*", "keys = spots", FULL),
    Mutant("values by their place", "places", r"value_rows = keys", "value_rows = spots", PARTIAL),
    Mutant("places of another batch element", "places", r"key_of \+ bh", "key_of + h", PARTIAL),
    Mutant("places of a key/value head", "places", r"key_of \+ bh", "key_of + (b * heads + g)", FULL),
    Mutant("a place past the last one", "places", r"other=n\)", "other=0)", PARTIAL),
    Mutant("half a tile of places", "places", r"spots = j \* 32", "spots = j * 16", FULL),
    Mutant("the place of a key one off", "places", PLACE + " >> 5", "k >> 5", PARTIAL),
    Mutant("the place in another head", "places", PLACE, "read(t2, t2_size, g * (n + 1) + k)", PARTIAL),
    Mutant("heads without a spare place", "places", PLACE, "read(t2, t2_size, h * n + k)", PARTIAL),
    Mutant("the place of another token", "places", r"\(n \+ 1\) \+ 0\)", "(n + 1) + 1)", PARTIAL),
    # Heads of a group in one tile.
    Mutant("rows taken for tokens", "packed", r"q = \(rows // 2", "q = (rows"),
    Mutant("queries of one head", "packed", r"query_rows % 2", "0 * query_rows"),
    Mutant("queries of another group", "packed", r"\(h \* 2\) \* query_head", "h * query_head"),
    Mutant("queries of another token", "packed", r"query_rows // 2", "query_rows % 2"),
    Mutant("half of the rows loaded", "packed", r"query_rows < m \* 2", "query_rows < m"),
    Mutant("half of the rows stored", "packed", r"out_rows < m \* 2", "out_rows < m"),
    Mutant("output of one head", "packed", r"out_rows % 2", "0 * out_rows"),
    Mutant("half of the log-sum-exps stored", "packed", r"mask=rows < m \* 2", "mask=rows < m"),
    Mutant("log-sum-exp of the other head", "packed", r"bh \* 2 \+ rows % 2", "bh * 2 + 1 - rows % 2"),
    Mutant("log-sum-exp to base 2", "packed", r"peak \* 0\.69314\d*", "peak"),
]


def check(subject: str) -> None:
    """NaN around all that may be read; keys gathered whatever it costs."""
    case = SUBJECTS[subject]()
    q, k, v = map(guarded, case.tensors())
    # Few keys expected of each query are what makes small tiles worth their while.
    costs = {"FEWEST_ROWS": 1, "EXPECTED": 1e-3} if subject == "packed" else {"FEWEST_ROWS": 1 << 30}
    small = mock.patch.multiple(selection_setting, **costs)
    with small, mock.patch.object(columns, "GATHER_COST", 1e-9), poisoned():
        got = attend(
            case.job(), given(case.cells), [None] * len(case.cells), q, k, v, 0.3, "triton", False, case.places
        )
    assert_close(got, q, k, v, case.kept().numpy(), 0.3)


@contextmanager
def attending(mutant: Mutant) -> Generator[None]:
    """Kernels with the fault, in 32 bits for the sake of short expressions; some kernel must have what it changes."""
    changes = list[bool]()

    def build(kernel: Kernel) -> object:
        source = launch.kernel_source(kernel).replace(".to(tl.int64)", "")
        changes.append(mutant.apply(source) != source)
        return store(mutant.apply(source), "mutant").forward

    with mock.patch.multiple(launch, build=build, launcher=launch.launcher.__wrapped__):
        yield
    assert any(changes) or not mutant.old, f"no kernel of `{mutant.subject}` matches {mutant.old}"


@pytest.mark.parametrize("subject", SUBJECTS)
def test_true_kernels_pass(subject: str) -> None:
    with attending(Mutant("none", subject, "", "")):
        check(subject)


@pytest.mark.parametrize("mutant", GATHERED, ids=title)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_gathering_mutants_are_killed(mutant: Mutant) -> None:
    with attending(mutant), pytest.raises(AssertionError):
        check(mutant.subject)


# Kernels that choose: written by hand, imported again from the changed text.

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


def check_lists() -> None:
    """Limits that all heads share; rows of several steps."""
    with mock.patch.object(list_tiles, "STEP", 8):
        of_selection.test_lists(lambda found: lists_by_kernel(found, 300), (1, 4, 9), 1)


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
    "lists": (list_tiles_kernel, check_lists),
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
    # Lists of tiles.
    Mutant("full tiles among the partial ones", "lists", r"may & \(all_of == 0\)", "may"),
    Mutant("tiles outside the limits", "lists", r"may = may & .*", "may = may"),
    Mutant("full without full limits", "lists", r"all_of = all_of & .*", "all_of = all_of"),
    Mutant("limits of another head", "lists", r"row % limits", "0 * limits"),
    Mutant("lists by limits of another head", "lists", r"row % limits", "0 * limits", "def write_tiles"),
    Mutant("tiles of the next row", "lists", r"first, count, STEP", "first, count + 1, STEP", "def count_tiles"),
    Mutant("as many partial as full ones", "lists", r"tl\.sum\(partials, 0\)", "tl.sum(fulls, 0)"),
    Mutant("counts of one step", "lists", r"fulls \+= ", "fulls = "),
    Mutant("full tiles over full ones", "lists", r"at_full \+= .*", "at_full += 0"),
    Mutant("partial tiles over partial ones", "lists", r"at_partial \+= .*", "at_partial += 0"),
    Mutant("tiles counted from each step", "lists", r"j = first \+ tl", "j = 0 * first + tl", "def write_tiles"),
    Mutant("one place too far", "lists", r"(tl\.cumsum\(some.*, 0\)) - 1", r"\1"),
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


@contextmanager
def imported(mutant: Mutant, folder: Path) -> Generator[None]:
    """The module with the fault, in place of the true one."""
    module = CHECKS[mutant.subject][0]
    assert module.__file__ is not None
    source = Path(module.__file__).read_text()
    changed, path = mutant.apply(source), folder / "faulty.py"
    assert changed != source or not mutant.old, f"{path.name} has no {mutant.old}"
    path.write_text(changed)
    spec = importlib.util.spec_from_file_location("faulty", path)
    assert spec and spec.loader
    faulty = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(faulty)
    name = module.__name__.rpartition(".")[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, faulty)
        patch.setattr(weft.codegen, name, faulty)
        yield


@pytest.mark.parametrize("subject", CHECKS)
def test_true_choosing_passes(subject: str, tmp_path: Path) -> None:
    with imported(Mutant("none", subject, "", ""), tmp_path):
        CHECKS[subject][1]()


@pytest.mark.parametrize("mutant", CHOOSING, ids=title)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_choosing_mutants_are_killed(mutant: Mutant, tmp_path: Path) -> None:
    with imported(mutant, tmp_path), pytest.raises(AssertionError):
        CHECKS[mutant.subject][1]()
