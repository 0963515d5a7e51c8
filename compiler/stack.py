"""A stack with its parameters and heads given: which mask each head of each layer uses, and what is claimed of it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, assert_never

from ..dsl import syntax as s
from ..dsl.check_stack import varies
from ..dsl.diagnostics import CompileError, Diagnostic
from ..dsl.loader import Module, load_text
from ..dsl.parser import parse_claim, parse_expression
from ..dsl.printer import format_claim
from ..dsl.source import Source, Span
from ..dsl.walk import claim_parts, walk
from .ir import Expr, Mask
from .lower import Given, bind, enter, finish
from .lower_expression import constant
from .plan import Shape
from .readable import show_number, show_truth
from .scope import InputValue, Ledger, Meaning, Scope, TableValue, fail

MOST_LAYERS = 1024
MOST_HEADS = 1 << 16
# Lengths that a claim may speak of.
MOST_TOKENS = 1 << 21
# What the layers of one stack may expand to together, in the terms that scope.MOST_NODES counts.
MOST_TERMS = 300_000
# Characters of a percentage with a point.
MOST_DIGITS = 20
# Numbers of a table that a report spells out.
MOST_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Assignment:
    """Some heads of a layer and the mask they use; `text` is the use with its arguments as values."""

    heads: tuple[int, ...]
    mask: Mask
    text: str


@dataclass(frozen=True, slots=True)
class LoweredClaim:
    """A claim with its numbers known; what it leaves open is None."""

    kind: Literal["complete", "density", "reaches"]
    percent: Fraction | None
    strict: bool
    within: int | None
    n: int | None
    text: str
    span: Span | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class LoweredStack:
    """What every layer keeps, head by head; masks that are equal are one object."""

    name: str
    doc: str
    layers: tuple[tuple[Assignment, ...], ...]
    claims: tuple[LoweredClaim, ...]


@dataclass(frozen=True, slots=True)
class Outline:
    """What is known of a stack before its patterns are looked at: parameters, the line of each layer, claims."""

    scope: Scope
    lines: tuple[s.LayerLine, ...]
    claims: tuple[LoweredClaim, ...]


def lower_stack(
    module: Module, definition: s.StackDef, given: Mapping[str, Given], heads: int, kv_heads: int
) -> LoweredStack:
    """The masks of a stack's layers; raises CompileError with what stands against them."""
    drawn = outline(module, definition, given, heads, kv_heads)
    memo = _Memo()
    layers: list[tuple[Assignment, ...]] = []
    for layer, line in enumerate(drawn.lines):
        shape = Shape(True, heads, kv_heads, layer, len(drawn.lines))
        layers.append(memo.line(line, Scope(module, shape, Ledger(), drawn.scope.names)))
    return LoweredStack(definition.name, definition.doc, tuple(layers), drawn.claims)


def repeat(
    module: Module, definition: s.PatternDef, given: Mapping[str, Given], layers: int, heads: int, kv_heads: int
) -> LoweredStack:
    """A pattern in every layer and head, with the claims it makes."""
    _check_heads(definition.name, heads, kv_heads)
    if not 1 <= layers <= MOST_LAYERS:
        raise ValueError(f"`{definition.name}`: layers is 1 to {MOST_LAYERS}, not {layers}")
    first = bind(module, definition, given, Shape(True, heads, kv_heads, 0, layers))
    claims = _claims(definition, first)
    memo, everyone = _Memo(), tuple(range(heads))
    made: list[tuple[Assignment, ...]] = []
    for layer in range(layers):
        shape = Shape(True, heads, kv_heads, layer, layers)
        scope = Scope(module, shape, Ledger(), dict(first.names))
        if first.ledger.layered and layer:
            scope = bind(module, definition, given, shape)
            if _claims(definition, scope) != claims:
                fail("E004", definition.span, "a claim is the same for all layers, but this depends on `layer`")
        text = _text(definition.name, [(name, scope.names[name]) for name in scope.names if name in given])
        made.append((Assignment(everyone, memo.mask(definition, scope), text),))
    return LoweredStack(definition.name, definition.doc, tuple(made), claims)


