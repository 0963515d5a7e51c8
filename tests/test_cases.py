"""Golden diagnostics: each tests/cases/*.sparse ends with the exact findings that it gives."""

import contextlib
import os
from pathlib import Path

import pytest

from weft.check import check_pattern, check_stack
from weft.dsl.checker import check
from weft.dsl.diagnostics import CompileError, Diagnostic
from weft.dsl.loader import load_text
from weft.pattern import Pattern

CASES = Path(__file__).resolve().parent / "cases"
MARK = "#---- expect\n"
# Every code has a case of its own.
CODES = [*(f"E{i:03}" for i in range(1, 16)), *(f"W{i}" for i in range(101, 106))]


def split(path: Path) -> tuple[str, str]:
    """The text of a case, and the findings it expects."""
    text, mark, expected = path.read_text("utf-8").partition(MARK)
    assert mark, f"{path.name} has no line {MARK.strip()!r}"
    return text, expected


def diagnose(path: Path) -> list[Diagnostic]:
    """What is wrong with a case: its syntax and imports, or its names and types, or what its patterns mean."""
    with contextlib.chdir(path.parent):  # messages name imported files as the user would
        try:
            module = load_text(split(path)[0], path.name, roots=[Path()])
        except CompileError as error:
            return list(error.diagnostics)
        found = list(check(module))
        if not any(d.severity == "error" for d in found):
            found += [d for p in module.file.patterns for d in check_pattern(Pattern(module, p))]
            found += [d for stack in module.file.stacks for d in check_stack(module, stack)]
        return found


@pytest.mark.parametrize("path", sorted(CASES.glob("*.sparse")), ids=lambda p: p.stem)
def test_case(path: Path) -> None:
    found = "\n\n".join(d.render() for d in diagnose(path))
    found += "\n" if found else ""
    text, expected = split(path)
    if found != expected and os.environ.get("WEFT_WRITE_CASES"):
        path.write_text(text + MARK + found, "utf-8")
    assert found == expected, "if the new text is right: WEFT_WRITE_CASES=1 pytest tests/test_cases.py"


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_a_case(code: str) -> None:
    cases = list(CASES.glob(f"{code.lower()}_*.sparse"))
    assert cases and all(f"[{code}]" in split(path)[1] for path in cases)
