"""A coverage report of a pattern or a stack: its layers, heads and inputs, then the analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import TYPE_CHECKING, Any

from .check import USUAL_HEADS, table_heads
from .compiler.cover import Request, cover
from .compiler.ir import Mask
from .compiler.stack import MOST_HEADS, MOST_LAYERS, LoweredStack, claims_of, repeat
from .compiler.walk import depends_on_head
from .dsl.syntax import Definition
from .pattern import Pattern
from .stacks import Stack
from .tensors import host_inputs

if TYPE_CHECKING:
    from .compiler.coverage import Coverage
    from .compiler.tables import Ints

# Layers that a pattern is repeated in when nobody says how many.
USUAL_LAYERS = 24
# A report holds some numbers for each token: up to 2 GB.
MOST_TOKENS = 1 << 21


def coverage(
    subject: Pattern | Stack,
    n: int,
    layers: int,
    heads: int | None,
    kv_heads: int | None,
    head_dim: int,
    path: tuple[int, int] | None,
    claims: str | Sequence[str],
    inputs: Mapping[str, Any],
    element: int = 2,
    progress: Callable[[str], None] = lambda _: None,
) -> Coverage:
    """The report; `layers` is how often a pattern is repeated, 0 for the usual number. Raises CompileError."""
    n, head_dim = _number(subject, "n", n, MOST_TOKENS), _number(subject, "head_dim", head_dim, 1 << 16)
    path = None if path is None else (index(path[0]), index(path[1]))
    if path is not None and not all(0 <= token < n for token in path):
        raise ValueError(f"`{subject.name}`: the path {path[0]}:{path[1]} leaves the {n} tokens")
    if isinstance(subject, Pattern):
        layers = _number(subject, "layers", layers, MOST_LAYERS)
    count = heads_of(subject, layers) if heads is None else _number(subject, "heads", heads, MOST_HEADS)
    groups = count if kv_heads is None else _number(subject, "kv_heads", kv_heads, MOST_HEADS)
    if count % groups:
        raise ValueError(f"`{subject.name}`: heads = {count} is not a multiple of kv_heads = {groups}")
    claims = (claims,) if isinstance(claims, str) else claims
    stack = lowered(subject, layers, count, groups)
    deeper = None if isinstance(subject, Stack) else lambda depth: lowered(subject, depth, count, groups)
    request = Request(n, count, groups, head_dim, element, path, claims_of(claims), deeper, progress)
    return cover(stack, request, arrays(subject, stack, n, count, inputs))


def lowered(subject: Pattern | Stack, layers: int, heads: int, kv_heads: int) -> LoweredStack:
    """The masks of every layer."""
    if isinstance(subject, Stack):
        return subject.lower(heads, kv_heads)
    return repeat(subject.module, subject.definition, subject.given, layers, heads, kv_heads)


def _number(subject: Pattern | Stack, name: str, value: int, most: int) -> int:
    """An integer from 1 to `most`."""
    try:
        number = index(value)
    except TypeError:
        number = 0
    if not 1 <= number <= most:
        raise ValueError(f"`{subject.name}`: {name} is an integer, 1 to {most}, not {value!r}")
    return number


def heads_of(subject: Pattern | Stack, layers: int = USUAL_LAYERS) -> int:
    """As many heads as a table has; else 8 for a stack and for a pattern whose heads differ."""
    if found := table_heads(subject.definition.parameters, subject.given):
        return found
    alike = isinstance(subject, Pattern) and not depends_on_head(subject.bind(1, 1, 0, layers))
    return 1 if alike else USUAL_HEADS


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who wants inputs, for messages."""

    name: str
    definition: Definition
    declared_inputs: tuple[str, ...]


def arrays(
    subject: Pattern | Stack, stack: LoweredStack, n: int, heads: int, inputs: Mapping[str, Any]
) -> Mapping[str, Ints]:
    """The inputs that were given, checked; those that were not are left open."""
    read = {t.source: t for layer in stack.layers for one in layer for t in one.mask.tables if t.source}
    reader = _Reader(subject.name, subject.definition, tuple(read))
    given = tuple(table for name, table in read.items() if name in inputs)
    return host_inputs(reader, Mask(subject.name, (), given), inputs, n, n, heads)
