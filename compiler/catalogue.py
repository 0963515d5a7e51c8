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


def shipped(name: str) -> Path:
    """The file of a shipped pattern or stack; raises CompileError E010 when there is none."""
    if name in stack_names():
        return FOLDER / "stacks" / f"{name}.sparse"
    if name not in names():
        hint = did_you_mean(name, (*names(), *stack_names()))
        raise CompileError([Diagnostic("E010", None, f"weft ships no pattern or stack `{name}`", hint)])
    return FOLDER / f"{name}.sparse"
