"""Errors as data: a code, a place, a sentence and a hint; one renderer."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from .source import Span

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding about one place of a file."""

    code: str
    span: Span | None
    message: str
    hint: str = ""
    severity: Severity = "error"

    def render(self) -> str:
        """The finding in rustc's style, with the line it speaks of."""
        if self.span is None:
            head = f"{self.severity}[{self.code}]: {self.message}"
            return head + (f"\n  = help: {self.hint}" if self.hint else "")
        line, column = self.span.source.position(self.span.start)
        text = self.span.source.line(line)
        width = max(1, min(self.span.end - self.span.start, len(text) - column + 1))
        gutter = f"{line:>4} | "
        caret = " " * (len(gutter) - 2) + "| " + "".join("\t" if c == "\t" else " " for c in text[: column - 1])
        parts = [
            f"{self.span.where}: {self.severity}[{self.code}]: {self.message}",
            gutter + text,
            caret + "^" * width,
        ]
        if self.hint:
            parts.append(" " * (len(gutter) - 2) + f"= help: {self.hint}")
        return "\n".join(parts)

    def as_dict(self) -> dict[str, object]:
        """The finding as JSON-ready data."""
        place: dict[str, object] = {"file": None, "line": None, "column": None}
        if self.span is not None:
            line, column = self.span.source.position(self.span.start)
            place = {"file": self.span.source.path, "line": line, "column": column}
        return {"code": self.code, "severity": self.severity, "message": self.message, "hint": self.hint, **place}


class CompileError(ValueError):
    """A pattern that cannot be used, with every diagnostic that says why."""

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__("\n\n".join(d.render() for d in self.diagnostics))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint naming the closest known names, or listing them."""
    # A name may be known and out of place: it is no hint then.
    choices = sorted(set(known) - {name})
    close = [c for c in choices if c.lower() == name.lower()] or get_close_matches(name, choices, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return "known here: " + ", ".join(f"`{c}`" for c in choices) if choices else ""
