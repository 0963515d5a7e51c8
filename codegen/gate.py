"""The last gate before generated code runs: an allow-list over its syntax tree."""

import ast
import re
from collections.abc import Iterable
from itertools import chain
from typing import NoReturn

from ..compiler.verify import InternalError

NODES: frozenset[type[ast.AST]] = frozenset(
    {
        *(ast.Module, ast.Import, ast.ImportFrom, ast.alias, ast.FunctionDef, ast.arguments, ast.arg),
        *(ast.Return, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Pass, ast.For, ast.While, ast.If),
        *(ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Load, ast.Store),
        *(ast.Call, ast.keyword, ast.IfExp, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp, ast.USub, ast.Not, ast.Invert),
        *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
        *(ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift, ast.RShift),
        *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Is, ast.IsNot),
    }
)
IMPORTS = frozenset({("triton", None), ("triton.language", "tl")})
HOPPER = frozenset("fence_async_shared mbarrier tma warpgroup_mma warpgroup_mma_wait".split())
FROM_IMPORTS = frozenset(
    {
        ("triton.experimental", "gluon", None),
        ("triton.experimental.gluon", "language", "tl"),
        *(("triton.experimental.gluon.language.nvidia.hopper", name, None) for name in HOPPER),
    }
)
RESERVED = frozenset({"tl", "triton", "gluon", *HOPPER})
BUILTINS = frozenset({"bool", "float", "int", "len", "max", "min", "range"})
TL = frozenset(
    """
    abs arange argmax argmin associative_scan assume atomic_add atomic_cas atomic_max atomic_min atomic_or broadcast
    broadcast_to cast cat cdiv ceil clamp constexpr cumsum debug_barrier device_assert div_rn dot dot_scaled exp exp2
    expand_dims fdiv flip floor fma full gather histogram interleave join load load_tensor_descriptor log log2
    make_tensor_descriptor max max_constancy max_contiguous maximum min minimum multiple_of num_programs permute
    pointer_type program_id range ravel reduce reshape rsqrt sort split sqrt static_assert static_range store
    store_tensor_descriptor sum swizzle2d tensor topk trans umulhi view where xor_sum zeros zeros_like
    DotOperandLayout NVMMADistributedLayout SliceLayout allocate_shared_memory convert_layout warp_specialize
    bfloat16 float16 float32 float64 float8e4nv float8e5 int1 int8 int16 int32 int64 uint8 uint16 uint32 uint64
    """.split()
)
# Attributes and methods of tensors and descriptors.
MEMBERS = frozenset(
    """
    T block_type dtype element_ty index layout load nbytes permute reshape shape split store to trans type value
    """.split()
)
COPIES = frozenset("async_copy_global_to_shared async_copy_shared_to_global store_wait".split())
BARRIERS = frozenset("MBarrierLayout arrive expect init wait".split())


def refuse(what: str, node: ast.AST | None = None) -> NoReturn:
    """Stop: the code generator made something that it never should."""
    place = f"line {node.lineno}: " if isinstance(node, ast.stmt | ast.expr | ast.arg) else ""
    raise InternalError(f"generated code, {place}{what} is not allowed")


def verify(source: str) -> None:
    """Raise InternalError unless a kernel module holds only what kernels need; nothing of it has run by then."""
    if not all(line.isprintable() for line in source.replace("\t", " ").split("\n")):
        refuse("a control character")
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InternalError(f"generated code does not parse: {error}") from error
    for node in ast.walk(tree):
        check_node(node)
    module_names = {*RESERVED, *BUILTINS, *chain.from_iterable(map(top_names, tree.body))}
    for statement in tree.body:
        match statement:
            case ast.FunctionDef():
                check_function(statement, module_names)
            case ast.Import() | ast.ImportFrom():
                check_imports(statement)
            case ast.Expr(ast.Constant(str())):
                pass
            case ast.Assign(value=value) if is_constant(value):
                pass
            case ast.AnnAssign(annotation=annotation, value=ast.expr() as value) if is_constant(value):
                check_annotation(annotation)
            case _:
                refuse(f"a {type(statement).__name__} outside functions", statement)