def outline(module: Module, definition: s.StackDef, given: Mapping[str, Given], heads: int, kv_heads: int) -> Outline:
    """A stack's parameters, depth, claims and the line of each layer; raises CompileError."""
    _check_heads(definition.name, heads, kv_heads)
    for name, value in given.items():
        if isinstance(value, str):
            expr = parse_expression(Source(f"<{name}>", value))
            if found := varies(expr, f"`{name}`", early=True):
                raise CompileError(found)
    scope = bind(module, definition, given, Shape(True, heads, kv_heads))
    depth = constant(definition.depth, scope, "the number of layers")
    if not 1 <= depth <= MOST_LAYERS:
        fail("E005", definition.depth.span, f"a stack has 1 to {MOST_LAYERS} layers, not {depth}")
    scope = Scope(module, Shape(True, heads, kv_heads, 0, depth), Ledger(), scope.names)
    owners = _owners([(line.layers, line.span) for line in definition.lines], depth, "layer", definition.span, scope)
    return Outline(scope, tuple(definition.lines[owner] for owner in owners), _claims(definition, scope))


def _check_heads(name: str, heads: int, kv_heads: int) -> None:
    if not 1 <= kv_heads <= heads <= MOST_HEADS or heads % kv_heads:
        raise ValueError(f"`{name}`: heads = {heads}, 1 to {MOST_HEADS}, is no multiple of kv_heads = {kv_heads}")


def _owners(
    lines: Sequence[tuple[s.Selection, Span | None]], count: int, what: str, span: Span | None, scope: Scope
) -> list[int]:
    """Which line each of `count` layers or heads belongs to: one of them, and only one."""
    owners = [-1] * count
    rest = -1
    found: list[Diagnostic] = []
    for place, (selection, where) in enumerate(lines):
        if isinstance(selection, s.Else):
            rest = place
            continue
        try:
            members = _members(selection, count, what, scope)
        except CompileError as error:
            found.extend(error.diagnostics)
            continue
        twice: list[tuple[int, int]] = []
        for member in members:
            if owners[member] >= 0:
                twice.append((member, owners[member]))
            owners[member] = place
        if twice:
            first = lines[twice[0][1]][1]
            hint = f"the first line that names it is line {first.line}" if first else ""
            found.append(Diagnostic("E008", where, f"{what} {twice[0][0]} is named twice", hint))
    missing = [member for member, owner in enumerate(owners) if owner < 0]
    if missing and rest < 0 and not found:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        found.append(Diagnostic("E013", span, f"no line names {what} {missing[0]}{more}", f"add `{what}s else: ..`"))
    if found:
        raise CompileError(found)
    return [rest if owner < 0 else owner for owner in owners]


def _members(selection: s.Range | s.Every | s.SetLiteral, count: int, what: str, scope: Scope) -> Sequence[int]:
    """The layers or heads that a selection names."""
    said = f"a selection of {what}s"
    match selection:
        case s.SetLiteral(items):
            members = tuple(constant(item, scope, said) for item in items)
            ends = members
        case s.Range(low, high):
            members = range(constant(low, scope, said), constant(high, scope, said))
            ends = (members[0], members[-1]) if members else ()
        case s.Every(bounds, step):
            by = constant(step, scope, said)
            if by < 1:
                fail("E004", step.span, f"every {by}", "use 1 or more")
            return (range(count) if bounds is None else _members(bounds, count, what, scope))[::by]
        case _:
            assert_never(selection)
    if beyond := [end for end in ends if not 0 <= end < count]:
        fail("E005", selection.span, f"there is no {what} {beyond[0]} among {count}", f"they are 0 to {count - 1}")
    return members


def claims_of(texts: Iterable[str]) -> tuple[LoweredClaim, ...]:
    """Claims given as text, in numbers alone; raises CompileError."""
    scope = Scope(load_text(""), Shape(True), Ledger())
    claims = [parse_claim(Source("<claim>", text)) for text in texts]
    for part in (part for claim in claims for part in claim_parts(claim)):
        if named := next((node for node, _ in walk(part) if isinstance(node, s.Name)), None):
            fail("E002", named.span, f"unknown name `{named.name}`", "outside a file a claim is made of numbers")
    return tuple(_claim(claim, scope) for claim in claims)


def _claims(definition: s.Definition, scope: Scope) -> tuple[LoweredClaim, ...]:
    return tuple(_claim(claim, scope) for block in definition.coverage for claim in block.claims)


def _claim(claim: s.Claim, scope: Scope) -> LoweredClaim:
    match claim.percent:
        case s.Decimal(digits):
            percent = Fraction(digits) if len(digits) <= MOST_DIGITS else Fraction(101)
        case None:
            percent = None
        case expr:
            percent = Fraction(constant(expr, scope, "a percentage"))
    if claim.percent is not None and not 0 <= (percent or 0) <= 100:
        fail("E005", claim.percent.span, "a percentage is 0 to 100")
    within = _count(claim.within, scope, "a number of layers", MOST_LAYERS)
    n = _count(claim.at, scope, "a length", MOST_TOKENS)
    return LoweredClaim(claim.kind, percent, claim.strict, within, n, format_claim(claim), claim.span)


