"""House rules no linter knows: sizes, one module a guest library, links, and how code is generated."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("dsl", "compiler", "codegen", "patterns")
FOLDERS = (*PACKAGES, "weft", "tests", "examples", "benchmarks")
FILE_LINES = 400
FUNCTION_LINES = 60
GUESTS = ("islpy", "sympy", "networkx")
DEPRECATED = "make_block" + "_ptr"
# The functions that turn text into syntax: what they are given must be constant, with nodes in the holes.
QUOTES = {"parse", "quote", "expr", "stmt", "stmts", "expression", "statement", "statements", "template"}


def python_files(root: Path) -> Iterator[Path]:
    """Our own Python files, each once: by its real path, not through the links of weft/."""
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            if not any(p.is_symlink() for p in (path, *path.parents) if p.is_relative_to(root)):
                yield path


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every absolute import."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from ((node.lineno, alias.name.partition(".")[0]) for alias in names)
            case ast.ImportFrom(module=str(module), level=0):
                yield node.lineno, module.partition(".")[0]
            case _:
                pass


def is_built_text(node: ast.expr) -> bool:
    """Whether an expression makes a string out of parts."""
    match node:
        case ast.JoinedStr(values):
            return any(isinstance(v, ast.FormattedValue) for v in values)
        case ast.BinOp(op=ast.Mod() | ast.Add()):
            return any(isinstance(n, ast.JoinedStr) or is_text(n) for n in (node.left, node.right))
        case ast.Call(func=ast.Attribute(value, "format")):
            return is_text(value)
        case _:
            return False


def is_text(node: ast.expr) -> bool:
    """Whether an expression is a string literal."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def broad(handler: ast.ExceptHandler) -> bool:
    """Whether a handler catches more than it can know about."""
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(c is None or (isinstance(c, ast.Name) and c.id in {"Exception", "BaseException"}) for c in caught)


def function_name(call: ast.Call) -> str:
    """The last part of the name that a call calls."""
    match call.func:
        case ast.Name(name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""


def check_tree(tree: ast.Module, folder: str) -> Iterator[tuple[int, str]]:
    """Faults of one file's syntax tree."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if folder != "tests":
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > FUNCTION_LINES:
                    yield node.lineno, f"function {node.name} has {size} lines, {FUNCTION_LINES} are allowed"
            case ast.ExceptHandler() if broad(node):
                yield node.lineno, "broad except"
            case ast.Call() if folder == "codegen" and function_name(node) in QUOTES:
                if any(is_built_text(a) for a in (*node.args, *(k.value for k in node.keywords))):
                    yield node.lineno, "code built out of text; put a node into a hole instead"
            case _:
                pass
    for line, name in imported(tree):
        if name in PACKAGES:
            yield line, f"import of {name}; it is weft.{name}"


def check_links(root: Path) -> Iterator[str]:
    """Faults of the links that make the four folders sub-packages."""
    for name in PACKAGES:
        link = root / "weft" / name
        if not link.is_symlink() or link.readlink() != Path("..", name):
            yield f"weft/{name}: not a link to ../{name}"


def faults(root: Path = ROOT) -> list[str]:
    """Every broken rule of a checkout, as `file:line: what`."""
    found = list(check_links(root))
    hosts: dict[str, set[str]] = {guest: set() for guest in GUESTS}
    for path in python_files(root):
        where, text = path.relative_to(root), path.read_text(encoding="utf-8")
        folder, tree = where.parts[0], ast.parse(text)
        if text.count("\n") > FILE_LINES:
            found.append(f"{where}: {text.count(chr(10))} lines, {FILE_LINES} are allowed")
        if DEPRECATED in text:
            found.append(f"{where}: {DEPRECATED} is deprecated; use pointers or a descriptor")
        found += [f"{where}:{line}: {what}" for line, what in check_tree(tree, folder)]
        for line, name in imported(tree):
            if name in GUESTS and folder in (*PACKAGES, "weft") and not where.match("compiler/relation*.py"):
                hosts[name].add(f"{where}:{line}")
    allowed = {"islpy": 0, "sympy": 1, "networkx": 1}
    for name, places in hosts.items():
        if len({p.partition(":")[0] for p in places}) > allowed[name]:
            found.append(f"{name} is imported in {', '.join(sorted(places))}")
    return found


def main() -> int:
    """Print the broken rules; the exit status says whether there are any."""
    found = faults()
    print("\n".join(found) or "house rules kept")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
