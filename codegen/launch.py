"""Running a generated kernel: pick its configuration, build its arguments, launch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import torch

from ..compiler.expand import TileLists
from .cache import store
from .configure import Dtype, padded
from .forward import Kernel, emit, used_tables
from .hopper import emit_hopper
from .repeat import LOG2E, Repeat

DTYPES: dict[torch.dtype, Dtype] = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}


@dataclass(frozen=True, slots=True)
class Columns:
    """Keys listed one by one, rising: those from `first` to before `end`, [B, H, query tiles], are a query tile's."""

    first: torch.Tensor
    end: torch.Tensor
    keys: torch.Tensor


@dataclass(frozen=True, slots=True)
class DeviceLists:
    """Tile lists of every batch element on the device; `step` is 0 when all share one.

    `off` is the position of the first query, which kernels of bands are told.
    """

    start: torch.Tensor
    split: torch.Tensor
    tiles: torch.Tensor
    step: int
    columns: Columns | None = None
    # The key at each place of an order, [B, H, n].
    key_of: torch.Tensor | None = None
    off: int = 0


@lru_cache(maxsize=512)
def build(kernel: Kernel) -> Any:
    """The compiled-on-first-call function of a kernel."""
    return store(kernel_source(kernel), kernel.plan.mask.name).forward


def kernel_source(kernel: Kernel) -> str:
    """The text of a kernel's module."""
    return emit_hopper(kernel) if kernel.config.hopper else emit(kernel)


def launch_options(kernel: Kernel) -> dict[str, int]:
    """Triton's options for a kernel; the specialised one gives registers from its producer to its consumers."""
    options = {"num_warps": kernel.config.warps, "num_stages": kernel.config.stages}
    return options | {"maxnreg": 168} if kernel.config.hopper else options


def architecture(device: torch.device) -> int:
    """Compute capability as a number (90 for sm_90); 0 where there is none."""
    if device.type != "cuda" or torch.version.hip:
        return 0
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def describable(*tensors: torch.Tensor) -> bool:
    """Whether the copy engine can address the tensors: rows dense, 16-byte steps and start."""
    for x in tensors:
        steps = [s * x.element_size() for s, size in zip(x.stride()[:-1], x.shape[:-1], strict=True) if size > 1]
        if x.stride(-1) != 1 or x.data_ptr() % 16 or any(s % 16 or s <= 0 for s in steps):
            return False
    return True


def aligned(arguments: Sequence[Any]) -> bool:
    """Whether every tensor starts where the machine code for most calls needs it to."""
    return all(x.data_ptr() % 16 == 0 for x in arguments if isinstance(x, torch.Tensor))


def upload(lists: list[TileLists], device: torch.device) -> DeviceLists:
    """Lists of all batch elements behind each other; one spare tile at the end may be read, never used."""
    starts: list[torch.Tensor] = []
    splits: list[torch.Tensor] = []
    tiles: list[torch.Tensor] = []
    offset = 0
    for one in lists:
        starts.append(torch.from_numpy(one.start) + offset)
        splits.append(torch.nn.functional.pad(torch.from_numpy(one.split) + offset, (0, 1)))
        tiles.append(torch.from_numpy(one.tiles))
        offset += len(one.tiles)
    tiles.append(torch.zeros(1, dtype=torch.int32, device="cpu"))
    step = len(starts[0]) if len(lists) > 1 else 0
    start, split, flat = (torch.cat(part).to(torch.int32).to(device) for part in (starts, splits, tiles))
    return DeviceLists(start, split, flat, step)


