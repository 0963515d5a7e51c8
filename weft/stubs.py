"""Type stubs of `.sparse` files, so that editors and type checkers know what an import of one gives."""

from keyword import iskeyword

from .dsl.printer import format_expression
from .dsl.syntax import File, Parameter, PatternDef


def stub_text(file: File) -> str:
    """The text of NAME.pyi for a NAME.sparse."""
    patterns = [p for p in file.patterns if not iskeyword(p.name)]
    names = ", ".join(f'"{p.name}"' for p in patterns)
    return "\n".join(
        [
            "# Written by `weft stubs`; run it again when the .sparse file changes.",
            "from weft import Pattern",
            "",
            f"__all__ = [{names}]",
            *(line for pattern in patterns for line in stub_lines(pattern)),
            "",
        ]
    )


def stub_lines(pattern: PatternDef) -> list[str]:
    """A pattern's declaration, its parameters as a comment and its docstring as editors show it."""
    parameters = ", ".join(map(parameter_text, pattern.parameters))
    lines = ["", f"# {pattern.name}({parameters})", f"{pattern.name}: Pattern"]
    if pattern.doc:
        plain = '"""' not in pattern.doc and "\\" not in pattern.doc and not pattern.doc.endswith('"')
        lines.append(f'"""{pattern.doc}"""' if plain else repr(pattern.doc))
    return lines


def parameter_text(parameter: Parameter) -> str:
    """A parameter as the language writes it."""
    axes = f"[{', '.join(parameter.type.axes)}]" if parameter.type.axes else ""
    default = "" if parameter.default is None else f" = {format_expression(parameter.default)}"
    return f"{parameter.name}: {parameter.type.name}{axes}{default}"
