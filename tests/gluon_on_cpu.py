"""Runs the text of a Hopper kernel with torch on the CPU: what it computes, not when; loads outside a tensor fail.

The producer runs first, to its end; then each consumer reads what was copied, in the order in which it was.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from weft.codegen.configure import padded
from weft.codegen.forward import Kernel, used_tables
from weft.codegen.launch import Launcher, kernel_source


@dataclass(frozen=True)
class Descriptor:
    """A tensor whose tiles of some rows are copied; what lies past its ends is zero, and never written."""

    tensor: torch.Tensor
    rows: int
    wide: int
    layout: None = None
    block_type: SimpleNamespace = field(default_factory=lambda: SimpleNamespace(nbytes=0))

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def rows_at(self, place: list[Any]) -> tuple[torch.Tensor, int]:
        """The rows of a tile that exist, and which of the tile's rows the first one is."""
        b, h, row, _ = (int(x) for x in place)
        low, high = (min(max(0, x), self.tensor.shape[2]) for x in (row, row + self.rows))
        return self.tensor[b, h, low:high], low - row


@dataclass(frozen=True)
class Pointer:
    """An address in a tensor."""

    tensor: torch.Tensor
    index: Any = 0

    def __add__(self, steps: Any) -> "Pointer":
        return Pointer(self.tensor, self.index + steps)


@dataclass
class Slot:
    """One buffer of shared memory: all that was ever written to it, and how often it was read."""

    writes: list[torch.Tensor] = field(default_factory=list)
    reads: int = 0

    def reshape(self, shape: tuple[int, int]) -> "Block":
        self.reads += 1
        return Block(self.writes[self.reads - 1].reshape(shape), self)


@dataclass(frozen=True)
class Block:
    """What a buffer held when it was read."""

    tensor: torch.Tensor
    slot: Slot

    def permute(self, axes: tuple[int, int]) -> "Block":
        return Block(self.tensor.permute(axes), self.slot)

    def store(self, value: torch.Tensor) -> None:
        self.slot.writes.append(value)


def copy_in(source: Descriptor, place: list[Any], _: Any, slot: Slot) -> None:
    rows, first = source.rows_at(place)
    tile = torch.zeros(source.rows, source.wide, dtype=rows.dtype)
    tile[first : first + len(rows), : rows.shape[1]] = rows
    slot.writes.append(tile)


def copy_out(target: Descriptor, place: list[Any], slot: Slot) -> None:
    rows, first = target.rows_at(place)
    rows.copy_(slot.writes[-1][first : first + len(rows), : rows.shape[1]])


def load(pointer: Pointer, mask: Any = None, other: int = 0) -> torch.Tensor:
    index = torch.as_tensor(pointer.index)
    live = torch.ones_like(index, dtype=torch.bool) if mask is None else torch.as_tensor(mask).expand(index.shape)
    assert ((index >= 0) & (index < pointer.tensor.numel()) | ~live).all(), "a load outside its tensor"
    found = pointer.tensor.flatten()[torch.where(live, index, 0)].long()
    return torch.where(live, found, other)


def store(pointer: Pointer, values: torch.Tensor, mask: torch.Tensor) -> None:
    pointer.tensor.view(-1)[torch.as_tensor(pointer.index)[mask]] = values[mask]


def product(a: Any, b: Block, acc: torch.Tensor, use_acc: bool = True, is_async: bool = False) -> torch.Tensor:
    left = a.tensor if isinstance(a, Block) else a
    return left.float() @ b.tensor.float() + (acc if use_acc else 0.0)


def specialise(partitions: list[tuple[Callable[..., None], tuple[Any, ...]]], *_: Any) -> None:
    """The last partition produces; each of the others reads every tile."""
    *consumers, (produce, passed) = partitions
    slots = [slot for shared in passed if isinstance(shared, Shared) for slot in shared.slots]
    before = [len(slot.writes) for slot in slots]
    produce(*passed)
    copied = [slot for slot, count in zip(slots, before, strict=True) if len(slot.writes) > count]
    for consume, arguments in consumers:
        for slot in copied:
            slot.reads = 0
        consume(*arguments)
        assert all(slot.reads == len(slot.writes) for slot in copied), "a tile that was copied is not read"


