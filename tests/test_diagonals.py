"""Scores read at integers of names, `row[t, t - d]`: what the definition says, in views of a map with zeros around."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import weft
from weft.codegen import score_call, scores
from weft.codegen.orders import placed
from weft.codegen.scores import call_of, evaluate
from weft.codegen.select_reference import score_of
from weft.compiler.ir import Var
from weft.compiler.selection import Read

PRELUDE = """causal
    axis I = q // 8  axis J = k // 8  axis C = k // 4  axis t = last 12 of q  axis d = q - k  axis D = q // 8 - k // 8
    axis e = 5
    let mq[I] = mean(u in I) Q[u]  let mk[J] = mean(u in J) K[u]  let s[I, J] = mq[I] . mk[J]
    let row[t, k] = softmax(Q[t] . K[k] * scale over k where k <= t)  let hot[k] = sum(t) row[t, k]
    let late[J] = J * 2.5  let dots[C] = sum(u in C) K[u] . K[u]
    let slash[d] = sum(t) row[t, t - d]
"""
EVEN = {
    "diagonals": "let x[d] = sum(t) row[t, t - d]",
    "their cells": "let x[D] = sum(r < 8) slash[D * 8 + r]",
    "maxima of what is partly zeros": "let x[d] = max(t) (-row[t, t - d])",
    "forwards": "let x[I, J] = sum(r < 3) s[I, J + r]",
    "backwards": "let x[J] = sum(r < 3) hot[J * 8 - r]",
    "one name backwards on one axis, another forwards": "let x[I, J] = sum(r < 2, u < 3) s[I - r + u, J]",
    "sums of names": "let x[e] = sum(I, u < 2) s[I + u, e + 2 * u]",
    "both axes backwards": "let x[e] = sum(r < 4) s[3 - r, 6 - e - r]",
    "one axis back where the other goes forwards": "let x[e] = sum(r < 4) s[r + e, 6 - e]",
    "the main diagonal": "let x[e] = sum(r < 5) s[r, r] * e",
    "one cell": "let x[J] = s[1, J] + s[2, 1] + s[2 + n - n, n - n]",
    "a cell that does not exist": "let x[J] = late[J] + s[0 - 2, J]",
    "a name that cancels": "let x[J] = sum(r < 3) s[2 + r - r, J + 1]",
    "rows": "let x[J] = (mk[J - 2] + mk[J + 1]) . mk[J]",
    "rows backwards": "let x[I] = sum(r < 3) mq[I - r] . mq[I]",
    "overlapping windows": "let x[J] = sum(a < 2, r < 3) dots[J * 2 + a + r - 2]",
    "shifted cells in a softmax": "let x[I, J] = softmax(s[I, J - 1] over J where J <= I)",
    "places": "order p = k by hot[k] within 8  axis P = p // 4  let mp[P] = mean(u in P) K[u]"
    " let x[P] = mp[P - 1] . mp[P]",
}  # fmt: skip
UNEVEN = {
    "thinned out": "let x[J] = s[1, J % 3]",
    "mostly zeros": "let x[e] = sum(r < 2) hot[e * 1000 + r]",
}
N = 61


Rows = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def tensors(m: int) -> Rows:
    generator = torch.Generator().manual_seed(m)

    def made(heads: int, tokens: int) -> torch.Tensor:
        return torch.randn(2, heads, tokens, 8, generator=generator, dtype=torch.float64)

    return made(4, m), made(2, N), made(2, N)


def fast(pattern: weft.Pattern, name: str, rows: Rows, room: int = 1 << 28) -> torch.Tensor:
    """A score by the evaluator, `[B, H, cells ..]`, with queries' cells from token 0."""
    program = pattern.program(4, 2)
    call = placed(call_of(program, *rows, 0.5, {}, map_bytes=room))
    axes = next(score.axes for score in program.scores if score.name == name)
    found = evaluate(Read(name, tuple(map(Var, axes))), call, {axis: call.domain(axis) for axis in axes}).over(axes)
    found = found.expand(2, 2, 2, *(call.domain(axis).count for axis in axes)).flatten(1, 2)
    first = call.domain(axes[0]).start
    return torch.nn.functional.pad(found, (*[0, 0] * (len(axes) - 1), first, 0)) if first else found


def pattern_of(body: str) -> weft.Pattern:
    return weft.load(f"pattern x {{ {PRELUDE} {body} keep k <= q }}")


