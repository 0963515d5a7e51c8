"""Kernels with one fault each: the oracles of tests/oracle.py must find every one, and nothing in the true kernels."""

from unittest import mock

import numpy as np
import pytest
import torch
from triton.runtime.errors import InterpreterError

import weft
from tests.conftest import HAS_GPU
from tests.mutant import Mutant, title
from tests.oracle import assert_attends, assert_close, definition, guarded, poisoned, small_inputs
from weft.codegen import launch
from weft.codegen.cache import store
from weft.codegen.forward import Kernel

pytestmark = pytest.mark.skipif(HAS_GPU, reason="faulty kernels run in the interpreter, where they do no harm")

# Tiles are 64 queries by 32 keys. Each strategy is here, and each thing a kernel may do.
SUBJECTS = {
    "run": "pattern run { causal\n keep q - k < 40\n keep k < 5 }",
    "full": "pattern full { keep |q - k| <= 90 }",
    "step": "pattern step { keep k // 32 % 2 == 0 }",
    "gaps": "pattern gaps { causal\n keep k < 2 and q % 3 != 1\n keep 0 < q - k < 40 and q % 3 != 1 }",
    "shift": "pattern shift { keep (q - k) % 3 == 1 and q - k < 50\n keep (q - k) // 8 == 0 }",
    "list": "pattern list(w: table[head] = [5, 70, 0, 90]) { keep (k // 32 + h) % 5 == 0\n keep |q - k| < w[h] }",
    "table": "pattern table { input doc[token]: int\n causal\n keep doc[q] == doc[k] }",
    "outside": "pattern outside { input doc[token]: int\n keep doc[k + 3] == -1\n keep doc[k - 3] == -1 }",
}
N, M, HEADS, KV_HEADS, HEAD_DIM = 127, 120, 4, 2, 64


MUTANTS = [
    # Masks.
    Mutant("the diagonal left out", "run", r"k <= q", "k < q"),
    Mutant("a window one wider", "run", r"\(q - k < 40", "(q - k <= 40"),
    Mutant("a window one narrower", "run", r"\(q - k < 40", "(q - k < 39"),
    Mutant("one more sink, late rows", "run", r"where\(k < 5", "where(k <= 5"),
    Mutant("queries without their offset", "run", r"q = \(rows \+ off\)", "q = rows"),
    Mutant("and for or", "run", r"\(q - k < 40\) \|", "(q - k < 40) &"),
    Mutant("masked keys score 0", "run", r"scores, float\('-inf'\)", "scores, 0.0"),
    Mutant("masked keys score a finite number", "gaps", r"scores, float\('-inf'\)", "scores, -10000.0"),
    Mutant("keys one place off", "full", r"k = \(j \* 32 \+", "k = (1 + j * 32 +"),
    Mutant("keys of half a tile", "full", r"k = \(j \* 32", "k = (j * 16"),
    Mutant("keys past the end kept", "shift", r" & \(k < n\)", ""),
    Mutant("keys past the end kept, list", "list", r" & \(k < n\)", ""),
    Mutant("modulo that truncates", "shift", r"\(\(q - k\) % 3 \+ 3\) % 3", "(q - k) % 3"),
    Mutant("floor that truncates", "shift", r"q - k >> 3", "(q - k) // 8"),
    Mutant("key/value head for head", "list", r"\(k >> 5\) \+ h", "(k >> 5) + g"),
    Mutant("absolute value without its second half", "list", r"tl.maximum\(q - k, 0 - \(q - k\)\)", "(q - k)"),
    # Online softmax.
    Mutant("mix not rescaled", "run", r"mix = mix \* shrink\[:, None\]", "mix = mix"),
    Mutant("total not rescaled", "run", r"total \* shrink", "total"),
    Mutant("no guard for tiles without keys", "run", r"tl\.where\(top == float\('-inf'\), 0\.0, top\)", "top"),
    Mutant("partial tiles folded in as full", "run", r"scale, True", "scale, False"),
    Mutant("weights to base e", "run", r"exp2\(scores", "exp(scores"),
    Mutant("shrinking to base e", "run", r"exp2\(peak", "exp(peak"),
    Mutant("scale missing", "run", r"scores \* scale - safe", "scores - safe"),
    Mutant("peak not updated", "run", r"return \(total, top, mix\)", "return (total, peak, mix)"),
    Mutant("peak of this tile only", "run", r"tl\.maximum\(peak, (tl\.max\(scores, 1\) \* scale)\)", r"\1"),
    Mutant("largest weight for their sum", "run", r"tl\.sum\(weights", "tl.max(weights"),
    Mutant("log-sum-exp without peak", "run", r"peak \* 0\.69314\d*", "0.0"),
    Mutant("log-sum-exp to base 2", "run", r"peak \* 0\.69314\d*", "peak"),
    Mutant("log-sum-exp without total", "run", r"\+ tl\.log\([^)]*\)\)", "+ 0.0"),
    Mutant("empty rows without minus infinity", "gaps", r"float\('-inf'\)\)(\n *tl\.store)", r"0.0)\1"),
    Mutant("division by an empty total", "gaps", r"mix / tl\.where\(some, total, 1\.0\)", "mix / total"),
    # Loops.
    Mutant("full tiles from one too early", "full", r"(low_0 = .*)", r"\1 - 1"),
    Mutant("full tiles from one too late", "full", r"(low_0 = .*)", r"\1 + 1"),
    Mutant("full tiles to one too few", "full", r"(high_0 = .*)", r"\1 - 1"),
    Mutant("full tiles to one too many", "full", r"(high_0 = .*)", r"\1 + 1"),
    Mutant("partial tiles from one too late", "run", r"(low_0 = .*)", r"\1 + 1"),
    Mutant("partial tiles to one too few", "run", r"(high_0 = .*)", r"\1 - 1"),
    Mutant("partial tiles never visited", "full", r"tl\.range\(low_1, high_1", "tl.range(low_1, low_1"),
    Mutant("step ignored", "step", r"high_0, 2", "high_0, 1"),
    Mutant("guard dropped", "run", r"tl\.where\(off [^,]*, high_1, low_1\)", "high_1"),
    Mutant("guard negated", "run", r"tl\.where\((off .*) >= (\d+), high_1", r"tl.where(\1 < \2, high_1"),
    Mutant("every partial tile full", "table", r"tl\.load\(split \+ row\)", "tl.load(start + row + 1)"),
    Mutant("one partial tile full", "table", r"tl\.load\(split \+ row\)", "tl.load(split + row) + 1"),
    Mutant("lists of another head", "list", r"h \* count \+ i", "0 * count + i"),
    Mutant("lists of another row", "table", r"b \* list_batch \+ 0 \+ i", "b * list_batch + 0 * i"),
    Mutant("lists of another batch element", "table", r"b \* list_batch", "0 * list_batch"),
    Mutant("the first tile again and again", "table", r"(range\(middle, end.*\n.*)tiles \+ t", r"\1tiles + begin"),
    Mutant("the last tile left out", "table", r"tl\.range\(middle, end,", "tl.range(middle, end - 1,"),
    # Tables.
    Mutant("one head's number for all", "list", r"(u0 = read\(.*), h\)", r"\1, 0)"),
    Mutant("tables read without offset", "table", r"(read\(t0, t0_size, )q\)", r"\1q - off)"),
    Mutant("tables of another batch element", "table", r"b \* t0_batch", "0 * t0_batch"),
    Mutant("0 outside a table", "outside", r"other=-1", "other=0"),
    Mutant("a table read past its end", "outside", r"mask=\(index >= 0\) & \(index < size\)", "mask=index >= 0"),
    Mutant("a table read before its start", "outside", r"mask=\(index >= 0\) & \(index < size\)", "mask=index < size"),
    # Memory.
    Mutant("values past the end", "shift", r"(value_base), mask=.*\)", r"\1)"),
    Mutant("heads interleaved", "run", r"g = h // group", "g = h % (heads // group)"),
    Mutant("values of another batch element", "run", r"b\.to\(tl\.int64\) \* value_batch", "0 * value_batch"),
    Mutant("keys of another row", "run", r"(key_rows = j \* 32)", r"\1 + 1"),
    Mutant("output of another head", "run", r"h\.to\(tl\.int64\) \* out_head", "g.to(tl.int64) * out_head"),
    Mutant("log-sum-exp of another batch element", "run", r"place = bh\.to", "place = h.to"),
    Mutant("output past the last row", "run", r"mask=\(out_rows < m\)\[:, None\]", "mask=(out_rows < m + 1)[:, None]"),
    Mutant("log-sum-exp past the last row", "run", r"mask=rows < m", "mask=rows < m + 1"),
    Mutant("one query tile too few", "run", r"i = count - 1 - inside // width", "i = 0 * count"),
    Mutant("one head for all", "table", r"inside % width", "0 * width"),
]


