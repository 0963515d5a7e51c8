"""What patterns and stacks share: a definition of a file with some of its parameters given."""

from __future__ import annotations

from collections.abc import Mapping

from .compiler.lower import Given
from .dsl.diagnostics import CompileError, Diagnostic, did_you_mean
from .dsl.loader import Module
from .dsl.syntax import Definition


class Parameterised:
    """One definition of a `.sparse` file with some of its parameters given."""

    kind: str

    def __init__(self, module: Module, definition: Definition, given: Mapping[str, Given] | None = None) -> None:
        self.module = module
        self.definition = definition
        self.given = dict(given or {})

    @property
    def name(self) -> str:
        """Its name."""
        return self.definition.name

    @property
    def doc(self) -> str:
        """Its docstring."""
        return self.definition.doc

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the parameters that still need a value."""
        return tuple(p.name for p in self.definition.parameters if p.default is None and p.name not in self.given)

    def check_names(self) -> None:
        """Raise CompileError E007 when a given parameter does not exist."""
        known = [p.name for p in self.definition.parameters]
        for name in self.given:
            if name not in known:
                hint = did_you_mean(name, known) if known else "it has no parameters"
                message = f"`{self.name}` has no parameter `{name}`"
                raise CompileError([Diagnostic("E007", self.definition.span, message, hint)])

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.given.items())
        return f"<weft {self.kind} {self.name}({given})>"