@dataclass(frozen=True, slots=True)
class Launcher:
    """A kernel with all that its launches share. `compiled` holds machine code by device, once it is there."""

    kernel: Kernel
    function: Any
    options: dict[str, int]
    tables: tuple[str, ...]
    describe: tuple[Callable[[torch.Tensor], Any], ...]
    compiled: dict[int, Any]

    def run(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float,
        lists: DeviceLists | None,
        tables: Mapping[str, torch.Tensor],
        out: torch.Tensor | None = None,
        lse: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Launch on q `[B, H, m, D]`, k and v `[B, G, n, D]`; returns the output and the log-sum-exp `[B, H, m]`.

        They go to `out`, of q's shape and type and with any strides, and to `lse`, contiguous, where these are given.
        """
        batch, heads, m, _ = q.shape
        fits = out is not None and out.stride(-1) == 1 and (not self.kernel.config.tma or describable(out))
        place = out if out is not None and fits else torch.empty(q.shape, dtype=q.dtype, device=q.device)
        if lse is None:
            lse = torch.empty(batch, heads, m, dtype=torch.float32, device=q.device)
        assert place.shape == q.shape and place.dtype == q.dtype and lse.shape == q.shape[:3] and lse.is_contiguous()
        arguments = arguments_for(self, q, k, v, place, lse, scale, lists, tables)
        grid = (programs(self.kernel, batch, heads, m), 1, 1)
        if q.device.type != "cuda":
            self.function[grid](*arguments, **self.options)
        else:
            with torch.cuda.device(q.device) if q.device.index != torch.cuda.current_device() else nullcontext():
                self._launch(q.device.index, grid, arguments)
        return place if out is None or place is out else out.copy_(place), lse

    def _launch(self, device: int, grid: tuple[int, int, int], arguments: list[Any]) -> None:
        """Descriptors, and integers that are never specialised on, leave one specialisation for aligned pointers: the
        next call may skip the search for it. Strides of the pointer kernels are specialised on."""
        steady = self.kernel.config.tma and aligned(arguments)
        compiled = self.compiled.get(device) if steady else None
        if compiled is not None:
            compiled[grid](*arguments)
            return
        compiled = self.function[grid](*arguments, **self.options)
        if steady and compiled is not None:
            self.compiled[device] = compiled

    def repeat(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        out: torch.Tensor,
        lists: DeviceLists | None,
        tables: Mapping[str, torch.Tensor],
    ) -> Repeat | None:
        """Launches like one that was on these tensors, with all done but the addresses; None before the first."""
        compiled = self.compiled.get(q.device.index) if q.device.type == "cuda" else None
        fixed = _fixed_arguments(self, q, k, lists, tables)
        if compiled is None or not (aligned(fixed) and out.is_contiguous()):
            return None
        batch, heads, m, _ = q.shape
        extents = tuple((list(x.shape), _steps(x)) for x in (q, k, v, out))
        grid = (programs(self.kernel, batch, heads, m), 1, 1)
        return Repeat(compiled, q.device.index, grid, extents, (batch, heads, m), tuple(fixed))


def programs(kernel: Kernel, batch: int, heads: int, m: int) -> int:
    """How many query tiles there are."""
    pack = kernel.config.pack
    return -(-m * pack // kernel.config.block_m) * batch * (heads // pack)


@lru_cache(maxsize=512)
def launcher(kernel: Kernel) -> Launcher:
    """The launcher of a kernel; generates and imports its module."""
    return Launcher(
        kernel, build(kernel), launch_options(kernel), used_tables(kernel.plan), tuple(_describers(kernel)), {}
    )


def arguments_for(
    launch: Launcher,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,
    scale: float,
    lists: DeviceLists | None,
    tables: Mapping[str, torch.Tensor],
) -> list[Any]:
    """The kernel's arguments, in the order of `argument_names`."""
    arguments: list[Any] = []
    for x, describe in zip((q, k, v, out), launch.describe, strict=False):
        arguments.append(describe(x))
    if not launch.kernel.config.tma:
        arguments = [a for x in (q, k, v, out) for a in (x, x.stride(0), x.stride(1), x.stride(2))]
    return [*arguments, lse, *_fixed_arguments(launch, q, k, lists, tables), scale * LOG2E]


def _fixed_arguments(
    launch: Launcher,
    q: torch.Tensor,
    k: torch.Tensor,
    lists: DeviceLists | None,
    tables: Mapping[str, torch.Tensor],
) -> list[Any]:
    """The arguments between the tensors and the scale: the same for all calls of a shape and its lists."""
    batch, heads, m, _ = q.shape
    arguments: list[Any] = []
    plan, n = launch.kernel.plan, k.shape[2]
    if lists is not None and plan.strategy != "run":
        arguments += [lists.start, lists.split, lists.tiles, lists.step]
        if lists.columns is not None:
            arguments += [lists.columns.first, lists.columns.end, lists.columns.keys]
        if lists.key_of is not None:
            arguments.append(lists.key_of)
    for name in launch.tables:
        table = tables[name]
        arguments += [table, table.shape[-1], table.stride(0) if table.ndim == 2 else 0]
    heads //= launch.kernel.config.pack
    band: list[int] = []
    if plan.band:
        assert lists is not None and lists.off + m <= n
        band = [lists.off]
    return [*arguments, n, m, *band, heads, heads // k.shape[1], batch * heads]


def _describers(kernel: Kernel) -> Iterator[Callable[[torch.Tensor], Any]]:
    """For q, k, v and the output: the function that makes a tensor's descriptor; none for pointer kernels."""
    if not kernel.config.tma:
        return
    from triton.experimental.gluon.language import NVMMASharedLayout, bfloat16, float16
    from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor
    from triton.tools.tensor_descriptor import TensorDescriptor

    rows = kernel.config.block_m // 2 if kernel.config.hopper else kernel.config.block_m
    for height in (rows, kernel.config.block_n, kernel.config.block_n, rows):
        block = [1, 1, height, padded(kernel.head_dim)]
        if kernel.config.hopper:
            element = float16 if kernel.dtype == "fp16" else bfloat16
            layout = cast("NVMMASharedLayout", NVMMASharedLayout.get_default_for(block, element))
            yield lambda x, b=block, s=layout: GluonDescriptor(x, list(x.shape), _steps(x), b, s)
        else:
            yield lambda x, b=block: TensorDescriptor(x, list(x.shape), _steps(x), b)


def _steps(x: torch.Tensor) -> list[int]:
    """Strides; those of axes of length 1 are never used, and may be anything but unaligned."""
    return [
        64 if size == 1 and axis < 3 else step
        for axis, (size, step) in enumerate(zip(x.shape, x.stride(), strict=True))
    ]
