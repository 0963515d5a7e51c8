"""A pattern as users hold it: specialise it, look at it, run attention with it."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

from .capture import capturing_now, require_made
from .compiler.ir import Mask
from .compiler.lower import Given, input_axes, lower
from .compiler.plan import Plan, Shape, Tiling
from .dsl.diagnostics import CompileError, Diagnostic, did_you_mean
from .dsl.loader import Module, load_file, load_text, search_roots
from .dsl.source import Span
from .dsl.syntax import File, PatternDef
from .dsl.uses import is_dynamic
from .parameterised import Parameterised

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from .compiler.coverage import Coverage
    from .compiler.selection import Program

# Positions up to which weft counts.
MOST_TOKENS = 1 << 30
# Kernels, plans and tables that a pattern keeps at hand: a selection has up to nine for each shape of tensors.
MOST_REMEMBERED = 256


class Pattern(Parameterised):
    """One pattern of a `.sparse` file with some of its parameters given."""

    kind = "pattern"
    definition: PatternDef

    def __init__(self, module: Module, definition: PatternDef, given: Mapping[str, Given] | None = None) -> None:
        super().__init__(module, definition, given)
        self.__doc__ = self.doc
        self._masks: dict[tuple[int, int, int, int], Mask] = {}
        # Kernels and lists of calls, by all that they depend on; `calls` fills it.
        self.calls: dict[tuple[object, ...], Any] = {}
        self._memory: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        # What CUDA graphs read that captured a call; nobody says when the last of them is gone.
        self._captured: list[Any] = []

    @property
    def file(self) -> File:
        """The file the pattern was read from."""
        return self.module.file

    @property
    def declared_inputs(self) -> tuple[str, ...]:
        """Names of all inputs this pattern and those it uses declare, needed or not."""
        return tuple(input_axes(self.module, self.definition))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs `attention` and `mask` must be given; all declared ones while parameters are missing."""
        from .check import USUAL_HEADS, natural_heads, table_heads

        if self.dynamic:
            program = self.program(table_heads(self.definition.parameters, self.given) or USUAL_HEADS)
            read = (table.source for table in program.limits.tables if table.source)
            return (*(given.name for given in program.givens), *dict.fromkeys(read))
        if self.missing:
            return self.declared_inputs
        return tuple(dict.fromkeys(t.source for t in self.bind(natural_heads(self)).tables if t.source))

    def __call__(self, /, **params: Given) -> Pattern:
        """The same pattern with other parameter values."""
        other = Pattern(self.module, self.definition, {**self.given, **params})
        other.check_names()
        return other

    def bind(self, heads: int = 1, kv_heads: int | None = None, layer: int = 0, layers: int = 1) -> Mask:
        """The mask for a number of heads and a layer; raises CompileError when it has none."""
        key = (heads, heads if kv_heads is None else kv_heads, layer, layers)
        if key not in self._masks:
            self._check_heads(*key)
            shape = Shape(True, key[0], key[1], layer, layers)
            self._masks[key] = lower(self.module, self.definition, self.given, shape)
        return self._masks[key]

    @property
    def dynamic(self) -> bool:
        """Whether the pattern selects by content, so that it has no fixed mask."""
        return is_dynamic(self.definition)

    def program(self, heads: int = 1, kv_heads: int | None = None, layer: int = 0, layers: int = 1) -> Program:
        """What a dynamic pattern scores and chooses; raises CompileError."""
        from .compiler.lower_selection import lower_selection

        key = (heads, heads if kv_heads is None else kv_heads, layer, layers)
        self._check_heads(*key)
        shape = Shape(True, key[0], key[1], layer, layers)

        def make() -> Program:
            return lower_selection(self.module, self.definition, self.given, shape)

        return self.remember(("program", *key), make)

    def _check_heads(self, heads: int, kv_heads: int, layer: int, layers: int) -> None:
        """Raise ValueError unless there can be such heads and such a layer."""
        self._check_integers(1, heads=heads, kv_heads=kv_heads, layers=layers)
        self._check_integers(0, layer=layer)
        if heads % kv_heads:
            raise ValueError(f"pattern `{self.name}`: heads = {heads} is not a multiple of kv_heads = {kv_heads}")
        if layer >= layers > 1:
            raise ValueError(f"pattern `{self.name}`: there is no layer {layer} among {layers}")

    def _check_lengths(self, n: int, m: int, least: int = 0) -> None:
        """Raise ValueError unless both are lengths that weft can count."""
        self._check_integers(least, n=n, m=m)
        if max(n, m) > MOST_TOKENS:
            raise ValueError(f"pattern `{self.name}`: {max(n, m)} tokens are too many, at most {MOST_TOKENS} (2^30)")

    def _check_integers(self, least: int, **numbers: object) -> None:
        """Raise ValueError unless all are integers and none is below `least`."""
        for name, number in numbers.items():
            if not isinstance(number, SupportsIndex) or number.__index__() < least:
                raise ValueError(f"pattern `{self.name}`: {name} is an integer, {least} or more, not {number!r}")

    def remember(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        """What `make` gave for a key, made once while it is among the latest ones; a call must not plan twice."""
        if key not in self._memory:
            require_made(self, not capturing_now())
            # Of two threads that make the same, one is kept: the same call gives the same bits.
            made = self._memory.setdefault(key, make())
            while len(self._memory) > MOST_REMEMBERED:
                self._memory.popitem(last=False)
            return made
        with suppress(KeyError):
            # Another thread may have forgotten it meanwhile.
            self._memory.move_to_end(key)
            return self._memory[key]
        return self.remember(key, make)

    def hold(self, *used: Any) -> None:
        """Keep what is remembered, and what else a captured call used, for as long as the pattern itself."""
        self._captured.append((used, list(self._memory.values())))

    def shape(
        self, n: int, m: int, heads: int = 1, kv_heads: int | None = None, layer: int = 0, layers: int = 1
    ) -> Shape:
        """The smallest description of a call that the plan depends on, so that plans are shared."""
        differ, powers = self.remember(
            ("facts", heads, kv_heads, layer, layers), lambda: self._facts(heads, kv_heads, layer, layers)
        )
        bits = (max(n, m, 1) - 1).bit_length()
        bits = max(10, bits) if powers else max(20, bits)
        if not differ:
            return Shape(n == m, bits=bits)
        return Shape(n == m, heads, kv_heads or heads, bits=bits)

    def _facts(self, heads: int, kv_heads: int | None, layer: int, layers: int) -> tuple[bool, bool]:
        """Whether heads differ, and whether the plan depends on how large positions get."""
        from .compiler.walk import depends_on_head, has_powers

        mask = self.bind(heads, kv_heads, layer, layers)
        return depends_on_head(mask), has_powers(mask.formula)

    def mask(
        self,
        n: int,
        m: int | None = None,
        *,
        heads: int = 1,
        kv_heads: int | None = None,
        layer: int = 0,
        layers: int = 1,
        **inputs: Any,
    ) -> NDArray[np.bool_]:
        """The dense boolean mask: `[m, n]`, or `[heads, m, n]` when heads differ. Inputs are int arrays `[n]`."""
        from .compiler.dense import dense_mask
        from .tensors import host_inputs

        queries = n if m is None else m
        self._check_lengths(n, queries)
        bound = self.bind(heads, kv_heads, layer, layers)
        shape = Shape(n == queries, heads, kv_heads or heads, layer, layers)
        return dense_mask(bound, n, queries, shape, host_inputs(self, bound, inputs, n, queries, heads))

    def plan(
        self,
        n: int = 8192,
        m: int | None = None,
        *,
        heads: int = 1,
        kv_heads: int | None = None,
        layer: int = 0,
        layers: int = 1,
        block_m: int = 128,
        block_n: int = 128,
    ) -> Plan:
        """Which tiles are visited, full and partial, in which loops; symbolic in the lengths."""
        from .compiler.pipeline import make_plan

        queries = n if m is None else m
        self._check_lengths(n, queries)
        self._check_integers(1, block_m=block_m, block_n=block_n)
        bound = self.bind(heads, kv_heads, layer, layers)
        shape = self.shape(n, queries, heads, kv_heads, layer, layers)
        return make_plan(bound, shape, Tiling(block_m, block_n))

    def attention(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        *,
        scale: float | None = None,
        return_lse: bool = False,
        backend: str = "auto",
        layer: int = 0,
        layers: int = 1,
        tf32: bool = False,
        **inputs: Any,
    ) -> Any:
        """Attention over the keys this pattern keeps, in SDPA's layout.

        q `[B, H, M, D]`, k and v `[B, G, N, D]` with H a multiple of G; returns `[B, H, M, D]`, and with
        `return_lse` also the natural log-sum-exp `[B, H, M]` in fp32. `backend` is "auto", "hopper", "triton", "cpu"
        or "reference"; one asked for by name never falls back. `scale` is D ** -0.5 by default; `layer` of `layers` is
        for patterns that differ by layer; `tf32` lets fp32 products round. Inputs are as the pattern declares them:
        integers `[N]` or `[B, N]`, for heads `[H]`; numbers of a selection `[B or 1, H or 1, cells ..]`.
        Raises TensorError when shapes, dtypes or devices do not fit. A graph may capture a call like an earlier one.
        """
        from .calls import attention

        out, lse = attention(self, q, k, v, scale, backend, layer, layers, tf32, inputs, return_lse)
        return (out, lse) if return_lse else out

    def source(
        self,
        *,
        target: str = "sm90",
        dtype: str = "bf16",
        head_dim: int = 128,
        n: int = 8192,
        m: int | None = None,
        heads: int = 1,
        kv_heads: int | None = None,
        layer: int = 0,
        layers: int = 1,
    ) -> str:
        """The text of the generated kernel for one target."""
        from .ahead import kernel_text

        queries = n if m is None else m
        self._check_lengths(n, queries)
        return kernel_text(self, target, dtype, head_dim, n, queries, heads, kv_heads, layer, layers)

    def prepare(self) -> None:
        """Raise CompileError with every error there is before a first call; touches no driver and no torch."""
        from .check import check_pattern

        errors = [d for d in check_pattern(self) if d.severity == "error"]
        if errors:
            raise CompileError(errors)

    def precompile(self, target: str, dtype: str, head_dim: int, heads: int = 1, kv_heads: int | None = None) -> None:
        """Compile to machine code for a target such as "sm90" through Triton's cache; needs no GPU."""
        from .ahead import precompile

        precompile(self, target, dtype, head_dim, heads, kv_heads)

    def show(self, n: int = 1024, *, heads: int = 1, head: int = 0, **inputs: Any) -> str:
        """The mask drawn with characters, one head at a time."""
        from .compiler.picture import draw_text

        return draw_text(self._picture(n, heads, head, inputs))

    def svg(self, n: int = 1024, *, heads: int = 1, head: int = 0, **inputs: Any) -> str:
        """The mask as one SVG picture: full tiles dark, partial ones light."""
        from .compiler.picture import draw_svg

        return draw_svg(self._picture(n, heads, head, inputs), self.name)

    def coverage(
        self,
        n: int = 8192,
        *,
        layers: int = 24,
        heads: int | None = None,
        kv_heads: int | None = None,
        head_dim: int = 128,
        path: tuple[int, int] | None = None,
        claims: str | tuple[str, ...] = (),
        **inputs: Any,
    ) -> Coverage:
        """What `layers` layers of this pattern let each of n tokens see; `path` is (key, query)."""
        from .covering import coverage

        return coverage(self, n, layers, heads, kv_heads, head_dim, path, claims, inputs)

    def _repr_svg_(self) -> str | None:
        from .check import natural_heads

        try:
            return None if self.inputs else self.svg(heads=natural_heads(self))
        except CompileError:
            return None

    def _picture(self, n: int, heads: int, head: int, inputs: Mapping[str, Any]) -> NDArray[np.float64]:
        from .compiler.picture import shades
        from .tensors import host_inputs

        self._check_lengths(n, n, least=1)
        bound = self.bind(heads)
        self._check_integers(0, head=head)
        if head >= heads:
            raise ValueError(f"pattern `{self.name}`: there is no head {head} among {heads}")
        arrays = host_inputs(self, bound, inputs, n, n, heads)
        return shades(bound, n, Shape(True, heads, heads), arrays, head)

    @cached_property
    def where(self) -> str:
        """`file:line:col` of the definition."""
        return self.definition.span.where if self.definition.span else self.module.source.path


def load(path_or_text: str | os.PathLike[str], name: str | None = None, /, **params: Given) -> Pattern:
    """A pattern from a file, from text with a brace or several lines, or shipped with weft by bare name.

    `name` chooses one of several patterns of a file; without it the file's namesake or last pattern is meant.
    Raises CompileError with every finding; E010 is a file that is not there.
    """
    from .check import check_module

    module = read_module(path_or_text)
    check_module(module)
    pattern = Pattern(module, choose(module, name), params)
    pattern.check_names()
    return pattern


def read_module(path_or_text: str | os.PathLike[str]) -> Module:
    """The module of a file, of text, or of what weft ships under a bare name."""
    text = os.fspath(path_or_text)
    if "{" in text or "\n" in text:
        return load_text(text)
    if text.isidentifier() and not os.path.exists(text):
        from .compiler.catalogue import shipped

        return load_file(shipped(text))
    return load_file(text)


def no_pattern(module: Module) -> Diagnostic:
    """What there is to say about a file without patterns."""
    stacks = [stack.name for stack in module.file.stacks]
    hint = f"it is a stack: `weft coverage {stacks[-1]}`, `weft.load_stack`" if stacks else ""
    return Diagnostic("E013", Span(module.source, 0, 0), "no pattern in this file", hint)


def choose(module: Module, name: str | None) -> PatternDef:
    """The pattern meant by a name, or the file's main one: its namesake, else its last."""
    patterns = {p.name: p for p in module.file.patterns}
    if not patterns:
        raise CompileError([no_pattern(module)])
    if name is None:
        stem = os.path.basename(module.source.path).removesuffix(".sparse")
        return patterns.get(stem, module.file.patterns[-1])
    if name not in patterns:
        message = f"{module.source.path} has no pattern `{name}`"
        raise CompileError([Diagnostic("E002", None, message, did_you_mean(name, patterns))])
    return patterns[name]


def load_file_patterns(text: str, path: str) -> dict[str, Pattern]:
    """Every pattern of a file's text, checked; `path` is its place, for messages and imports."""
    from .check import check_module

    module = load_text(text, path, search_roots(Path(path).parent))
    check_module(module)
    return {p.name: Pattern(module, p) for p in module.file.patterns}
