"""The commands that read and describe patterns; none of them needs torch."""

from __future__ import annotations

import json
import os
import sys
import time
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from .dsl.diagnostics import CompileError, Diagnostic
from .terminal import UsageError, paint, render, require_readable, write_file

if TYPE_CHECKING:
    from .compiler.report import Report
    from .dsl.loader import Module
    from .pattern import Pattern


def run_check(arguments: Namespace) -> int:
    """`weft check`."""
    found = {name: findings(name) for name in arguments.files}
    failing = ("error", "warning") if arguments.strict else ("error",)
    failed = any(d.severity in failing for diagnostics in found.values() for d in diagnostics)
    if arguments.format == "json":
        files = [{"file": name, "diagnostics": [d.as_dict() for d in found[name]]} for name in found]
        print(json.dumps({"schema": "weft.check/1", "ok": not failed, "files": files}, indent=2))
        return int(failed)
    for name, diagnostics in found.items():
        for finding in diagnostics:
            print(render(finding), end="\n\n")
        if not any(d.severity in failing for d in diagnostics):
            print(f"{name}: {paint('ok', 'green')}")
    return int(failed)


def findings(name: str) -> list[Diagnostic]:
    """Everything wrong or doubtful in a file: syntax, names and types, then what its patterns mean."""
    from .check import check_pattern, check_stack
    from .dsl.checker import check
    from .pattern import Pattern, no_pattern

    try:
        module = read_module(name)
    except CompileError as error:
        return list(error.diagnostics)
    found = list(check(module))
    if not module.file.patterns and not module.file.stacks:
        found.append(no_pattern(module))
    if not any(d.severity == "error" for d in found):
        for definition in module.file.patterns:
            found += check_pattern(Pattern(module, definition))
        for stack in module.file.stacks:
            found += check_stack(module, stack)
    return list(dict.fromkeys(found))


def read_module(name: str) -> Module:
    """The module of a file, of standard input (`-`), or of a shipped pattern."""
    from .dsl.loader import load_file, load_text

    if name == "-":
        return load_text(read_text(name), "<stdin>")
    return load_file(locate(name))


def locate(name: str) -> str:
    """The path of a file or of a shipped pattern; raises UsageError."""
    from .compiler.catalogue import names, selection_names, shipped, stack_names
    from .dsl.diagnostics import did_you_mean

    if name.isidentifier() and not os.path.exists(name):
        known = (*names(), *stack_names(), *selection_names())
        if name not in known:
            hint = did_you_mean(name, known)
            close = f"; {hint}" if hint.startswith("did you mean") else ""
            raise UsageError(f"cannot read {name}: no such file, and weft ships no pattern of that name{close}")
        return str(shipped(name))
    require_readable(name)
    return name


def run_fmt(arguments: Namespace) -> int:
    """`weft fmt`."""
    from .dsl.parser import parse
    from .dsl.printer import format_file
    from .dsl.source import Source

    code = 0
    for name in arguments.files:
        source = Source(name if name != "-" else "<stdin>", read_text(name))
        try:
            text = format_file(parse(Source(source.path, source.text.replace("\r\n", "\n"))))
        except CompileError as error:
            print("\n\n".join(render(d, sys.stderr) for d in error.diagnostics), file=sys.stderr)
            code = 1
            continue
        if name == "-" and not arguments.check:
            sys.stdout.write(text)
        elif text != source.text and arguments.check:
            print(f"{source.path}: would be rewritten")
            code = 1
        elif text != source.text:
            write_file(name, text)
            print(f"{name}: rewritten")
    return code


def read_text(name: str) -> str:
    """A file's text, line breaks as they are, or standard input (`-`)."""
    if name != "-":
        require_readable(name)
    try:
        with open(name if name != "-" else sys.stdin.fileno(), "rb", closefd=name != "-") as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CompileError([Diagnostic("E012", None, f"{name}: is not UTF-8 (byte {error.start})")]) from None


def run_stubs(arguments: Namespace) -> int:
    """`weft stubs`."""
    from .dsl.parser import parse
    from .dsl.source import Source
    from .stubs import stub_text

    for name in arguments.files:
        if not name.endswith(".sparse"):
            raise UsageError(f"{name} is not named NAME.sparse")
        target = name.removesuffix(".sparse") + ".pyi"
        file = parse(Source(name, read_text(name).replace("\r\n", "\n")))
        write_file(target, stub_text(file, os.path.basename(name).removesuffix(".sparse")))
        print(f"wrote {target}")
    return 0


def chosen_pattern(arguments: Namespace) -> Pattern:
    """The pattern that FILE, --pattern and -p mean; raises CompileError when something is wrong with it."""
    from .pattern import load

    pattern = load(locate(arguments.file), arguments.pattern, **{name: value(text) for name, text in arguments.params})
    pattern.prepare()
    return pattern


def value(text: str) -> Any:
    """A parameter's value: a number, `true`, rows of numbers, or else an expression as text."""
    try:
        found: Any = json.loads(text)
    except ValueError:
        return text
    return text if found is None or isinstance(found, float | str | dict) else found


def require_selection(pattern: Pattern, arguments: Namespace, *names: str) -> None:
    """Raise UsageError for options that only patterns that select by content have a use for."""
    given = [name for name in names if getattr(arguments, name) is not None]
    if given and not pattern.dynamic:
        flag = given[0].replace("_", "-")
        raise UsageError(f"--{flag} is for patterns that select by content, and {pattern.name} has a fixed mask")