@dataclass(frozen=True)
class Shared:
    """Buffers of shared memory."""

    slots: list[Slot]

    def index(self, place: Any) -> Slot:
        return self.slots[int(place)]


def choose(condition: Any, yes: Any, no: Any) -> torch.Tensor:
    return torch.where(torch.as_tensor(condition), torch.as_tensor(yes), torch.as_tensor(no))


def names(program: int) -> dict[str, Any]:
    """What a kernel's module imports, for one program of the grid."""

    def nothing(*_: Any, **__: Any) -> None:
        return None

    def plain(function: Any = None, **_: Any) -> Any:
        return function if function else plain

    tl = SimpleNamespace(
        **{name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "int32", "int64", "exp2", "log")},
        **dict.fromkeys(("NVMMADistributedLayout", "DotOperandLayout", "SliceLayout"), nothing),
        constexpr=None,
        program_id=lambda _: torch.tensor(program),
        cdiv=lambda a, b: -(-a // b),
        minimum=lambda a, b: torch.minimum(torch.as_tensor(a), torch.as_tensor(b)),
        maximum=lambda a, b: torch.maximum(torch.as_tensor(a), torch.as_tensor(b)),
        where=choose,
        load=load,
        store=store,
        arange=lambda low, high, layout: torch.arange(low, high),
        full=lambda shape, value, dtype, _: torch.full(shape, value, dtype=dtype),
        zeros=lambda shape, dtype, _: torch.zeros(shape, dtype=dtype),
        max=lambda x, axis: x.amax(axis),
        sum=lambda x, axis: x.sum(axis),
        convert_layout=lambda x, _: x,
        static_range=range,
        allocate_shared_memory=lambda _, shape, __: Shared([Slot() for _ in range(shape[0])]),
        warp_specialize=specialise,
    )
    barriers = dict.fromkeys(("init", "expect", "wait", "arrive", "MBarrierLayout"), nothing)
    copies = {"async_copy_global_to_shared": copy_in, "async_copy_shared_to_global": copy_out, "store_wait": nothing}
    return {
        "gluon": SimpleNamespace(jit=plain),
        "tl": tl,
        "mbarrier": SimpleNamespace(**barriers),
        "tma": SimpleNamespace(**copies),
        "fence_async_shared": nothing,
        "warpgroup_mma": product,
        "warpgroup_mma_wait": lambda _, deps: deps[0],
    }


@dataclass(frozen=True)
class OnCpu:
    """Stands for the compiled function of a kernel's text."""

    text: str

    def __getitem__(self, grid: tuple[int, int, int]) -> Callable[..., None]:
        tree = ast.parse(self.text)
        tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
        code = compile(tree, "kernel", "exec")

        def run(*arguments: Any, **_: Any) -> None:
            passed = [argument(x) for x in arguments]
            for program in range(grid[0]):
                module = names(program)
                exec(code, module)
                module["forward"](*passed)

        return run


def argument(x: Any) -> Any:
    """Tensors are addresses, integers are numbers of the kernel."""
    match x:
        case torch.Tensor():
            return Pointer(x)
        case int():
            return torch.tensor(x)
        case _:
            return x


def launcher_on_cpu(kernel: Kernel) -> Launcher:
    """A launcher whose kernel runs here."""
    rows = (kernel.config.block_m // 2, kernel.config.block_n, kernel.config.block_n, kernel.config.block_m // 2)
    describe = tuple(lambda x, r=r: Descriptor(x, r, padded(kernel.head_dim)) for r in rows)
    return Launcher(kernel, OnCpu(kernel_source(kernel)), {}, used_tables(kernel.plan), describe, {})
