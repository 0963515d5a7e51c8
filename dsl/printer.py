"""Files to text: the one spelling `weft fmt` keeps."""

import re
from collections.abc import Iterator, Sequence
from typing import TypedDict, assert_never

from .builder import clean_docstring
from .layout import INDENT, Row, arrange
from .print_expression import ATOM, BIT_OR, SUM, expression
from .print_expression import format_expression as format_expression  # handed on
from .source import Span
from .syntax import (
    Axis,
    Causal,
    Claim,
    Comment,
    Coverage,
    Definition,
    Drop,
    Else,
    Every,
    File,
    Given,
    Grid,
    HeadLine,
    Import,
    Input,
    Keep,
    LayerLine,
    Let,
    Node,
    Order,
    Parameter,
    Range,
    Require,
    Score,
    Selection,
    SetLiteral,
    StackDef,
    Statement,
    Type,
)

WIDTH = 100


def format_file(file: File) -> str:
    """The canonical text of a file: four spaces, one statement a line, comments kept."""
    rows = [Row(_import(i), **_extent(i)) for i in file.imports]
    for index, line in enumerate(file.precompiles):
        text = f"precompile {line.dtype} head_dim {line.head_dim}"
        rows.append(Row(text, **_extent(line), apart=index == 0))
    for definition in sorted((*file.patterns, *file.stacks), key=_place):
        rows.extend(_definition(definition, file.comments))
    return arrange(rows, file.comments, file.span.source.text if file.span else "")


class _Extent(TypedDict):
    start: int
    end: int


def _extent(node: Node) -> _Extent:
    return _Extent(start=node.span.start, end=node.span.end) if node.span else _Extent(start=-1, end=-1)


def _place(node: Node) -> int:
    return node.span.start if node.span else 0


def _import(line: Import) -> str:
    path = ".".join(line.path)
    return f"import {path}" if line.alias == line.path[-1] else f"import {path} as {line.alias}"


def _definition(definition: Definition, comments: Sequence[Comment]) -> Iterator[Row]:
    start, brace, text, end = _landmarks(definition)
    keyword, over = "pattern", " {"
    if isinstance(definition, StackDef):
        keyword, over = "stack", f" over {format_expression(definition.depth)} layers {{"
    head = f"{keyword} {definition.name}"
    one_line = ", ".join(_parameter(p) for p in definition.parameters)
    header = f"{head}({one_line}){over}" if one_line else head + over
    remarked = any(c.span is not None and start <= c.span.start < brace for c in comments)
    if definition.parameters and (len(header) > WIDTH or remarked):
        yield Row(f"{head}(", start=start, end=start, opens=True, apart=True)
        for parameter in definition.parameters:
            yield Row(f"{_parameter(parameter)},", 1, **_extent(parameter))
        yield Row(f"){over}", start=brace, end=brace, opens=True, closes=True)
    else:
        yield Row(header, start=start, end=brace, opens=True, apart=True)
    if definition.doc:
        yield Row(_docstring(definition.doc), 1, start=text, end=text)
    lines = definition.lines if isinstance(definition, StackDef) else definition.statements
    for line in sorted((*lines, *definition.coverage), key=_place):
        yield from _line(line)
    yield Row("}", start=end, end=end, closes=True)


def _line(line: Statement | LayerLine | Coverage) -> Iterator[Row]:
    match line:
        case LayerLine(layers, (HeadLine(None, use),)):
            yield Row(f"layers {_selection(layers)}: {format_expression(use)}", 1, **_extent(line))
        case LayerLine(layers, heads):
            rows = [(h, f"heads {_selection(h.heads or Else())}: {format_expression(h.use)}") for h in heads]
            yield from _block(f"layers {_selection(layers)}", line, layers, rows)
        case Coverage(claims):
            yield from _block("coverage", line, None, [(c, format_claim(c)) for c in claims])
        case _:
            yield Row(_statement(line), 1, **_extent(line))


def _block(head: str, node: Node, before: Node | None, lines: Sequence[tuple[Node, str]]) -> Iterator[Row]:
    """A line with lines of its own between braces, the first brace being the next after `before`."""
    brace = end = -1
    if node.span is not None:
        brace = _brace(node.span, before.span if before else None)
        end = node.span.end - 1
    yield Row(f"{head} {{", 1, start=_extent(node)["start"], end=brace, opens=True)
    for line, text in lines:
        yield Row(text, 2, **_extent(line))
    yield Row("}", 1, start=end, end=end, closes=True)


