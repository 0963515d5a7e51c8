"""One attention call: check the tensors, choose the back end, find the tiles, run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .capture import capturing, require_made, require_no_inputs
from .compiler.ir import Mask
from .compiler.plan import Plan, Shape
from .tensors import TensorError, check_tensors, host_inputs, require_tensors

if TYPE_CHECKING:
    import torch

    from .pattern import Pattern

MOST_LISTS = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """What calls with the same lengths and inputs share. `alive` keeps what the key names by identity."""

    lists: Any
    tables: Any
    alive: tuple[Any, ...]
    # Key tiles a query tile visits, on average; 0 where loops say it.
    density: float = 0.0
    # Whether the inputs are tensors, whose changes show.
    lasting: bool = True
    # The device and the stream that lists and tables were made on.
    made_on: tuple[int, int] | None = None

    def claim(self, current: int | None = None) -> None:
        """Keep the memory of lists and tables from new uses while the current stream, if another, still reads them."""
        if self.made_on is None or self.made_on[1] == (_stream(self.made_on[0]) if current is None else current):
            return
        import torch

        stream = torch.cuda.current_stream(self.made_on[0])
        lists = (self.lists.start, self.lists.split, self.lists.tiles) if self.lists is not None else ()
        for tensor in (*lists, *self.tables.values()):
            tensor.record_stream(stream)


def _stream(device: int) -> int:
    """The current stream's address; torch's own stream objects take longer to make than a launch may wait."""
    from triton.runtime import driver

    return cast("Any", driver.active).get_current_stream(device)


_prepared: OrderedDict[tuple[Any, ...], Prepared] = OrderedDict()
_lock = Lock()


def attention(
    pattern: Pattern,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None,
    backend: str,
    layer: int,
    layers: int,
    tf32: bool,
    inputs: Mapping[str, Any],
    sums: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The output and, where it is asked for by `sums`, the log-sum-exp of one call."""
    import torch

    require_tensors(pattern, (q, k, v))
    signature = _signature(q, k, v, backend, layer, layers, tf32, inputs)
    if inputs and not pattern.dynamic and capturing(q.device):
        require_no_inputs(pattern, inputs)
    if again := _again(pattern, signature, q, k, v, scale):
        return again
    check_tensors(pattern, q, k, v)
    chosen = choose_backend(pattern, q, backend)
    batch, heads, m, head_dim = q.shape
    kv_heads, n = k.shape[1], k.shape[2]
    factor = head_dim**-0.5 if scale is None else float(scale)
    if pattern.dynamic and q.numel() and k.numel():
        from .selection import attention_by_selection

        return attention_by_selection(pattern, q, k, v, factor, chosen, (layer, layers), tf32, inputs, sums)
    mask = pattern.program(heads, kv_heads, layer, layers).limits if pattern.dynamic else None
    mask = mask or pattern.bind(heads, kv_heads, layer, layers)
    if not q.numel() or not k.numel():
        if not pattern.dynamic:
            host_inputs(pattern, mask, inputs, n, m, heads, batch)
        exact = torch.float64 if q.dtype == torch.float64 else torch.float32
        lse = torch.full((batch, heads, m), float("-inf"), dtype=exact, device=q.device)
        return torch.zeros_like(q), lse
    if factor <= 0:
        # The kernels take the largest score before scaling, which needs a positive scale.
        q, factor, signature = q * (-1.0 if factor < 0 else 0.0), -factor or 1.0, None
    match chosen:
        case "reference":
            return _reference(pattern, mask, q, k, v, factor, inputs)
        case "cpu":
            return _cpu(pattern, q, k, v, factor, (layer, layers), inputs)
        case _:
            return _kernel(pattern, q, k, v, factor, (layer, layers), chosen, tf32, inputs, signature)


Signature = tuple[object, ...]


def _signature(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    backend: str,
    layer: int,
    layers: int,
    tf32: bool,
    inputs: Mapping[str, Any],
) -> Signature:
    """All that a call's checks, kernel and lists depend on, but for the alignment of its tensors."""
    tensors = tuple((x.shape, x.stride(), x.dtype, x.device) for x in (q, k, v))
    # Inference tensors have no version to ask for.
    return (*tensors, backend, layer, layers, tf32, tuple((name, _mark(x)) for name, x in inputs.items()))


def _mark(x: Any) -> Hashable:
    """What tells whether an input changed: its contents on the host, where anyone may write, identity and version on
    a device; None where nothing does."""
    if not hasattr(x, "is_inference"):
        return None
    if x.device.type == "cpu":
        return ("host", x.dtype, x.shape, x.detach().contiguous().numpy().tobytes())
    return None if x.is_inference() else (id(x), x._version)


