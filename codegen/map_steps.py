"""The innermost steps of a kernel of maps: what is loaded, products, the value of a term, folding and storing."""

import ast

from ..compiler.selection import Apply, Arithmetic, Integer, Number, Scale, Term
from .expressions import Context, emit_number, emit_truth
from .map_parts import Kernel, Product, celled
from .quote import Hole, constant, expression, name, statements

NEUTRAL = {"sum": "0.0", "max": 'float("-inf")', "min": 'float("inf")'}
ARITHMETIC = {x: f"A {x} B" for x in "+-*/"} | {"max": "larger(A, B)", "min": "smaller(A, B)"}
APPLIED = {x: f"tl.{x}(X)" for x in ("abs", "exp", "log", "sqrt")} | {"negate": "-X"}
JOINED = {"sum": "total + V", "max": "larger(total, V)", "min": "smaller(total, V)"}
FOLDED = {"sum": "tl.sum(X, A)", "max": "tl.max(X, A) + nan_in(X, A)", "min": "tl.min(X, A) + nan_in(X, A)"}


def start(kernel: Kernel) -> list[ast.stmt]:
    """Rows that exist, and a fold of nothing."""
    body = statements("at_m = tl.minimum(tl.maximum(cell_m, begin_m), end_m - 1)\nrow = at_m[:, None]")
    holes: dict[str, Hole] = {"M": constant(kernel.config.block_m), "N": constant(kernel.config.block_n)}
    if kernel.match.op == "logsumexp":
        template = 'peak = tl.full([M], float("-inf"), tl.float32)\ntotal = tl.zeros([M], tl.float32)'
        return [*body, *statements(template, **holes)]
    holes["NEUTRAL"] = expression(NEUTRAL[kernel.match.op])
    return [*body, *statements("total = tl.full([M, N], NEUTRAL, tl.float32)", **holes)]


def _place(kernel: Kernel, title: str, loops: tuple[str, ...]) -> ast.expr:
    """Where a tensor begins for this program's batch element and head, and for what is looped over."""
    holes: dict[str, ast.expr] = {f"S{k}": name(f"{title}_{x}") for k, x in enumerate(("batch", "group", "head"))}
    place = expression("X + batch * S0 + group * S1 + head * S2", X=name(title), **holes)
    for loop in loops:
        stride = name(f"{title}_{kernel.loops.index(loop)}")
        place = expression("X + L.to(tl.int64) * S", X=place, L=kernel.spelled(loop), S=stride)
    return place


def load_rows(kernel: Kernel, title: str, parts: int, loops: tuple[str, ...]) -> list[ast.stmt]:
    """The rows of one side of a product, in each of their parts; those of lanes without a cell are some other's."""
    product = kernel.products[int(title[1:])]
    width, wide = product.width, product.wide
    cell = expression("at_m - begin_m" if title[0] == "a" else "at_n - inner_begin")
    strides: dict[str, ast.expr] = {"C": name(f"{title}_cell"), "D": name(f"{title}_d")}
    sizes: dict[str, ast.expr] = {"WIDE": constant(wide), "WIDTH": constant(width)}
    rows = expression(
        "(CELL.to(tl.int64) * C)[:, None] + (tl.arange(0, WIDE) * D)[None, :]", CELL=cell, **strides, **sizes
    )
    load = "tl.load(AT + ROWS)"
    if width < wide:
        load = "tl.load(AT + ROWS, mask=(tl.arange(0, WIDE) < WIDTH)[None, :], other=0.0)"
    body: list[ast.stmt] = []
    for part in range(parts):
        place = _place(kernel, title, loops)
        if part:
            place = expression("X + P * S", X=place, P=constant(part), S=name(f"{title}_part"))
        loaded = expression(load, AT=place, ROWS=rows, **sizes)
        body += statements("T = L", T=name(_part(title, part)), L=loaded)
    return body


def _part(title: str, part: int) -> str:
    return f"{title}_{part}_rows"


def load_numbers(kernel: Kernel, title: str, row: bool, column: bool, loops: tuple[str, ...]) -> list[ast.stmt]:
    """A number for each row, for each column, or one."""
    place = _place(kernel, title, loops)
    if row:
        cells = expression("((at_m - begin_m).to(tl.int64) * S)[:, None]", S=name(f"{title}_row"))
        place = expression("X + C", X=place, C=cells)
    if column:
        cells = expression("((at_n - inner_begin).to(tl.int64) * S)[None, :]", S=name(f"{title}_column"))
        place = expression("X + C", X=place, C=cells)
    return statements("T = tl.load(PLACE)", T=name(f"{title}_number"), PLACE=place)