def check_node(node: ast.AST) -> None:
    """What holds for a node wherever it stands."""
    if type(node) not in NODES:
        refuse(f"`{type(node).__name__}`", node)
    match node:
        case ast.Name(name) | ast.arg(name) | ast.FunctionDef(name) | ast.keyword(str(name)):
            if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is None:
                refuse(f"the name `{name}`", node)
        case ast.Attribute(value, name):
            if name not in members(value):
                refuse(f"`.{name}` here", node)
        case ast.Constant(value) if not (value is None or isinstance(value, str | int | float)):
            refuse(f"the constant {value!r}", node)
        case _:
            pass


def members(value: ast.expr) -> frozenset[str]:
    """What may follow a dot after a value."""
    match value:
        case ast.Name("triton" | "gluon"):
            return frozenset({"jit"})
        case ast.Name("tma"):
            return COPIES
        case ast.Name("mbarrier"):
            return BARRIERS
        case ast.Name("tl"):
            return TL | {"math"}
        case ast.Attribute(ast.Name("tl"), "math"):
            return TL
        case _:
            return MEMBERS


def check_imports(node: ast.Import | ast.ImportFrom) -> None:
    """Only the imports of the two prologues."""
    for name in node.names:
        if isinstance(node, ast.Import):
            known = (name.name, name.asname) in IMPORTS
        else:
            known = node.level == 0 and (node.module, name.name, name.asname) in FROM_IMPORTS
        if not known:
            refuse(f"`{ast.unparse(node)}`", node)


def top_names(statement: ast.stmt) -> Iterable[str]:
    """Names that a top-level statement defines."""
    match statement:
        case ast.FunctionDef(name):
            return [name]
        case ast.Assign() | ast.AnnAssign():
            return stored(statement)
        case _:
            return []


def stored(tree: ast.AST) -> Iterable[str]:
    """Names assigned anywhere below a node; none of them may hide what the other checks rely on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)):
            name = node.arg if isinstance(node, ast.arg) else node.id
            if name in BUILTINS or name in RESERVED:
                refuse(f"another `{name}`", node)
            yield name


def check_function(function: ast.FunctionDef, module_names: set[str]) -> None:
    """A top-level `@triton.jit` or `@gluon.jit` function that reads only its own names and the module's."""
    if [ast.unparse(d).partition("(")[0] for d in function.decorator_list] not in (["triton.jit"], ["gluon.jit"]):
        refuse(f"`{function.name}` without the one decorator `@triton.jit`", function)
    at_import = [*function.args.defaults, *filter(None, function.args.kw_defaults)]
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call):
            at_import += [*decorator.args, *(k.value for k in decorator.keywords)]
    for value in at_import:
        if not is_constant(value):
            refuse(f"`{ast.unparse(value)}`, evaluated on import,", value)
    for annotation in (function.returns, *(a.annotation for a in ast.walk(function) if isinstance(a, ast.arg))):
        if annotation is not None:
            check_annotation(annotation)
    known = module_names | set(stored(function))
    for node in chain.from_iterable(map(ast.walk, function.body)):
        if isinstance(node, ast.Name) and node.id not in known:
            refuse(f"the undefined name `{node.id}`", node)
        if isinstance(node, ast.FunctionDef | ast.Import | ast.ImportFrom):
            refuse(f"a {type(node).__name__} inside a function", node)


def check_annotation(annotation: ast.expr) -> None:
    """Annotations are evaluated on import, and Triton knows one that matters."""
    if ast.unparse(annotation) != "tl.constexpr":
        refuse(f"the annotation `{ast.unparse(annotation)}`", annotation)


def is_constant(value: ast.expr) -> bool:
    """A literal or a tuple of them, perhaps negated or wrapped in `tl.constexpr`."""
    match value:
        case ast.Constant():
            return True
        case ast.Tuple(items):
            return all(map(is_constant, items))
        case ast.UnaryOp(ast.USub(), operand):
            return is_constant(operand)
        case ast.Call(ast.Attribute(ast.Name("tl"), "constexpr"), [only], []):
            return is_constant(only)
        case _:
            return False
