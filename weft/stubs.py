"""Type stubs of `.sparse` files, so that editors and type checkers know what an import of one gives."""

from keyword import iskeyword

from .dsl.printer import format_expression
from .dsl.syntax import File, Parameter, PatternDef, StackDef

# What a module passes on to its main pattern or stack.
PASSED_ON = {PatternDef: ("attention", "coverage", "mask", "plan", "show", "source", "svg"), StackDef: ("coverage",)}


def stub_text(file: File, stem: str = "") -> str:
    """The text of NAME.pyi for a NAME.sparse; `stem` is that name."""
    found = [d for d in (*file.stacks, *file.patterns) if not iskeyword(d.name)]
    names = ", ".join(f'"{d.name}"' for d in found)
    kinds = ", ".join(["Pattern", "Stack"] if file.stacks else ["Pattern"])
    main = next((d for d in found if d.name == stem), found[-1] if found else None)
    passed_on = [] if main is None else [f"{name} = {main.name}.{name}" for name in PASSED_ON[type(main)]]
    return "\n".join(
        [
            "# Written by `weft stubs`; run it again when the .sparse file changes.",
            f"from weft import {kinds}",
            "",
            f"__all__ = [{names}]",
            *(line for definition in found for line in stub_lines(definition)),
            "",
            *passed_on,
            "",
        ]
    )


def stub_lines(pattern: PatternDef | StackDef) -> list[str]:
    """A pattern's declaration, its parameters as a comment and its docstring as editors show it."""
    parameters = ", ".join(map(parameter_text, pattern.parameters))
    kind = "Pattern" if isinstance(pattern, PatternDef) else "Stack"
    lines = ["", f"# {pattern.name}({parameters})", f"{pattern.name}: {kind}"]
    if pattern.doc:
        plain = '"""' not in pattern.doc and "\\" not in pattern.doc and not pattern.doc.endswith('"')
        lines.append(f'"""{pattern.doc}"""' if plain else repr(pattern.doc))
    return lines


def parameter_text(parameter: Parameter) -> str:
    """A parameter as the language writes it."""
    axes = f"[{', '.join(parameter.type.axes)}]" if parameter.type.axes else ""
    default = "" if parameter.default is None else f" = {format_expression(parameter.default)}"
    return f"{parameter.name}: {parameter.type.name}{axes}{default}"
