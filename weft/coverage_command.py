"""`weft coverage`: from the command line to reports, files and an exit code."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .commands import locate, raise_usage, value
from .covering import USUAL_LAYERS, coverage, heads_of, lowered
from .dsl.diagnostics import CompileError, Diagnostic, did_you_mean
from .inputs import made_up, numbers
from .pattern import Pattern, choose, read_module
from .stacks import Stack, choose_stack
from .terminal import UsageError, paint, write_file

if TYPE_CHECKING:
    from .compiler.coverage import Coverage

COLOURS = {
    "complete after": "green",
    "holds": "green",
    "never complete": "red",
    "not complete": "red",
    "fails": "red",
    "undecided": "yellow",
}
# Seconds after which a person wants to know what takes so long.
SILENCE = 1.0


def run_coverage(arguments: Namespace) -> int:
    """`weft coverage`; 1 when a claim does not hold."""
    subjects = [subject_of(text, arguments) for text in arguments.files]
    # Side by side, what does not tell heads apart is taken with as many as the others have.
    most = max(heads_of(subject, arguments.layers or USUAL_LAYERS) for subject in subjects)
    reports = [report_of(*pair, most, arguments) for pair in zip(arguments.files, subjects, strict=True)]
    if arguments.html:
        from .compiler.coverage_page import as_page

        write_file(arguments.html, as_page(reports))
    if arguments.svg:
        from .compiler.coverage_svg import picture_svg

        write_file(arguments.svg, picture_svg(reports[0].pictures[-1], f"{reports[0].name}, {reports[0].n} tokens"))
    if arguments.png:
        from .compiler.coverage_png import picture_png

        write_bytes(arguments.png, picture_png(reports[0].pictures[-1]))
    if arguments.format == "json":
        from .compiler.coverage_json import as_dict

        print(json.dumps(as_dict(reports), indent=2))
    else:
        print(as_text(reports))
    return int(any(verdict.status != "holds" for report in reports for verdict in report.verdicts))


def as_text(reports: list[Coverage]) -> str:
    """One report in full, or several side by side with each one's claims."""
    from .compiler import coverage_text

    text = coverage_text.as_text(reports[0]) if len(reports) == 1 else coverage_text.comparison_text(reports)
    return "\n".join(map(coloured, text.split("\n")))


def coloured(line: str) -> str:
    """A line that says how it went, in the colour of that, where colours are shown."""
    colour = next((colour for word, colour in COLOURS.items() if line.lstrip().startswith(word)), "")
    return paint(line, colour) if colour else line


def subject_of(text: str, arguments: Namespace) -> Pattern | Stack:
    """What FILE or FILE(NAME=VALUE, ..) means."""
    name, params = split(text)
    given = {**dict(arguments.params), **params}
    subject = chosen(locate(name), arguments.pattern, {key: value(word) for key, word in given.items()})
    if isinstance(subject, Stack) and arguments.layers:
        raise UsageError(f"{name}: --layers is for patterns; a stack says itself how many layers it has")
    return subject


def report_of(text: str, subject: Pattern | Stack, most: int, arguments: Namespace) -> Coverage:
    """The report of one FILE or FILE(NAME=VALUE, ..), with `most` heads where it does not tell heads apart."""
    n, layers = arguments.n, arguments.layers or USUAL_LAYERS
    own = heads_of(subject, layers)
    heads = arguments.heads or (most if own == 1 else own)
    try:
        inputs = given_inputs(subject, arguments, layers, heads)
        found = coverage(
            subject, n, layers, heads, arguments.kv_heads, arguments.head_dim, arguments.path, tuple(arguments.claim),
            inputs, 4 if arguments.dtype == "fp32" else 2, progress(text),
        )  # fmt: skip
    except CompileError:
        raise
    except ValueError as error:
        raise_usage(error)
        raise AssertionError from error
    given = {**dict(arguments.params), **split(text)[1]}
    label = ", ".join(f"{key}={word}" for key, word in given.items())
    return replace(found, name=f"{subject.name}({label})" if label else subject.name)


def split(text: str) -> tuple[str, dict[str, str]]:
    """`FILE` or `FILE(NAME=VALUE, ..)`; commas inside brackets belong to a value."""
    if not text.endswith(")") or "(" not in text:
        return text, {}
    name, _, inside = text[:-1].partition("(")
    words, depth = [""], 0
    for letter in inside:
        depth += (letter in "[({") - (letter in "])}")
        if letter == "," and not depth:
            words.append("")
        else:
            words[-1] += letter
    params: dict[str, str] = {}
    for word in filter(None, map(str.strip, words)):
        key, equals, given = word.partition("=")
        if not equals or not key.strip().isidentifier():
            raise UsageError(f"{text}: {word!r} is not NAME=VALUE")
        if key.strip() in params:
            raise UsageError(f"{text}: `{key.strip()}` is given twice")
        params[key.strip()] = given.strip()
    return name, params


def chosen(path: str, name: str | None, params: dict[str, Any]) -> Pattern | Stack:
    """The stack or pattern meant by a name, or the file's main one: its namesake, else its last stack or pattern."""
    from .check import check_module

    module = read_module(path)
    check_module(module)
    stacks = {stack.name for stack in module.file.stacks}
    patterns = {pattern.name for pattern in module.file.patterns}
    if name and name not in stacks | patterns:
        message = f"{module.source.path} has no pattern or stack `{name}`"
        raise CompileError([Diagnostic("E002", None, message, did_you_mean(name, stacks | patterns))])
    wanted = name or (module.name if module.name in stacks | patterns else None)
    if wanted in stacks or (wanted is None and stacks):
        subject: Pattern | Stack = Stack(module, choose_stack(module, wanted), params)
    else:
        subject = Pattern(module, choose(module, wanted), params)
    subject.check_names()
    return subject


def given_inputs(subject: Pattern | Stack, arguments: Namespace, layers: int, heads: int) -> dict[str, Any]:
    """Inputs from the command line, and with --docs made up ones for the others."""
    given: dict[str, Any] = {name: numbers(name, text) for name, text in arguments.input}
    if arguments.docs:
        stack = lowered(subject, layers, heads, arguments.kv_heads or heads)
        for layer in stack.layers:
            for one in layer:
                given = made_up(one.mask, arguments.n, arguments.n, heads, arguments.docs) | given
    return given


def progress(what: str) -> Callable[[str], None]:
    """Says on a terminal which step is under way, once a report takes long."""
    start = time.perf_counter()

    def say(step: str) -> None:
        if time.perf_counter() - start > SILENCE:
            print(f"{what}: {step} ..", file=sys.stderr, flush=True)

    return say if sys.stderr.isatty() else lambda _: None


def write_bytes(path: str, data: bytes) -> None:
    """Write a file; raises UsageError."""
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
