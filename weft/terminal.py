"""What commands share: wrong usage, colours, and reading what the user named."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from .dsl.diagnostics import Diagnostic

COLOURS = {"red": "1;31", "yellow": "1;33", "green": "32", "bold": "1"}


class UsageError(Exception):
    """The command line names something that is not there or does not fit; one line says what."""


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Text in a colour, plain where nobody looks at a terminal."""
    shown = (stream or sys.stdout).isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if shown else text


def render(finding: Diagnostic, stream: TextIO | None = None) -> str:
    """A diagnostic, its severity in colour."""
    head = f"{finding.severity}[{finding.code}]"
    colour = "red" if finding.severity == "error" else "yellow"
    return finding.render().replace(head, paint(head, colour, stream), 1)


def require_readable(path: str) -> None:
    """Raise UsageError unless a file can be opened."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason(error)}") from None


def reason(error: OSError) -> str:
    """What the system says, in lower case as the rest of the line."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def write_file(path: str, text: str) -> None:
    """Write a text as it is; raises UsageError."""
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {reason(error)}") from None