def check(subject: str) -> None:
    """Values with large scores and two batch elements that differ, then the exact mask."""
    pattern = weft.load(SUBJECTS[subject])
    make = torch.Generator().manual_seed(0)
    q = torch.randn(2, HEADS, M, HEAD_DIM, generator=make) * 3
    k, v = (torch.randn(2, KV_HEADS, N, HEAD_DIM, generator=make) for _ in range(2))
    first = small_inputs(pattern, N, M)
    rows = [first, {name: torch.zeros_like(x) for name, x in first.items()}]
    inputs = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    with poisoned():
        got = pattern.attention(*map(guarded, (q, k, v)), backend="triton", return_lse=True, **inputs)
    assert_close(got, q, k, v, np.stack([definition(pattern, N, M, HEADS, KV_HEADS, **row) for row in rows]))
    assert_attends(pattern, N, M, HEADS, KV_HEADS, first, backend="triton", head_dim=HEAD_DIM)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_true_kernels_pass(subject: str) -> None:
    check(subject)


@pytest.mark.parametrize("mutant", MUTANTS, ids=title)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_mutants_are_killed(mutant: Mutant) -> None:
    changes = list[bool]()

    def build(kernel: Kernel) -> object:
        source = launch.kernel_source(kernel)
        changes.append(mutant.apply(source) != source)
        return store(mutant.apply(source), "mutant").forward

    fresh = mock.patch.multiple(launch, build=build, launcher=launch.launcher.__wrapped__)
    with fresh, pytest.raises((AssertionError, InterpreterError)):
        check(mutant.subject)
    assert any(changes), f"no kernel of `{mutant.subject}` matches {mutant.old}"


def test_strategies_are_what_the_mutants_expect() -> None:
    found = {weft.load(text).plan(N, M, heads=HEADS, block_m=64, block_n=32).strategy for text in SUBJECTS.values()}
    assert found == {"run", "list", "table"}