def _selection(selection: Selection) -> str:
    match selection:
        case Every(bounds, step):
            within = f"{_selection(bounds)} " if bounds else ""
            return f"{within}every {expression(step, BIT_OR)}"
        case Range(low, high):
            first = expression(low, BIT_OR)
            # At the start of a selection this name would be the keyword.
            first = f"({first})" if re.match(r"every\b", first) else first
            return f"{first} .. {expression(high, BIT_OR)}"
        case SetLiteral():
            return format_expression(selection)
        case Else():
            return "else"
        case _:
            assert_never(selection)


def format_claim(claim: Claim) -> str:
    """One line of ASCII; parsing it gives `claim` back."""
    text: str = claim.kind
    if claim.percent is not None:
        sign = {"density": "< " if claim.strict else "<= "}.get(claim.kind, "")
        text += f" {sign}{expression(claim.percent, ATOM)}%"
    if claim.within is not None:
        text += f" within {format_expression(claim.within)} layers"
    return text if claim.at is None else f"{text} at n = {format_expression(claim.at)}"


# Possessive, so that nothing is ever tried twice: the text up to `{`, and up to what is no comment.
_TO_BRACE = re.compile(r"(?:[^#{]++|#[^\n]*+)*+\{")
_TO_TEXT = re.compile(r"(?:\s++|#[^\n]*+)*+")


def _landmarks(definition: Definition) -> tuple[int, int, int, int]:
    """Offsets of the keyword, `{`, the docstring's end and `}`; -1 where there is none."""
    if definition.span is None:
        return -1, -1, -1, -1
    source = definition.span.source.text
    last = definition.parameters[-1] if definition.parameters else None
    last = definition.depth if isinstance(definition, StackDef) else last
    brace = _brace(definition.span, last.span if last else None)
    after = _TO_TEXT.match(source, brace + 1)
    assert after is not None, "the expression matches nothing too"
    text = source.find('"""', after.end() + 3) if definition.doc else -1
    return definition.span.start, brace, text, definition.span.end - 1


def _brace(span: Span, before: Span | None) -> int:
    """Offset of the first `{` of a definition or a line, after the part of it that may hold others."""
    opened = _TO_BRACE.match(span.source.text, before.end if before else span.start)
    assert opened is not None, "what was parsed has a brace"
    return opened.end() - 1


def _docstring(doc: str) -> str:
    lines = [line and INDENT + line for line in doc.split("\n")]
    closing = f"\n{INDENT}" if len(lines) > 1 or doc.endswith('"') else ""
    text = f"{doc.split(chr(10))[0]}\n" + "\n".join(lines[1:]) if len(lines) > 1 else doc
    if clean_docstring(text) != doc:
        # All lines but the first are indented, so the first must not share theirs.
        text = "\n" + "\n".join(lines)
    return f'"""{text}{closing}"""'


def _parameter(parameter: Parameter) -> str:
    head = f"{parameter.name}: {_type(parameter.type)}"
    return head if parameter.default is None else f"{head} = {format_expression(parameter.default)}"


def _type(type: Type) -> str:
    return f"{type.name}[{', '.join(type.axes)}]" if type.axes else type.name


def _statement(statement: Statement) -> str:
    match statement:
        case Keep(condition, when):
            only = "" if when is None else f" when {format_expression(when)}"
            return f"keep {format_expression(condition)}{only}"
        case Require(condition):
            return f"require {format_expression(condition)}"
        case Drop(condition):
            return f"drop {format_expression(condition)}"
        case Causal():
            return "causal"
        case Let(name, value):
            return f"let {name} = {format_expression(value)}"
        case Input(name, axis, type):
            return f"input {name}[{axis}]: {_type(type)}"
        case Given(name, axes, type):
            return f"input {name}[{', '.join(axes)}]: {_type(type)}"
        case Axis(name, value, None):
            text = expression(value, SUM)
            return f"axis {name} = ({text})" if re.match(r"last\b", text) else f"axis {name} = {text}"
        case Axis(name, value, side):
            return f"axis {name} = last {expression(value, SUM)} of {side}"
        case Order(name, by, size):
            return f"order {name} = k by {expression(by, SUM)} within {expression(size, SUM)}"
        case Score(name, axes, value):
            return f"let {name}[{', '.join(axes)}] = {format_expression(value)}"
        case Grid(axes, extents, cell):
            over = ", ".join(format_expression(e) for e in extents)
            of = "" if cell is None else f" of {format_expression(cell)}"
            return f"grid ({', '.join(axes)}) over ({over}){of}"
        case _:
            assert_never(statement)
