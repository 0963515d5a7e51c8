"""Syntax trees to text: the one spelling `weft fmt` keeps, and expressions for reports."""

import re
from collections.abc import Iterator, Sequence
from typing import TypedDict, assert_never

from .builder import clean_docstring
from .layout import INDENT, Row, arrange
from .scanner import OPENERS, REDUCTIONS, RULES, SOFT
from .source import Span
from .syntax import (
    Absolute,
    Argument,
    Axis,
    Binary,
    Binder,
    Boolean,
    Call,
    Causal,
    Chosen,
    Claim,
    Comment,
    Comparison,
    Coordinate,
    Count,
    Coverage,
    Decimal,
    Definition,
    Divide,
    Dot,
    Drop,
    Else,
    Every,
    Expr,
    File,
    Given,
    Grid,
    HeadLine,
    Import,
    Index,
    Input,
    Keep,
    LayerLine,
    Let,
    ListLiteral,
    Logical,
    Membership,
    Name,
    Negate,
    Node,
    Not,
    Number,
    Order,
    Parameter,
    Range,
    Reduce,
    Require,
    Score,
    Selection,
    SetLiteral,
    Slice,
    Softmax,
    StackDef,
    Statement,
    Type,
)

WIDTH = 100

# How tightly each kind of expression holds together, loosest first; see "Expressions" in docs/language.md.
_OR, _AND, _NOT, _COMPARE, _BIT_OR, _BIT_XOR, _BIT_AND, _SHIFT = range(8)
_SUM, _REDUCTION, _PRODUCT, _UNARY, _DOT, _ATOM = range(8, 14)
_BINARY = {
    "|": _BIT_OR,
    "^": _BIT_XOR,
    "&": _BIT_AND,
    "<<": _SHIFT,
    ">>": _SHIFT,
    "+": _SUM,
    "-": _SUM,
    "*": _PRODUCT,
    "//": _PRODUCT,
    "%": _PRODUCT,
}


def format_expression(expr: Expr) -> str:
    """One line of ASCII with no more parentheses than needed; parsing it gives `expr` back."""
    return _expression(expr, _OR)


def _expression(expr: Expr, context: int) -> str:
    text, level = _render(expr)
    return text if level >= context else f"({text})"


def _list(items: tuple[Expr, ...]) -> str:
    return ", ".join(_expression(i, _OR) for i in items)


def _render(expr: Expr) -> tuple[str, int]:
    match expr:
        case Number(value):
            return str(value), _ATOM
        case Decimal(text) | Name(text):
            return text, _ATOM
        case Boolean(value):
            return "true" if value else "false", _ATOM
        case Coordinate(base, axis):
            return f"{base}.{axis}", _ATOM
        case Index(name, indices):
            return f"{name}[{_list(indices)}]", _ATOM
        case Call(module, name, arguments):
            prefix = f"{module}." if module else ""
            listed = ", ".join(_argument(a) for a in arguments)
            if not module and name in REDUCTIONS and _BINDS.match(listed):
                listed = f"({_argument(arguments[0])}){listed[len(_argument(arguments[0])) :]}"
            return f"{prefix}{name}({listed})", _ATOM
        case Negate(operand):
            return f"-{_expression(operand, _UNARY)}", _UNARY
        case Not(operand):
            return f"not {_expression(operand, _NOT)}", _NOT
        case Absolute(operand):
            return f"|{_expression(operand, _BIT_XOR)}|", _ATOM
        case Binary(op, left, right):
            level = _BINARY[op]
            return f"{_expression(left, level)} {op} {_expression(right, level + 1)}", level
        case Comparison(operands, ops):
            texts = [_expression(o, _BIT_OR) for o in operands]
            return texts[0] + "".join(f" {op} {t}" for op, t in zip(ops, texts[1:], strict=True)), _COMPARE
        case Membership(value, members, negated):
            word = "not in" if negated else "in"
            text = _expression(value, _BIT_OR)
            if isinstance(members, Chosen) and members.joint is not None:
                text = f"({members.joint}, {text})"
            return f"{text} {word} {_members(members)}", _COMPARE
        case Range(low, high):
            return f"{_expression(low, _BIT_OR)} .. {_expression(high, _BIT_OR)}", _COMPARE
        case SetLiteral(items):
            return "{" + _list(items) + "}", _ATOM
        case ListLiteral(items):
            return f"[{_list(items)}]", _ATOM
        case Logical(op, operands):
            level = _OR if op == "or" else _AND
            return f" {op} ".join(_expression(o, level + 1) for o in operands), level
        case Divide() | Reduce() | Dot() | Softmax() | Slice() | Count() | Chosen():
            return _render_real(expr)
        case _:
            assert_never(expr)