def _count(expr: s.Expr | None, scope: Scope, what: str, most: int) -> int | None:
    if expr is None:
        return None
    value = constant(expr, scope, what)
    if not 1 <= value <= most:
        fail("E005", expr.span, f"{what} is 1 to {most}, not {value}")
    return value


@dataclass(slots=True)
class _Memo:
    """What layers share: a line that never asks for `layer` is lowered once, and so is a pattern with its values."""

    lines: dict[int, tuple[Assignment, ...]] = field(default_factory=dict[int, tuple[Assignment, ...]])
    masks: dict[tuple[object, ...], Mask] = field(default_factory=dict[tuple[object, ...], Mask])
    equal: dict[Mask, Mask] = field(default_factory=dict[Mask, Mask])
    terms: int = 0

    def line(self, line: s.LayerLine, scope: Scope) -> tuple[Assignment, ...]:
        """What the heads of one layer use; `scope` is the layer's own."""
        if id(line) not in self.lines:
            made = tuple(self._assign(use, heads, scope) for use, heads in _heads(line, scope))
            self._spend(scope.shape.heads + scope.ledger.nodes, line.span)
            if scope.ledger.layered:
                return made
            self.lines[id(line)] = made
        return self.lines[id(line)]

    def _assign(self, use: s.Call, heads: tuple[int, ...], scope: Scope) -> Assignment:
        self._spend(1, use.span)
        pattern, inner = enter(use, scope, Ledger())
        names = (a.keyword or p.name for a, p in zip(use.arguments, pattern.parameters, strict=False))
        shown = [(a.keyword, inner.names[name]) for a, name in zip(use.arguments, names, strict=False)]
        text = _text(f"{use.module}.{use.name}" if use.module else use.name, shown)
        mask = self.mask(pattern, inner)
        scope.ledger.layered |= inner.ledger.layered
        return Assignment(heads, mask, text)

    def mask(self, pattern: s.PatternDef, scope: Scope) -> Mask:
        """The mask of a pattern in the scope of its parameters, made once where it is the same."""
        key = (id(pattern), *scope.names.values())
        in_layer = (*key, scope.shape.layer)
        if key in self.masks:
            return self.masks[key]
        if in_layer in self.masks:
            scope.ledger.layered = True
            return self.masks[in_layer]
        made = finish(pattern, scope)
        self._spend(scope.ledger.nodes, pattern.span)
        made = self.equal.setdefault(made, made)
        self.masks[in_layer if scope.ledger.layered else key] = made
        return made

    def _spend(self, terms: int, span: Span | None) -> None:
        self.terms += terms
        if self.terms > MOST_TERMS:
            fail("E011", span, f"the stack expands to more than {MOST_TERMS} terms", "use fewer layers or lines")


def _heads(line: s.LayerLine, scope: Scope) -> list[tuple[s.Call, tuple[int, ...]]]:
    """What a layer uses, and in which heads."""
    count = scope.shape.heads
    if len(line.heads) == 1 and line.heads[0].heads is None:
        return [(line.heads[0].use, tuple(range(count)))]
    owners = _owners([(h.heads or s.Else(), h.span) for h in line.heads], count, "head", line.span, scope)
    shares: list[list[int]] = [[] for _ in line.heads]
    for head, owner in enumerate(owners):
        shares[owner].append(head)
    return [(h.use, tuple(share)) for h, share in zip(line.heads, shares, strict=True) if share]


def _text(name: str, arguments: Sequence[tuple[str | None, Meaning]]) -> str:
    shown = (f"{keyword}={_show(value)}" if keyword else _show(value) for keyword, value in arguments)
    return f"{name}({', '.join(shown)})"


def _show(value: Meaning) -> str:
    if isinstance(value, TableValue):
        if sum(map(len, value.rows)) > MOST_SHOWN:
            return "[..]"
        rows = [list(row) for row in value.rows]
        return str(rows if len(value.axes) == 2 else [x for row in rows for x in row])
    assert not isinstance(value, InputValue), "parameters are numbers, conditions and tables"
    return show_number(value) if isinstance(value, Expr) else show_truth(value)