def assert_right(body: str, m: int, room: int = 1 << 28) -> None:
    pattern, rows = pattern_of(body), tensors(m)
    wanted = score_of(pattern.program(4, 2), "x", *rows, 0.5, {})
    got = fast(pattern, "x", rows, room)
    first = 0 if "x[I" not in body else (N - m) // 8
    torch.testing.assert_close(got[:, :, first:], wanted[:, :, first:])


@pytest.mark.parametrize("m", [N, 20, 5])
@pytest.mark.parametrize("body", (EVEN | UNEVEN).values(), ids=(EVEN | UNEVEN).keys())
def test_values(body: str, m: int) -> None:
    assert_right(body, m)
    assert_right(body, m, room=2000)


@pytest.mark.parametrize("body", EVEN.values(), ids=EVEN.keys())
def test_no_index_is_a_tensor(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("gathered")

    monkeypatch.setattr(scores, "_gathered", never)
    assert_right(body, N)


class Held(TorchDispatchMode):
    """The bytes of the largest new tensor, and of all integers among new tensors."""

    largest = integers = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not func.is_view:
            size = out.numel() * out.element_size()
            self.largest = max(self.largest, size)
            self.integers += 0 if out.is_floating_point() else size
        return out


def test_sums_along_diagonals_hold_some_groups_maps() -> None:
    """No map of all heads is made where it is larger than a piece, and none of integers."""
    n, probes, groups = 1 << 12, 256, 16
    pattern = weft.load(f"""pattern p {{ causal axis t = last {probes} of q  axis d = q - k
        let row[t, k] = softmax(Q[t] . K[k] over k) let x[d] = sum(t) row[t, t - d] keep d in top 9 by x[d] }}""")
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, groups, count, 4, generator=generator) for count in (probes, n))
    program = pattern.program(groups, groups)
    with Held() as held:
        call = call_of(program, q, k, k, 1.0, {})
        domains = {"d": call.domain("d")}
        found = evaluate(Read("x", (Var("d"),)), call, domains).over(("d",))
    whole = 4 * groups * probes * n
    assert call.piece_bytes == whole // 2
    assert held.largest < 1.1 * call.piece_bytes
    assert held.integers < 16 * n
    torch.testing.assert_close(found.flatten(0, 2), score_of(program, "x", q, k, k, 1.0, {})[0].float())


def test_a_condition_with_more_names_than_its_body_is_cut() -> None:
    """What queries gathered before each one: a map of queries by keys by queries, of which pieces are held."""
    n, room = 96, 1 << 16
    pattern = weft.load("""pattern p { causal axis t = q // 1
        let a[q, k] = softmax(Q[q] . K[k] over k where k <= q) let x[q, k] = sum(t where t <= q) a[t, k]
        keep k in top 9 by x[q, k] }""")
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.randn(1, 2, n, 4, generator=generator) for _ in range(2))
    program = pattern.program(2, 2)
    with Held() as held:
        call = call_of(program, q, k, k, 1.0, {}, map_bytes=room)
        domains = {"q": call.domain("q"), "k": call.domain("k")}
        found = evaluate(Read("x", (Var("q"), Var("k"))), call, domains).over(("q", "k"))
    assert held.largest <= max(room, 2 * 4 * n * n)
    torch.testing.assert_close(found.flatten(0, 2), score_of(program, "x", q, k, k, 1.0, {})[0].float())


@pytest.mark.parametrize("body", [
    "let x[d] = sum(t) row[t, t - d] * (h + 1)",
    "let x[d] = sum(t where (t + g) % 3 == 0) row[t, t - d]",
    "let x[d] = sum(h, t) row[t, t - d]",
    "let x[d] = sum(h in g, t) row[t, t - d] * (d + 1)",
    "let w[t, k] = row[t, k] * g let x[d] = max(t) w[t, t - d]",
    "let w[t, k] = sum(h) row[t, k] let x[d] = max(t) (w[t, t - d] * row[t, t - d])",
    "let x[J] = sum(t, k in J) (row[t, k] * row[t, k])",
])  # fmt: skip
def test_groups_that_differ(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads keep their numbers, and what all share, where only some groups' maps are made at a time."""
    assert_right(body, N, 4000)
    monkeypatch.setattr(score_call, "LEAST_BYTES", 1000)
    assert_right(body, N)
