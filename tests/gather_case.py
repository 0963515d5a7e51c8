"""Made-up choices for tests of attention: cells of keys, distances and places, and the pairs that they mean."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

import weft
from weft.codegen.reference import attend_dense
from weft.codegen.search import TORCH
from weft.codegen.select_tiles import Band, Cells, Places, packed
from weft.compiler.evaluate import truth
from weft.compiler.ir import Clause, Compare, Const, Formula, Mask, Not, Var, disjunction
from weft.compiler.plan import Shape
from weft.compiler.selection import Axis, Number, Order, Program
from weft.selection import Job
from weft.selection_bands import attend, given
from weft.selection_tiles import Query

CAUSAL = Compare("<=", Var("k"), Var("q"))
FIRST = Compare("<", Var("k"), Const(4))


@dataclass(frozen=True, slots=True)
class Case:
    """Sizes of one call, its cells, and the order of its keys."""

    n: int
    heads: int
    groups: int
    batch: int
    cells: tuple[Cells, ...]
    limits: tuple[Formula, ...] = (CAUSAL,)
    keeps: tuple[Formula, ...] = ()
    places: Places | None = None
    within: int = 1
    dtype: torch.dtype = torch.float32

    def job(self, device: str = "cpu") -> Job:
        limits = Mask("p", tuple(Clause("require", formula, "limit") for formula in self.limits))
        orders = (Order("p", Number(0.0), self.within),) if self.places else ()
        keeps = tuple(Clause("keep", formula, "keep") for formula in self.keeps)
        coarse = {one.query_size for one in self.cells if one.kept.shape[2] > 1}
        axes = tuple(Axis(f"I{size}", "q", size) for size in sorted(coarse))
        program = Program("p", axes, (), (), limits, keeps, (), orders)
        shape = Shape(True, self.heads, self.groups)
        return Job(
            weft.load("pattern p { causal }"), program, shape, self.n, torch.device(device), {}, self.n, self.batch
        )

    def query(self) -> Query:
        """All queries at once."""
        cells = tuple(map(packed, self.cells))
        return Query(self.job(), Band(0, self.n), cells, (None,) * len(cells), self.places)

    def tensors(self) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(self.n)
        sizes = (self.heads, self.groups, self.groups)
        made = (torch.randn(self.batch, size, self.n, 32, generator=generator) for size in sizes)
        return tuple(x.to(self.dtype) for x in made)

    def kept(self) -> torch.Tensor:
        """Every pair that is kept, [B, H, n, n]."""
        out = torch.stack([self.static(self.keeps, b) for b in range(self.batch)])
        for cells in self.cells:
            out = out | pairs(cells.by_head(self.heads), self.places, self.n)
        return out & torch.stack([~self.static(tuple(Not(f) for f in self.limits), b) for b in range(self.batch)])

    def static(self, formulas: Sequence[Formula], b: int) -> torch.Tensor:
        """Where one of some formulas holds, [H, n, n]."""
        t, h = torch.arange(self.n), torch.arange(self.heads).view(-1, 1, 1)
        values = {"q": t[:, None], "k": t[None, :], "h": h, "g": h // (self.heads // self.groups), "n": self.n}
        tables: dict[str, torch.Tensor] = {}
        if self.places:
            tables["p"] = torch.nn.functional.pad(self.places.place_of[b].long(), (0, 1), value=-1).flatten()
        found = truth(disjunction(tuple(formulas)), values, tables, TORCH)
        return torch.as_tensor(found).expand(self.heads, self.n, self.n)

    def check(self, backend: str, tolerance: float, device: str = "cpu") -> None:
        """Attention over the cells is attention over their pairs."""
        q, k, v = (x.to(device) for x in self.tensors())
        cells = [replace(one, kept=one.kept.to(device)) for one in self.cells]
        places = Places(self.places.key_of.to(device), self.places.place_of.to(device)) if self.places else None
        out, lse = attend(self.job(device), given(cells), [None] * len(cells), q, k, v, 0.3, backend, False, places)
        right, sums = attend_dense(q, k, v, self.kept().to(device), 0.3)
        torch.testing.assert_close(out, right, rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(lse, sums, rtol=tolerance, atol=tolerance)


def pairs(cells: Cells, places: Places | None, n: int) -> torch.Tensor:
    """The pairs in chosen cells, [B, H, n, n]."""
    t = torch.arange(n)
    rows = cells.kept.index_select(2, t // cells.query_size)
    match cells.kind:
        case "k":
            return rows.index_select(3, t // cells.key_size)
        case "p":
            assert places is not None
            place = places.place_of.long() // cells.key_size
            return rows.gather(3, place[:, :, None].expand(-1, -1, n, -1))
        case "d":
            distance = t[:, None] // cells.key_size - t // cells.key_size
            found = rows.gather(3, distance.clamp(min=0).expand(*rows.shape[:2], -1, -1))
            return found & (distance >= 0)


def some(case: tuple[int, int, int], query: int, key: int, share: float, kind: str = "k", seed: int = 0) -> Cells:
    """Random cells for `(batch, heads, n)`, some rows of them with nothing."""
    batch, heads, n = case
    generator = torch.Generator().manual_seed(seed + n + query)
    kept = torch.rand(batch, heads, -(-n // query), -(-n // key), generator=generator) < share
    kept = kept & (torch.rand(batch, heads, kept.shape[2], 1, generator=generator) < 0.8)
    assert kind in ("k", "d", "p")
    return Cells(kept, query, key, kind)


def shuffled(batch: int, heads: int, n: int, within: int) -> Places:
    """A random order inside each whole segment."""
    generator = torch.Generator().manual_seed(n)
    noise = torch.rand(batch, heads, n, generator=generator)
    segment = torch.arange(n) // within
    noise[..., n // within * within :] = torch.arange(n - n // within * within) / n
    key_of = (segment + noise).argsort(-1)
    return Places(key_of.to(torch.int32), key_of.argsort(-1).to(torch.int32))
