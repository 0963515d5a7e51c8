"""The patterns shipped with weft, by name."""

from pathlib import Path

from ..dsl.diagnostics import CompileError, Diagnostic, did_you_mean

FOLDER = Path(__file__).resolve().parent.parent / "patterns"


def names() -> tuple[str, ...]:
    """Names of all shipped patterns."""
    return tuple(sorted(p.stem for p in FOLDER.glob("*.sparse")))


def stack_names() -> tuple[str, ...]:
    """Names of all shipped stacks."""
    return tuple(sorted(p.stem for p in (FOLDER / "stacks").glob("*.sparse")))


def selection_names() -> tuple[str, ...]:
    """Names of all shipped patterns that select by content."""
    return tuple(sorted(p.stem for p in (FOLDER / "selection").glob("*.sparse")))


def shipped(name: str) -> Path:
    """The file of a shipped pattern or stack; raises CompileError E010 when there is none."""
    for folder, found in (("", names()), ("stacks", stack_names()), ("selection", selection_names())):
        if name in found:
            return FOLDER / folder / f"{name}.sparse"
    hint = did_you_mean(name, (*names(), *stack_names(), *selection_names()))
    raise CompileError([Diagnostic("E010", None, f"weft ships no pattern or stack `{name}`", hint)])
