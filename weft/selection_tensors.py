"""Which tensors a report on a dynamic pattern looks at: made up with needles and local structure, or from a file."""

from __future__ import annotations

import math
from argparse import Namespace
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from .check import table_heads
from .compiler.program_bounds import without_orders
from .compiler.selection import Slice
from .compiler.terms import within
from .inputs import made_up as made_up_integers
from .inputs import numbers
from .tensors import TensorError, check_tensors
from .terminal import UsageError, reason, require_readable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .compiler.selection import Axis, Program
    from .pattern import Pattern

HEADS, HEAD_DIM, GATE_DIM = 2, 32, 8
DOCUMENTS = 3
# What made-up scores are, scaled, beyond noise of variance one: of a needle, and of a neighbour; and how far those are.
NEEDLE, NEAR, REACH = 12.0, 5.0, 48.0
NEEDLES, NEEDLE_TOKENS = 3, 2
# One in so many queries after a needle looks for it.
SEEKING = 4


@dataclass(frozen=True, slots=True)
class Tensors:
    """One call: q `[B, H, m, D]`, k and v `[B, G, n, D]`, inputs by name, and where they are from."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    inputs: Mapping[str, torch.Tensor]
    source: str

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.q.shape[1]

    @property
    def kv_heads(self) -> int:
        """Key/value heads."""
        return self.k.shape[1]

    @property
    def n(self) -> int:
        """Key tokens."""
        return self.k.shape[2]

    @property
    def scale(self) -> float:
        """The softmax scale."""
        return self.q.shape[3] ** -0.5

    def to(self, dtype: torch.dtype, device: str = "cpu") -> Tensors:
        """The same numbers in another type or place."""
        q, k, v = (x.to(device, dtype) for x in (self.q, self.k, self.v))
        inputs = {name: x.to(device, dtype if x.is_floating_point() else x.dtype) for name, x in self.inputs.items()}
        return Tensors(q, k, v, inputs, self.source)


def made_up(
    pattern: Pattern,
    n: int,
    heads: int = HEADS,
    kv_heads: int | None = None,
    head_dim: int = HEAD_DIM,
    seed: int = 0,
    docs: int = DOCUMENTS,
) -> Tensors:
    """Noise; near tokens score high; and by key/value head a few needles, keys that some later queries look for."""
    groups = kv_heads or heads
    if heads % groups:
        raise UsageError(f"{heads} heads are not a multiple of {groups} key/value heads")
    random = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    q, k, v = (noise(1, count, n, head_dim) for count in (heads, groups, groups))
    near = _nearness(n, noise(-(-head_dim // 2)), head_dim)
    k += near
    q += near
    for needle in range(NEEDLES):
        first = n * (2 * needle + 1) // (2 * NEEDLES + 1)
        rows = noise(groups, head_dim)
        rows *= math.sqrt(NEEDLE * math.sqrt(head_dim)) / rows.norm(dim=-1, keepdim=True)
        k[0, :, first : first + NEEDLE_TOKENS] += rows[:, None]
        seeking = torch.rand(heads, n, generator=random) * SEEKING < 1
        seeking[:, :first] = False
        q[0] += seeking[..., None] * rows.repeat_interleave(heads // groups, 0)[:, None]
    program = pattern.program(heads, groups)
    inputs = _made_up_inputs(program, n, heads, random)
    integers = made_up_integers(without_orders(program), n, n, heads, docs)
    inputs |= {name: torch.from_numpy(array) for name, array in integers.items()}
    return Tensors(q, k, v, inputs, f"tensors made up, seed {seed}")


def _nearness(n: int, speeds: torch.Tensor, head_dim: int) -> torch.Tensor:
    """Rows `[n, D]` whose products fall with the distance: a Gaussian's random Fourier features."""
    turn = torch.arange(n, dtype=torch.float64)[:, None] * speeds / REACH
    rows = torch.cat([turn.cos(), turn.sin()], -1)[:, :head_dim]
    return rows * math.sqrt(NEAR * math.sqrt(head_dim) * 2 / head_dim)


