"""Faulty kernels of attention over what was chosen, one fault each: exact pairs must find every one, and no other."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest

from tests.conftest import HAS_GPU
from tests.gather_case import CAUSAL, FIRST, Case, shuffled, some
from tests.mutant import Mutant, rewritten, title, untouched
from tests.oracle import assert_close, guarded, poisoned
from tests.test_gather import NEAR, cell_of
from weft import selection_bands, selection_setting, selection_tiles
from weft.codegen import bound_tiles, columns, launch, select_plan
from weft.codegen.cache import store
from weft.codegen.forward import Kernel
from weft.compiler.ir import Not
from weft.selection_bands import attend, given

pytestmark = pytest.mark.skipif(HAS_GPU, reason="faulty kernels run in the interpreter, where they do no harm")

# Tiles are 64 queries by 32 keys; of packed heads, 16 rows by 32 keys.


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


def together_case() -> Case:
    """Two heads of four choose together: cells that no tile fits, and single keys."""
    shape = (2, 2, 100)
    return Case(100, 4, 2, 2, (some(shape, 16, 24, 0.3), some(shape, 100, 1, 0.2)), keeps=(NEAR,))


def order_case() -> Case:
    cells = (some((2, 4, 150), 64, 32, 0.5, "p"),)
    return Case(150, 4, 2, 2, cells, places=shuffled(2, 4, 150, 64), within=64)


def limited_places_case() -> Case:
    """Limits that read places beside keeps that do not."""
    limits, places = (CAUSAL, Not(cell_of(5, 16))), shuffled(1, 2, 100, 64)
    return Case(100, 2, 1, 1, (some((1, 2, 100), 64, 32, 0.5, "p"),), limits, (FIRST,), places, 64)


def distances_case(**rest: Any) -> Case:
    return Case(40, 4, 2, 2, (some((2, 4, 40), 16, 5, 0.3, "d"),), **rest)


def late_case(kind: str = "k", **rest: Any) -> Case:
    """Cells that no tile fits, in two bands of queries."""
    return Case(200, 2, 1, 1, (some((1, 2, 200), 16, 24 if kind == "k" else 5, 0.3, kind),), **rest)


SUBJECTS: dict[str, Callable[[], Case]] = {
    "columns": lambda: columns_case(keeps=(NEAR,)),
    "sole": columns_case,
    "open": lambda: columns_case(1, limits=()),
    "queries": lambda: Case(72, 4, 2, 1, (some((1, 4, 72), 1, 1, 0.1), some((1, 4, 72), 16, 8, 0.1)), keeps=(FIRST,)),
    "alone": lambda: Case(40, 2, 1, 1, (some((1, 2, 40), 1, 1, 0.05),)),
    "together": together_case,
    "alike": lambda: Case(200, 4, 2, 2, (some((2, 1, 200), 64, 32, 0.3),)),
    "distances": lambda: distances_case(keeps=(FIRST,)),
    "ahead": lambda: distances_case(limits=()),
    "order": order_case,
    "places": places_case,
    "even places": lambda: Case(
        80, 2, 1, 1, (some((1, 2, 80), 16, 16, 0.9, "p"),), (), places=shuffled(1, 2, 80, 16), within=16
    ),
    "limited places": limited_places_case,
    "packed": packed_case,
    "late": lambda: late_case(keeps=(NEAR,)),
    "late distances": lambda: late_case("d"),
    "late packed": lambda: Case(140, 2, 1, 1, (some((1, 1, 140), 1, 8, 0.05),)),
}
SINGLE, PARTIAL, LOOP = "# single keys", "# partial tiles", "# closed-form partial tiles"
FULL, LISTED = "# full tiles", "# listed partial tiles"
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
    Mutant("cells of one head", "distances", r"read\(t0, t0_size, \(h \*", "read(t0, t0_size, (0 *", LISTED),
    Mutant("the next bit", "late", r"(// 24) & 7\)", r"\1 + 1 & 7)", LISTED),
    Mutant("four bits of a byte", "late", r"(// 24) & 7\)", r"\1 & 3)", LISTED),
    Mutant("the first byte of a row", "queries", r"\+ \(k >> 3\)", "+ 0", SINGLE),
    Mutant("rows without a ragged byte", "late", r"\+ 7 >> 3\)", ">> 3)", LISTED),
    Mutant("seven bits too many", "late", r" & 1 == 1", " == 1", LISTED),
    Mutant("cells of a head that shares them", "together", r"h >> 1\) \*", "h) *", LISTED),
    Mutant("the first group's cells", "together", r"h >> 1\) \*", "0) *", LISTED),
    Mutant("single keys of a tile, for two heads", "together", r"h >> 1\) \*", "h) *", SINGLE),
    Mutant("lists of the first query tile", "alike", r"list_batch \+ 0 \+ i", "list_batch"),
    Mutant("lists of the other batch element", "alike", r"row = b \* list_batch", "row = (1 - b) * list_batch"),
    # Distances.
    Mutant("keys ahead of a query", "ahead", r">= 0", ">= -1", PARTIAL),
    Mutant("no distance of 0", "distances", r">= 0", "> 0", LISTED),
    Mutant("keys for distances", "distances", r"\(q // 5 - k // 5 & 7\)", "(k // 5 & 7)", LISTED),
    Mutant("cells of a difference", "distances", r"\(q // 5 - k // 5 & 7\)", "((q - k) // 5 & 7)", LISTED),
    # Places.
    Mutant("places taken for keys", "places", r"keys = .*", "keys = spots", LISTED),
    Mutant("places taken for keys, full tiles", "order", r"keys = .*", "keys = spots", FULL),
    Mutant("values by their place", "places", r"value_rows = keys", "value_rows = spots", LISTED),
    Mutant("places of another batch element", "places", r"key_of \+ bh", "key_of + h", LISTED),
    Mutant("places of a key/value head", "order", r"key_of \+ bh", "key_of + (b * heads + g)", FULL),
    Mutant("a place past the last one", "places", r"other=n\)", "other=0)", LISTED),
    Mutant("half a tile of places", "order", r"spots = j \* 32", "spots = j * 16", FULL),
    Mutant("the place of a key one off", "places", PLACE + " >> 5 & 7", "k >> 5 & 7", LISTED),
    Mutant("the place in another head", "places", PLACE, "read(t2, t2_size, g * (n + 1) + k)", LISTED),
    Mutant("heads without a spare place", "places", PLACE, "read(t2, t2_size, h * n + k)", LISTED),
    Mutant("the place of another token", "places", r"\(n \+ 1\) \+ 0\)", "(n + 1) + 1)", LISTED),
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
    # Static keeps, which loops visit, beside what is listed.
    Mutant("a loop from one too late", "columns", r"(low_0 = .*)", r"\1 + 1"),
    Mutant("a loop to one too few", "columns", r"(high_0 = .*)", r"\1 - 1"),
    Mutant("a loop's window one wider", "columns", r"q - k < 30", "q - k < 31"),
    Mutant("a window beside places one wider", "places", r"q - k < 30", "q - k < 31"),
    Mutant(
        "keys of a loop taken for places",
        "places",
        r"k = \(j \* 32 \+ (.*)\)\[",
        r"k = tl.load(key_of + bh * n + j * 32 + \1, mask=(j * 32 + \1) < n, other=n)[",
    ),
    Mutant("what a loop visits among places, listed", "places", r"q - k >= 30", "q - k >= 0", LISTED),
    Mutant("less listed among places than no loop visits", "places", r"q - k >= 30", "q - k >= 31", LISTED),
    Mutant("places of another head in a loop", "limited places", r"h \* \(n \+ 1\)", "g * (n + 1)", LOOP),
    Mutant("keys after a loop's query", "columns", r"k <= q", "k <= q + 1"),
    Mutant("what loops visit, listed", "late", r"q - k >= 30", "q - k >= 0", LISTED),
    Mutant("less listed than no loop visits", "late", r"q - k >= 30", "q - k >= 31", LISTED),
    Mutant("first keys, listed", "distances", r"k >= 4", "k >= 3", LISTED),
    Mutant("all of a listed tile", "late", r"\(read\(t0, [^=]*== 1\)", "(k == k)", LISTED),
    Mutant("full tiles never visited", "columns", r"range\(begin, middle", "range(begin, begin"),
    # Bands of queries, each with its own rows of cells.
    Mutant("queries of the first band", "late distances", r"\(rows \+ off\)", "rows"),
    Mutant("queries of the first band, packed", "late packed", r"q = \(rows // 2 \+ off\)", "q = (rows // 2)"),
    Mutant("rows of cells of the whole call", "late", r"q - off >> 4", "q >> 4", LISTED),
    Mutant("as many rows as the whole call", "late", r"m \+ 15 >> 4", "n + 15 >> 4", LISTED),
    Mutant("rows of cells before the band", "late distances", r"q - off >> 4", "q - off - 16 >> 4"),
    Mutant("rows by tokens, packed", "late packed", r"\(q - off\)", "q"),
    Mutant("distances inside the band", "late distances", r"\+ \(q // 5", "+ ((q - off) // 5"),
    Mutant("keys of the band", "late", r"k // 24", "(k + off) // 24", LISTED),
    Mutant("a loop to the first band", "late", r"(high_0 = .*)\(i \+ \(off >> 6\)\)", r"\1i"),
]


def check(subject: str) -> None:
    """NaN around all that may be read; keys gathered whatever it costs."""
    case = SUBJECTS[subject]()
    q, k, v = map(guarded, case.tensors())
    # Few keys expected of each query are what makes small tiles worth their while.
    costs: dict[str, Any] = {"FEWEST_ROWS": 1, "EXPECTED": 1e-3} if "packed" in subject else {"FEWEST_ROWS": 1 << 30}
    small = mock.patch.multiple(selection_setting, **costs)
    # As few queries at once as may be.
    narrow = mock.patch.multiple(selection_bands, LIST_BYTES=1, FEWEST_BYTES=1, LIST_SHARE=1 << 60)
    with small, narrow, mock.patch.object(columns, "GATHER_COST", 1e-9), poisoned():
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
    with attending(untouched(subject)):
        check(subject)


@pytest.mark.parametrize("mutant", GATHERED, ids=title)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_gathering_mutants_are_killed(mutant: Mutant) -> None:
    with attending(mutant), pytest.raises(AssertionError):
        check(mutant.subject)


LISTS = [
    Mutant("full beside a loop", "columns", r"limits\.full & ~own\.touched", "limits.full"),
    Mutant("full beside a loop, of places", "places", r"limits\.full & ~own\.touched", "limits.full"),
    Mutant("a tile that a loop visits in part, in no list", "places", r"~own\.full", "~own.touched"),
    Mutant("listed keeps forgotten", "places", r"if listed else \(\)", "if not listed else ()"),
]


@pytest.mark.parametrize("fault", LISTS, ids=title)
def test_faulty_lists_are_found(fault: Mutant) -> None:
    """A function that makes lists, with a fault."""
    with rewritten(selection_tiles, "_visited", fault), pytest.raises(AssertionError):
        check(fault.subject)


def test_a_tile_past_the_last_place_is_not_full() -> None:
    fault = Mutant("full past the end", "even places", r" & \(ends <= n\)", "")
    with rewritten(bound_tiles, "tiles_of_segments", fault), pytest.raises(AssertionError):
        check(fault.subject)


def test_a_loop_looks_up_where_a_key_went() -> None:
    """Limits that read places hold in loops over keys too."""
    fault = Mutant("limits of places forgotten", "limited places", r"\(region\.mask, also\)", "(region.mask,)")
    with rewritten(select_plan, "loops_of", fault), pytest.raises(AssertionError):
        check(fault.subject)