def _render_real(expr: Divide | Reduce | Dot | Softmax | Slice | Count | Chosen) -> tuple[str, int]:
    match expr:
        case Divide(left, right):
            return f"{_expression(left, _PRODUCT)} / {_expression(right, _UNARY)}", _PRODUCT
        case Reduce(op, binders, body, where):
            only = "" if where is None else f" where {format_expression(where)}"
            text = _expression(body, _REDUCTION)
            if binders[0].bound is None and binders[0].inside is None and not _opens(text):
                text = f"({text})"
            return f"{op}({', '.join(map(_binder, binders))}{only}) {text}", _REDUCTION
        case Dot(left, right):
            return f"{_row(left)} . {_row(right)}", _DOT
        case Softmax(value, axis, where):
            only = "" if where is None else f" where {format_expression(where)}"
            return f"softmax({format_expression(value)} over {axis}{only})", _ATOM
        case Slice(row, first, last):
            return f"{_row(row)}[{_expression(first, _BIT_OR)} .. {_expression(last, _BIT_OR)}]", _ATOM
        case Count(axis, rule):
            return f"count({format_expression(axis)} in {_chosen(rule)})", _ATOM
        case Chosen():
            return _chosen(expr), _COMPARE
        case _:
            assert_never(expr)


def _opens(text: str) -> bool:
    """Whether a text after `sum(J)` goes on with what it sums, rather than with what may follow a call."""
    word = re.match(r"\w*", text)
    first = word.group() if word else ""
    return text[0] == "(" or (first != "" and (first in OPENERS or first not in SOFT | {"true", "false"}))


def _members(members: Expr) -> str:
    match members:
        case Range(low, high):
            return f"{_unruled(_expression(low, _BIT_OR))} .. {_expression(high, _BIT_OR)}"
        case Chosen():
            return _chosen(members)
        case _:
            return _unruled(_expression(members, _BIT_OR))


# At the start of an argument and of what follows `in`, these would be a binder and a rule.
_BINDS = re.compile(r"\w+ (<|in) ")
_RULED = re.compile(rf"({'|'.join(RULES)})\b")


def _unruled(text: str) -> str:
    return f"({text})" if _RULED.match(text) else text


def _binder(binder: Binder) -> str:
    if binder.inside is None:
        return binder.name if binder.bound is None else f"{binder.name} < {_expression(binder.bound, _SUM)}"
    last = "" if binder.bound is None else f"last {_expression(binder.bound, _SUM)} of "
    return f"{binder.name} in {last}{binder.inside}"


def _row(expr: Expr) -> str:
    plain = isinstance(expr, Index | Slice) or (isinstance(expr, Call) and expr.module is None)
    return format_expression(expr) if plain else f"({format_expression(expr)})"


def _chosen(rule: Chosen) -> str:
    amount = _expression(rule.amount, _ATOM if rule.percent else _SUM)
    if "% by" in amount or not (amount[0].isalnum() or amount[0] in "(_"):
        # A remainder by what is called `by` is no percentage, and a rule is known by what follows it.
        amount = f"({amount})"
    if rule.percent:
        amount += f"% of {rule.of}" if rule.of else "%"
    text = f"{rule.rule} {amount} by {_expression(rule.by, _SUM)}"
    for word, condition in (("counting", rule.counting), ("among", rule.among)):
        if condition is not None:
            text += f" {word} ({format_expression(condition)})"
    return text


def _argument(argument: Argument) -> str:
    value = _expression(argument.value, _OR)
    return f"{argument.keyword}={value}" if argument.keyword else value


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
            return f"{within}every {_expression(step, _BIT_OR)}"
        case Range(low, high):
            first = _expression(low, _BIT_OR)
            # At the start of a selection this name would be the keyword.
            first = f"({first})" if re.match(r"every\b", first) else first
            return f"{first} .. {_expression(high, _BIT_OR)}"
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
        text += f" {sign}{_expression(claim.percent, _ATOM)}%"
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
            text = _expression(value, _SUM)
            return f"axis {name} = ({text})" if re.match(r"last\b", text) else f"axis {name} = {text}"
        case Axis(name, value, side):
            return f"axis {name} = last {_expression(value, _SUM)} of {side}"
        case Order(name, by, size):
            return f"order {name} = k by {_expression(by, _SUM)} within {_expression(size, _SUM)}"
        case Score(name, axes, value):
            return f"let {name}[{', '.join(axes)}] = {format_expression(value)}"
        case Grid(axes, extents, cell):
            over = ", ".join(format_expression(e) for e in extents)
            of = "" if cell is None else f" of {format_expression(cell)}"
            return f"grid ({', '.join(axes)}) over ({over}){of}"
        case _:
            assert_never(statement)