def cell_counts(axes: tuple[Axis, ...], n: int) -> dict[str, int]:
    """How many cells each axis has."""
    return {a.name: a.count or (min(a.last, n) if a.last else -(-n // a.size)) for a in axes} | {"q": n, "k": n}


def _made_up_inputs(program: Program, n: int, heads: int, random: torch.Generator) -> dict[str, torch.Tensor]:
    counts = cell_counts(program.axes, n)
    out: dict[str, torch.Tensor] = {}
    for given in program.givens:
        shape = [counts[axis] for axis in given.axes] + ([GATE_DIM] if given.vector else [])
        out[given.name] = torch.randn(1, heads, *shape, generator=random, dtype=torch.float64)
    return out


def from_file(pattern: Pattern, path: str) -> Tensors:
    """The tensors of a safetensors file, `q`, `k` and `v` and what the pattern reads; raises UsageError."""
    found, shapes = _read(path, {"q", "k", "v", *pattern.inputs})
    if missing := [name for name in ("q", "k", "v") if name not in found]:
        raise UsageError(f"{path} has no tensor `{missing[0]}`; it has {shapes or 'none'}")
    q, k, v = (found.pop(name) for name in ("q", "k", "v"))
    single = q.ndim == 3
    if single:
        q, k, v = q[None], (k[None] if k.ndim == 3 else k), (v[None] if v.ndim == 3 else v)
    try:
        check_tensors(pattern, q, k, v)
        if not q.numel() or not k.numel():
            raise TensorError(f"pattern `{pattern.name}`: there are no tokens or no heads")
        program = pattern.program(q.shape[1], k.shape[1])
    except TensorError as error:
        raise UsageError(f"{path}: {error}; the file has {shapes}") from None
    inputs: dict[str, torch.Tensor] = {}
    for given in program.givens:
        if given.name in found:
            x = found[given.name]
            inputs[given.name] = x[None] if single and x.ndim == 1 + len(given.axes) + given.vector else x
    read = {table.source for table in without_orders(program).tables if table.source}
    return Tensors(q, k, v, inputs | {name: found[name] for name in read if name in found}, path)


def _read(path: str, wanted: set[str]) -> tuple[dict[str, torch.Tensor], str]:
    """The wanted tensors of a file, and the shapes of all."""
    require_readable(path)
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise UsageError("--qkv needs the safetensors package: pip install safetensors") from None
    try:
        with safe_open(path, framework="pt") as file:
            names: list[str] = sorted(file.keys())
            shapes = ", ".join(f"{name} {file.get_slice(name).get_shape()}" for name in names)
            return {name: file.get_tensor(name) for name in names if name in wanted}, shapes
    except SafetensorError as error:
        raise UsageError(f"{path} is no safetensors file: {error}") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason(error)}") from None


def heads_of(pattern: Pattern, arguments: Namespace) -> int:
    """How many heads are made up for a command line."""
    return arguments.heads or table_heads(pattern.definition.parameters, pattern.given) or HEADS


def from_arguments(pattern: Pattern, arguments: Namespace, n: int) -> Tensors:
    """The tensors that a command line means: those of --qkv, or made up for n tokens; raises UsageError."""
    given = {name: torch.from_numpy(numbers(name, text)) for name, text in getattr(arguments, "input", ())}
    if arguments.qkv:
        found = from_file(pattern, arguments.qkv)
    else:
        heads = heads_of(pattern, arguments)
        docs = getattr(arguments, "docs", None) or DOCUMENTS
        scores = pattern.program(heads, heads).scores
        widest = [part.last for score in scores for part in within(score.value) if isinstance(part, Slice)]
        head_dim = arguments.head_dim or max(HEAD_DIM, *widest, 0)
        sizes = (arguments.kv_heads, head_dim, arguments.seed or 0, docs)
        found = made_up(pattern, n, heads, *sizes)
    return replace(found, inputs={**found.inputs, **given})