def _product(place: int, product: Product) -> list[ast.stmt]:
    """One product in full precision: of parts those that a sum of 32 bits has room for, from the smallest on."""
    result = name(f"dot{place}")
    most = max(product.left, product.right)
    pairs = [(left, right) for left in range(product.left) for right in range(product.right) if left + right < most]
    body: list[ast.stmt] = []
    before = most
    for left, right in sorted(pairs, key=sum, reverse=True):
        if body and product.unit != 1.0 and left + right < before:
            body += statements("R = R * U", R=result, U=ast.Constant(product.unit))
        cast = "X.to(tl.float32)" if product.mixed else "X"
        a = expression(cast, X=name(_part(f"a{place}", left)))
        b = expression(cast, X=name(_part(f"b{place}", right)))
        template = (
            'tl.dot(A, tl.trans(B), R, input_precision="ieee")'
            if body
            else 'tl.dot(A, tl.trans(B), input_precision="ieee")'
        )
        body += statements("R = D", R=result, D=expression(template, R=result, A=a, B=b))
        before = left + right
    return body


def step(kernel: Kernel) -> list[ast.stmt]:
    """A tile of the map, folded into what there is."""
    match = kernel.match
    body = [line for place, product in enumerate(kernel.products) for line in _product(place, product)]
    known: dict[Term, ast.expr] = {dot: name(f"dot{k}") for k, dot in enumerate(match.dots)}
    known |= {term: name(f"x{k}_number") for k, term in enumerate(match.numbers)}
    holds = expression("there_m[:, None] & inside[None, :]")
    if kernel.limited:
        holds = expression("H & (W)", H=holds, W=emit_truth(match.where, kernel.context))
    value = emit_value(match.body, known, kernel.context)
    body += statements("holds = HOLDS\nvalue = VALUE", HOLDS=holds, VALUE=value)
    if match.op == "logsumexp":
        return [*body, *_grown()]
    if match.weights:
        body += statements("value = tl.exp(value - relative_number)")
    if kernel.shifted:
        body += statements("value = value * times")
    kept = expression("tl.where(holds, value, NEUTRAL)", NEUTRAL=expression(NEUTRAL[match.op]))
    return [*body, *statements("total = NEW", NEW=expression(JOINED[match.op], V=kept))]


def _grown() -> list[ast.stmt]:
    """The sum of exponentials so far, relative to the largest number so far."""
    return statements("""
value = tl.where(holds, value, float("-inf"))
top = tl.maximum(peak, tl.max(value, 1))
safe = tl.where(top == float("-inf"), 0.0, top)
total = total * tl.exp(peak - safe) + tl.sum(tl.exp(value - safe[:, None]), 1)
peak = top
""")


def emit_value(term: Term, known: dict[Term, ast.expr], context: Context) -> ast.expr:
    """A term as an expression of what is loaded or multiplied already."""
    if term in known:
        return known[term]
    match term:
        case Number(value):
            return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))
        case Scale():
            return name("scale")
        case Integer(value):
            return expression("X * 1.0", X=emit_number(value, context))
        case Arithmetic(op, left, right):
            # A comparison has no plain number on the left.
            left, right = (right, left) if op in ("max", "min") and isinstance(left, Number) else (left, right)
            a, b = emit_value(left, known, context), emit_value(right, known, context)
            return expression(ARITHMETIC[op], A=a, B=b)
        case Apply(function, operand):
            return expression(APPLIED[function], X=emit_value(operand, known, context))
        case _:
            raise AssertionError(term)


def store(kernel: Kernel) -> list[ast.stmt]:
    """The folded tile at its place: [batch, group, head, pieces of rows, (pieces of columns)]."""
    config, rows, columns = kernel.config, dict(celled(kernel))["m"], dict(celled(kernel))["n"]
    m, n = config.block_m // kernel.piece_m, config.block_n // kernel.piece_n
    holes: dict[str, Hole] = {"M": constant(m), "N": constant(n)}
    if kernel.match.op == "logsumexp":
        body = statements(
            'total = tl.where(peak == float("-inf"), peak, peak + tl.log(tl.where(total == 0.0, 1.0, total)))'
        )
    elif kernel.whole:
        body = _folded(kernel, 1)
    elif columns:
        body = _reshaped(config.block_m, n, kernel.piece_n) + _folded(kernel, 2)
    else:
        body = []
    if rows:
        body += _reshaped(m, kernel.piece_m, *([] if kernel.whole else [n])) + _folded(kernel, 1)
    body += statements("rows = tile_m * M + tl.arange(0, M)\nplace = lead.to(tl.int64) * pieces_m + rows", **holes)
    if kernel.whole:
        return [*body, *statements("tl.store(out + place, total, mask=rows < pieces_m)")]
    return [
        *body,
        *statements(
            """
columns = tile_n * N + tl.arange(0, N)
there = (rows < pieces_m)[:, None] & (columns < pieces_n)[None, :]
tl.store(out + place[:, None] * pieces_n + columns[None, :], total, mask=there)
""",
            **holes,
        ),
    ]


def _reshaped(*shape: int) -> list[ast.stmt]:
    sizes = ast.List([constant(size) for size in shape], ast.Load())
    return statements("total = tl.reshape(total, S)", S=sizes)


def _folded(kernel: Kernel, axis: int) -> list[ast.stmt]:
    return statements("total = F", F=expression(FOLDED[kernel.match.op], X=name("total"), A=constant(axis)))
