"""Type stubs of `.sparse` files, so that editors and type checkers know what an import of one gives."""

from keyword import iskeyword

from .dsl.printer import format_expression
from .dsl.syntax import File, Parameter, PatternDef, StackDef
from .dsl.uses import is_dynamic

# What a module passes on to a main pattern with a fixed mask.
PASSED_ON = ("attention", "coverage", "mask", "plan", "show", "source", "svg")


def stub_text(file: File, stem: str = "") -> str:
    """The text of NAME.pyi for a NAME.sparse; `stem` is that name."""
    found = [d for d in (*file.stacks, *file.patterns) if not iskeyword(d.name)]
    names = ", ".join(f'"{d.name}"' for d in found)
    kinds = ", ".join(["Pattern", "Stack"] if file.stacks else ["Pattern"])
    main = next((d for d in found if d.name == stem), found[-1] if found else None)
    passed_on = [] if main is None else [f"{name} = {main.name}.{name}" for name in passed_on_by(main)]
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


def passed_on_by(main: PatternDef | StackDef) -> tuple[str, ...]:
    """What works on the main pattern or stack: a selection has no fixed mask to show, and a stack no attention."""
    if isinstance(main, StackDef):
        return ("coverage",)
    return ("attention",) if is_dynamic(main) else PASSED_ON


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