def run_show(arguments: Namespace) -> int:
    """`weft show`."""
    from .check import natural_heads
    from .compiler.picture import draw_svg, draw_text, shades
    from .compiler.plan import Shape
    from .inputs import host_arrays

    pattern, n, source = chosen_pattern(arguments), arguments.n, ""
    require_selection(pattern, arguments, "qkv", "kv_heads", "head_dim", "seed")
    if pattern.dynamic:
        from .selection_trial import picture as chosen_picture

        picture, tensors = chosen_picture(pattern, arguments)
        n, heads, source = tensors.n, tensors.heads, f", {tensors.source}"
    else:
        heads = arguments.heads or natural_heads(pattern)
        if arguments.head >= heads:
            raise UsageError(f"there is no head {arguments.head} among {heads}")
        mask = pattern.bind(heads)
        arrays = host_arrays(pattern, mask, arguments, n, n, heads)
        picture = shades(mask, n, Shape(True, heads, heads), arrays, arguments.head)
    if arguments.svg:
        svg = draw_svg(picture, f"{pattern.name}, {n} tokens")
        if arguments.svg == "-":
            print(svg)
            return 0
        write_file(arguments.svg, svg)
    if arguments.format == "json":
        cells = [[round(float(shade), 4) for shade in row] for row in picture]
        head = {"pattern": pattern.name, "n": n, "head": arguments.head, "heads": heads}
        print(json.dumps({"schema": "weft.show/1", **head, "cells": cells}))
    else:
        which = f", head {arguments.head} of {heads}" if heads > 1 else ""
        print(f"{pattern.name}: {n} tokens{which}{source}; █ all pairs kept, ░▒▓ some, blank none")
        print(draw_text(picture))
    return 0


def run_explain(arguments: Namespace) -> int:
    """`weft explain`."""
    from .check import natural_heads
    from .compiler.report import as_dict, as_text

    pattern = chosen_pattern(arguments)
    require_selection(pattern, arguments, "qkv")
    if pattern.dynamic and not arguments.source:
        from .selection_explain import run_explain_selection

        return run_explain_selection(pattern, arguments)
    n, m = arguments.n, arguments.m or arguments.n
    heads = arguments.heads or natural_heads(pattern)
    kv_heads = arguments.kv_heads or heads
    if heads % kv_heads:
        raise UsageError(f"{heads} heads are not a multiple of {kv_heads} key/value heads")
    if arguments.layers > 1 and arguments.layer >= arguments.layers:
        raise UsageError(f"there is no layer {arguments.layer} among {arguments.layers}")
    if arguments.source:
        print_source(pattern, arguments, n, m, heads, kv_heads)
        return 0
    report = make_report(pattern, arguments, n, m, heads, kv_heads)
    print(json.dumps(as_dict(report), indent=2) if arguments.format == "json" else as_text(report))
    return 0


def print_source(pattern: Pattern, arguments: Namespace, n: int, m: int, heads: int, kv_heads: int) -> None:
    """The generated kernel."""
    shape = {"n": n, "m": m, "heads": heads, "kv_heads": kv_heads}
    shape |= {"layer": arguments.layer, "layers": arguments.layers, "head_dim": arguments.head_dim}
    try:
        print(pattern.source(target=arguments.target, dtype=arguments.dtype, **shape))
    except ValueError as error:
        raise_usage(error)


def make_report(pattern: Pattern, arguments: Namespace, n: int, m: int, heads: int, kv_heads: int) -> Report:
    """The report of a pattern for the sizes of a command line."""
    from .compiler.report import Call, explain
    from .inputs import host_arrays

    where = {"heads": heads, "kv_heads": kv_heads, "layer": arguments.layer, "layers": arguments.layers}
    mask = pattern.bind(**where)
    arrays = host_arrays(pattern, mask, arguments, n, m, heads, needed=False)
    start = time.perf_counter()
    plan = pattern.plan(n, m, **where, block_m=arguments.block_m, block_n=arguments.block_n)
    plan_ms = 1000 * (time.perf_counter() - start)
    call = Call(n, m, heads, kv_heads, arguments.head_dim, 4 if arguments.dtype == "fp32" else 2)
    return explain(plan, call, where=pattern.where, parameters=parameters(pattern), inputs=arrays, plan_ms=plan_ms)


def parameters(pattern: Pattern) -> tuple[tuple[str, str], ...]:
    """Each parameter's name and value."""
    from .dsl.printer import format_expression

    out: list[tuple[str, str]] = []
    for parameter in pattern.definition.parameters:
        default = "" if parameter.default is None else format_expression(parameter.default)
        given = pattern.given.get(parameter.name)
        text = default if given is None else str(given).lower() if isinstance(given, bool) else str(given)
        out.append((parameter.name, text))
    return tuple(out)


def raise_usage(error: ValueError) -> None:
    """A CompileError as it is; any other ValueError as wrong usage."""
    raise error if isinstance(error, CompileError) else UsageError(str(error)) from None


def run_compile(arguments: Namespace) -> int:
    """`weft compile`."""
    pattern = chosen_pattern(arguments)
    for target in arguments.target:
        for dtype in arguments.dtype:
            start = time.perf_counter()
            try:
                pattern.precompile(target, dtype, arguments.head_dim, arguments.heads or 1, arguments.kv_heads)
            except ValueError as error:
                raise_usage(error)
            seconds = time.perf_counter() - start
            print(f"{pattern.name}: built for {target}, {dtype}, head dim {arguments.head_dim} in {seconds:.1f} s")
    return 0
