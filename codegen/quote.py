"""Quasi-quotes: Python templates with holes filled by syntax trees, never by text."""

import ast
import re

Hole = ast.expr | list[ast.stmt]

COMMENT = "#: "


class _Filler(ast.NodeTransformer):
    """Replace names that are holes; a statement that is only a hole takes a list of statements."""

    def __init__(self, holes: dict[str, Hole]) -> None:
        self.holes = holes

    def visit_Name(self, node: ast.Name) -> ast.expr:
        hole = self.holes.get(node.id)
        return hole if isinstance(hole, ast.expr) else node

    def visit_Expr(self, node: ast.Expr) -> ast.stmt | list[ast.stmt]:
        if isinstance(node.value, ast.Name):
            hole = self.holes.get(node.value.id)
            if isinstance(hole, list):
                return hole
        self.generic_visit(node)
        return node


def statements(template: str, **holes: Hole) -> list[ast.stmt]:
    """The statements of a template with its holes filled."""
    tree = ast.parse(template)
    return _Filler(holes).visit(tree).body


def expression(template: str, **holes: ast.expr) -> ast.expr:
    """The expression of a template with its holes filled."""
    tree = ast.parse(template, mode="eval")
    return _Filler(dict(holes)).visit(tree).body


def name(identifier: str) -> ast.Name:
    """A name, as a hole's filling."""
    return ast.Name(identifier, ast.Load())


def constant(value: int) -> ast.expr:
    """An integer; negative ones as Python writes them."""
    return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))


def comment(text: str) -> ast.stmt:
    """A comment line, carried as a string statement until printing; anything unprintable is dropped."""
    clean = re.sub(r"[^ -~]", "?", text)
    return ast.Expr(ast.Constant(COMMENT + clean))


def render(body: list[ast.stmt]) -> str:
    """The module's text, string statements that carry comments turned into comments."""
    module = ast.fix_missing_locations(ast.Module(body, []))
    lines: list[str] = []
    for line in ast.unparse(module).split("\n"):
        stripped = line.strip()
        if stripped[1 : 1 + len(COMMENT)] == COMMENT and stripped[:1] in "'\"":
            text = ast.literal_eval(stripped)
            lines.append(line[: len(line) - len(line.lstrip())] + "# " + text[len(COMMENT) :])
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"