def _again(
    pattern: Pattern,
    signature: Signature,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float | None,
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """The call's result when one just like it came before: a training step must not wait for Python."""
    import torch

    known = pattern.calls.get(signature)
    if known is None or (scale is not None and scale <= 0) or (q.data_ptr() | k.data_ptr() | v.data_ptr()) % 16:
        return None
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        return None
    repeat, made = known
    stream = _stream(repeat.device)
    if capturing(q.device):
        pattern.hold(made)
    made.claim(stream)
    factor = q.shape[3] ** -0.5 if scale is None else float(scale)
    return repeat.run(q, k, v, factor, stream)


def choose_backend(pattern: Pattern, q: torch.Tensor, backend: str) -> str:
    """The back end to use; one asked for by name is used or refused, never replaced."""
    import torch

    known = ("auto", "triton", "hopper", "cpu", "reference")
    if backend not in known:
        raise ValueError(f"pattern `{pattern.name}`: unknown backend {backend!r}, known: {', '.join(known)}")
    if backend == "auto":
        return "gpu" if q.device.type == "cuda" and q.dtype != torch.float64 else _fallback(pattern, q)
    if backend == "cpu" and q.device.type != "cpu":
        raise TensorError(f"pattern `{pattern.name}`: backend 'cpu' got tensors on {q.device}")
    if backend == "hopper" and q.device.type != "cuda":
        raise TensorError(f"pattern `{pattern.name}`: backend 'hopper' got tensors on {q.device}")
    if backend == "triton":
        from triton import knobs

        if q.device.type == "cpu" and not knobs.runtime.interpret:
            hint = "set TRITON_INTERPRET=1 before importing triton to run it in the interpreter"
            raise TensorError(f"pattern `{pattern.name}`: backend 'triton' got tensors on the CPU; {hint}")
        if q.dtype == torch.float64:
            raise TensorError(f"pattern `{pattern.name}`: backend 'triton' has no float64")
    return backend


def _fallback(pattern: Pattern, q: torch.Tensor) -> str:
    if q.device.type == "cpu":
        return "cpu"
    raise TensorError(f"pattern `{pattern.name}`: no kernel for {q.dtype} on {q.device}; ask for 'reference' by name")


def _reference(
    pattern: Pattern,
    mask: Mask,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    inputs: Mapping[str, Any],
) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    from .codegen.reference import attend_dense
    from .compiler.dense import dense_mask

    batch, heads, m, _ = q.shape
    n = k.shape[2]
    arrays = host_inputs(pattern, mask, inputs, n, m, heads, batch)
    full = Shape(n == m, heads, k.shape[1])
    if any(a.ndim == 2 for a in arrays.values()):
        rows = [{name: a[b] if a.ndim == 2 else a for name, a in arrays.items()} for b in range(batch)]
        masks = [dense_mask(mask, n, m, full, row) for row in rows]
        kept = np.stack([x if x.ndim == 3 else x[None] for x in masks])
    else:
        kept = dense_mask(mask, n, m, full, arrays)
    return attend_dense(q, k, v, torch.from_numpy(kept).to(q.device), scale)


def prepared(
    pattern: Pattern,
    plan: Plan,
    n: int,
    m: int,
    heads: int,
    batch: int,
    device: torch.device,
    inputs: Mapping[str, Any],
    kernel: bool,
) -> Prepared:
    """Tile lists and tables, remembered for the same plan, lengths and unchanged inputs."""
    marks = {name: _mark(x) for name, x in inputs.items()}
    lasting = None not in marks.values()
    key = (id(plan), n, m, batch, kernel, device, *marks.items())
    with _lock:
        if lasting and key in _prepared:
            _prepared.move_to_end(key)
            return _prepared[key]
    require_made(pattern, not capturing(device))
    made = _prepare(pattern, plan, n, m, heads, batch, device, inputs, kernel)
    if not lasting:
        made = replace(made, lasting=False)
    else:
        with _lock:
            _prepared[key] = made
            while len(_prepared) > MOST_LISTS:
                _prepared.popitem(last=False)
    return made


def _prepare(
    pattern: Pattern,
    plan: Plan,
    n: int,
    m: int,
    heads: int,
    batch: int,
    device: torch.device,
    inputs: Mapping[str, Any],
    kernel: bool,
) -> Prepared:
    import torch

    from .codegen.launch import upload
    from .codegen.tables import gather, tile_lists

    tables = gather(plan, host_inputs(pattern, plan.mask, inputs, n, m, heads, batch), n, m)
    rows = range(batch) if tables.batched else range(1)
    alive = (plan, *inputs.values())
    if not kernel:
        lists: Any = [tile_lists(plan, tables.of(b), n, m, device) for b in rows]
        arrays: Any = [{name: torch.from_numpy(a) for name, a in tables.of(b).items()} for b in rows]
        return Prepared(lists, arrays, alive)
    arrays = {name: torch.from_numpy(narrow(a)).to(device) for name, a in tables.arrays.items()}
    made_on = (device.index, _stream(device.index)) if device.type == "cuda" else None
    if plan.strategy == "run":
        return Prepared(None, arrays, alive, made_on=made_on)
    found = [tile_lists(plan, tables.of(b), n, m, device) for b in rows]
    density = sum(len(one.tiles) for one in found) / max(1, sum(len(one.split) for one in found))
    return Prepared(upload(found, device), arrays, alive, density, made_on=made_on)


def narrow(array: np.ndarray) -> np.ndarray:
    """A table in 32 bits where it fits; inputs always do, constants of a file need not."""
    fits = not array.size or (array.min() >= -(2**31) and array.max() < 2**31)
    return array.astype(np.int32 if fits else np.int64)


def _cpu(
    pattern: Pattern,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    layers: tuple[int, int],
    inputs: Mapping[str, Any],
) -> tuple[torch.Tensor, torch.Tensor]:
    from .codegen.cpu import CPU_TILING, attend_cpu
    from .compiler.pipeline import make_plan

    heads, kv_heads, m, n = q.shape[1], k.shape[1], q.shape[2], k.shape[2]
    shape = pattern.shape(n, m, heads, kv_heads, *layers)

    def make() -> Plan:
        return make_plan(pattern.bind(heads, kv_heads, *layers), shape, CPU_TILING)

    plan = pattern.remember(("cpu", heads, kv_heads, shape, *layers), make)
    made = prepared(pattern, plan, n, m, heads, q.shape[0], q.device, inputs, False)
    return attend_cpu(plan, made.lists, made.tables, q, k, v, scale)


def _kernel(
    pattern: Pattern,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    layers: tuple[int, int],
    backend: str,
    tf32: bool,
    inputs: Mapping[str, Any],
    signature: Signature | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    from .codegen.choose import FEW_TILES, Case, kernel_for
    from .codegen.configure import suits_hopper
    from .codegen.launch import DTYPES, architecture, describable, launcher

    if not q.stride(-1) == k.stride(-1) == v.stride(-1) == 1:
        q, k, v, signature = q.contiguous(), k.contiguous(), v.contiguous(), None
    arch = architecture(q.device)
    dtype = DTYPES[q.dtype]
    batch, heads, m, head_dim = q.shape
    kv_heads, n = k.shape[1], k.shape[2]
    tma = arch >= 90 and head_dim * q.element_size() % 16 == 0 and describable(q, k, v)
    if backend == "hopper" and not suits_hopper(arch, dtype, head_dim, m, tma):
        why = "it needs compute capability 9.0, a 16-bit dtype, head_dim 33 to 128, over 64 queries, 16-byte strides"
        raise TensorError(f"pattern `{pattern.name}`: backend 'hopper' cannot run q {list(q.shape)}: {why}")
    flat = tuple(name for name, x in inputs.items() if (x.ndim if hasattr(x, "ndim") else np.ndim(x)) == 2)
    shape = pattern.shape(n, m, heads, kv_heads, *layers)

    def make(specialised: bool) -> Any:
        mask = pattern.bind(heads, kv_heads, *layers)
        batched = tuple(t.name for t in mask.tables if t.source in flat)
        case = Case(dtype, head_dim, arch, tma, specialised, tf32, batched)
        return launcher(kernel_for(mask, shape, case, (n, m), backend == "hopper"))

    lengths = ((max(n, m) - 1).bit_length(), min(m, 128))
    key = (backend, heads, kv_heads, shape, *lengths, head_dim, dtype, arch, tma, tf32, flat)
    launch = pattern.remember((*key, *layers), lambda: make(backend != "triton"))
    made = prepared(pattern, launch.kernel.plan, n, m, heads, batch, q.device, inputs, True)
    searched = launch.kernel.config.hopper and launch.kernel.plan.strategy == "table"
    if backend == "gpu" and searched and made.density < FEW_TILES:
        launch = pattern.remember(("plain", *key, *layers), lambda: make(False))
        made = prepared(pattern, launch.kernel.plan, n, m, heads, batch, q.device, inputs, True)
    if capturing(q.device):
        pattern.hold(made)
    made.claim()
    out, lse = launch.run(q, k, v, scale, made.lists, made.tables)
    if signature is not None and made.lasting and (again := launch.repeat(q, k, v, out, made.lists, made.tables)):
        pattern.calls[signature] = (again, made)
        while len(pattern.calls) > MOST_LISTS:
            pattern.calls.pop(next(iter(list(pattern.calls))), None)  # a list: another thread may add meanwhile
    return out, lse
