"""Attention computed band by band: some tiles by loops in closed form, others listed, beside the exact mask."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch

import weft
from tests.brute import Bools
from tests.oracle import NAN, assert_close, guarded
from weft.codegen.configure import Config
from weft.codegen.cpu import Listed, attend_listed
from weft.codegen.forward import Kernel
from weft.codegen.launch import DTYPES, DeviceLists, Launcher, launcher, upload
from weft.codegen.tables import gather
from weft.compiler.dense import dense_mask
from weft.compiler.expand import TileLists, pack
from weft.compiler.ir import Compare, Mask, Not, Var, conjunction
from weft.compiler.pipeline import make_plan
from weft.compiler.plan import Plan, Region, Shape, Tiling
from weft.compiler.verify import verify

# Computes the queries from `off` on into the two tensors.
Band = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True, slots=True)
class Case:
    """Pairs that loops visit, pairs that lists add, and the sizes of a call; `pack` heads share a tile."""

    looped: str
    listed: str = ""
    n: int = 257
    heads: int = 2
    groups: int = 1
    head_dim: int = 64
    dtype: torch.dtype = torch.float32
    tiling: Tiling = Tiling(32, 32)
    pack: int = 1
    batch: int = 1

    @property
    def shape(self) -> Shape:
        return Shape(False, self.heads // self.pack, self.groups)

    @property
    def masks(self) -> list[Mask]:
        texts = (text for text in (self.looped, self.listed) if text)
        return [weft.load(f"pattern p{text}").bind(self.shape.heads, self.groups) for text in texts]

    def plan(self) -> Plan:
        loops, *lists = self.masks
        plan = make_plan(loops, self.shape, self.tiling)
        assert plan.strategy == "run"
        for mask in lists:
            there = Compare("<", Var("k"), Var("n"))
            apart = Region((), conjunction((mask.formula, Not(plan.formula), there)))
            plan = replace(plan, strategy="table", regions=(*plan.regions, apart), per_head=True)
        plan = replace(plan, band=True)
        verify(plan, "test")
        return plan

    def lists(self, off: int, m: int) -> TileLists | None:
        """The tiles of the pairs that loops leave out, found pair by pair."""
        if not self.listed:
            return None
        loops, listed = dense(self)
        apart = (listed & ~loops)[:, off : off + m]
        block_m, block_n = self.tiling.block_m, self.tiling.block_n
        found = list[tuple[int, bool, int]]()
        rows = -(-m // block_m)
        for row in range(self.shape.heads * rows):
            h, i = divmod(row, rows)
            for j in range(-(-self.n // block_n)):
                tile = apart[h, i * block_m : (i + 1) * block_m, j * block_n : (j + 1) * block_n]
                if tile.any():
                    found.append((row, not tile.all() or tile.shape[1] < block_n, j))
        row, partial, tile = (np.array([one[axis] for one in sorted(found)], dtype=np.int64) for axis in range(3))
        return pack(row, tile, partial == 0, self.shape.heads * rows)

    def check_kernel(
        self,
        plan: Plan,
        cuts: Sequence[int],
        config: Config,
        device: str = "cpu",
        shift: int = 0,
        launch: Callable[[Kernel], Launcher] = launcher,
    ) -> None:
        """Attention by a kernel of a plan; `shift` moves where it believes bands to begin."""
        config = replace(config, block_m=self.tiling.block_m * self.pack, block_n=self.tiling.block_n, pack=self.pack)
        run = launch(Kernel(plan, config, DTYPES[self.dtype], self.head_dim)).run
        arrays = gather(plan, {}, self.n, self.n).arrays
        tables = {name: torch.from_numpy(x).int().to(device) for name, x in arrays.items()}
        _, k, v = self.tensors(device)

        def band(off: int, q: torch.Tensor, out: torch.Tensor, lse: torch.Tensor) -> None:
            found = self.lists(off, q.shape[2])
            lists = upload([found] * self.batch, torch.device(device)) if found else band_from(off)
            results = run(q, k, v, self.head_dim**-0.5, replace(lists, off=off + shift), tables, out, lse)
            assert results[0] is out and results[1] is lse

        self.check(cuts, band, device)

    def check_cpu(self, plan: Plan, cuts: Sequence[int], shift: int = 0) -> None:
        """Attention on the CPU."""
        tables = {name: torch.from_numpy(x) for name, x in gather(plan, {}, self.n, self.n).arrays.items()}
        _, k, v = self.tensors("cpu")

        def band(off: int, q: torch.Tensor, out: torch.Tensor, lse: torch.Tensor) -> None:
            lists = [Listed(self.lists(off, q.shape[2]), off=off + shift)]
            attend_listed(plan, lists, [tables], q, k, v, self.head_dim**-0.5, out, lse)

        self.check(cuts, band, "cpu")

    def check(self, cuts: Sequence[int], band: Band, device: str) -> None:
        """All bands together are attention under the exact mask; none writes to rows of the next ones."""
        q, k, v = self.tensors(device)
        out, sums = guarded(torch.full_like(q, NAN)), torch.empty(q.shape[:3], device=device)
        for off, stop in spans(cuts, self.n):
            lse = torch.full((*q.shape[:2], stop - off), NAN, device=device)
            band(off, q[:, :, off:stop], out[:, :, off:stop], lse)
            assert out[:, :, stop:].isnan().all() and not out[:, :, :stop].isnan().any()
            sums[:, :, off:stop] = lse
        kept = np.logical_or.reduce(dense(self)).repeat(self.pack, 0)
        assert_close((out, sums), q, k, v, kept)

    def tensors(self, device: str) -> tuple[torch.Tensor, ...]:
        generator = torch.Generator().manual_seed(self.n)
        sizes = ((self.batch, h, self.n, self.head_dim) for h in (self.heads, self.groups, self.groups))
        return tuple(guarded(torch.randn(size, generator=generator).to(self.dtype)).to(device) for size in sizes)


@lru_cache(maxsize=2)
def dense(case: Case) -> list[Bools]:
    """What loops visit and what lists add, [kernel's heads, n, n] each."""
    n, shape = case.n, case.shape
    return [np.broadcast_to(dense_mask(mask, n, n, shape, {}), (shape.heads, n, n)) for mask in case.masks]


def spans(cuts: Sequence[int], n: int) -> Iterator[tuple[int, int]]:
    """Bands between the cuts that lie inside n tokens."""
    inside = [0, *(cut for cut in cuts if 0 < cut < n), n]
    return pairwise(inside)


def band_from(off: int) -> DeviceLists:
    """What a band's kernel that reads no lists is told."""
    nothing = torch.empty(0, dtype=torch.int32, device="cpu")
    return DeviceLists(nothing, nothing, nothing, 0, off=off)
