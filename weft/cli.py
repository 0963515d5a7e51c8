"""The `weft` command: what can be asked, and how answers and failures reach the terminal."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from importlib import import_module
from io import TextIOWrapper

from . import __version__
from .terminal import UsageError, render

EXAMPLES = """examples:
  weft show sliding_window -p window=256
  weft check masks/*.sparse
  weft explain masks/mine.sparse --n 1048576

FILE is a .sparse file or the name of a pattern that weft ships. Exit codes: 0 fine, 1 findings, 2 wrong usage.
"""

# Where each command lives: modules are imported only by the command that needs them.
COMMANDS = {
    "check": "commands",
    "fmt": "commands",
    "show": "commands",
    "explain": "commands",
    "coverage": "coverage_command",
    "compile": "commands",
    "stubs": "commands",
    "test": "trial",
    "demo": "demo",
}

# Tokens a command takes at most: it looks at every tile of queries.
MOST_TOKENS = 1 << 27

# argparse's `add_parser`, which makes one command.
Add = Callable[..., ArgumentParser]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that cannot show a character shows `?`
            stream.reconfigure(errors="replace")
    arguments = parser().parse_args(argv)
    module = import_module(f".{COMMANDS[arguments.command]}", __package__)
    from .dsl.diagnostics import CompileError

    try:
        code: int = getattr(module, f"run_{arguments.command}")(arguments)
        sys.stdout.flush()
        return code
    except CompileError as error:
        print("\n\n".join(render(d, sys.stderr) for d in error.diagnostics), file=sys.stderr)
        return 1
    except UsageError as error:
        print(f"weft: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader left, as `head` does; what is still buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def parser() -> ArgumentParser:
    """All commands and their options."""
    out = ArgumentParser(
        "weft",
        description="Declarative sparsity patterns, compiled to attention kernels.",
        epilog=EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    out.add_argument("--version", action="version", version=f"weft {__version__}")
    add = out.add_subparsers(dest="command", required=True, metavar="COMMAND").add_parser
    _check(add)
    _fmt(add)
    _show(add)
    _explain(add)
    _coverage(add)
    _compile(add)
    _test(add)
    _stubs(add)
    _demo(add)
    return out


def _command(add: Add, name: str, purpose: str, *examples: str) -> ArgumentParser:
    epilog = "examples:\n" + "\n".join(f"  weft {example}" for example in examples)
    return add(name, help=purpose, description=purpose, epilog=epilog, formatter_class=RawDescriptionHelpFormatter)


def _check(add: Add) -> None:
    command = _command(
        add,
        "check",
        "find errors and doubtful places in files",
        "check masks/mine.sparse",
        "check --strict masks/*.sparse",
        "check --format json masks/mine.sparse",
    )
    command.add_argument("files", nargs="+", metavar="FILE", help="files to check; `-` is standard input")
    command.add_argument("--strict", action="store_true", help="let warnings fail too")
    _add_format(command)


def _fmt(add: Add) -> None:
    command = _command(
        add,
        "fmt",
        "rewrite files in the one canonical layout",
        "fmt masks/mine.sparse",
        "fmt --check masks/*.sparse",
        "fmt - < masks/mine.sparse",
    )
    command.add_argument("files", nargs="+", metavar="FILE", help="files to rewrite; `-` copies standard input")
    command.add_argument("--check", action="store_true", help="write nothing, exit 1 if a file would change")


def _show(add: Add) -> None:
    command = _command(
        add,
        "show",
        "draw a mask",
        "show power_attention --n 8192",
        "show masks/mine.sparse -p window=64 --svg mine.svg",
        "show packed_documents --docs 4",
        "show moba --qkv layer7.safetensors --head 3",
    )
    _add_pattern(command)
    command.add_argument("--n", type=length, default=1024, help="number of tokens (default: 1024)")
    command.add_argument("--heads", type=positive, help="number of heads (default: what the pattern suggests)")
    command.add_argument("--head", type=natural, default=0, help="the head to draw (default: 0)")
    command.add_argument("--svg", metavar="OUT.svg", help="write a picture to this file; `-` is standard output")
    _add_tensors(command)
    _add_inputs(command)
    _add_format(command)


def _explain(add: Add) -> None:
    command = _command(
        add,
        "explain",
        "say what runs and what it costs",
        "explain sliding_window --n 1048576",
        "explain moa -p 'alpha=[[256, 512]]' -p 'beta_eighths=[[1, 2]]' --kv-heads 1",
        "explain masks/mine.sparse --source --target sm80",
        "explain moba --qkv layer7.safetensors",
    )
    _add_pattern(command)
    command.add_argument("--n", type=length, default=8192, help="number of keys (default: 8192)")
    command.add_argument("--m", type=length, help="number of queries, the last ones (default: as many as keys)")
    _add_heads(command)
    command.add_argument("--layer", type=natural, default=0, help="this layer (default: 0)")
    command.add_argument("--layers", type=positive, default=1, help="number of layers (default: 1)")
    command.add_argument("--block-m", type=positive, default=128, help="queries of a tile (default: 128)")
    command.add_argument("--block-n", type=positive, default=128, help="keys of a tile (default: 128)")
    command.add_argument("--dtype", choices=DTYPES, default="bf16", help="type of the numbers (default: bf16)")
    command.add_argument("--source", action="store_true", help="masks: print the generated kernel instead")
    command.add_argument("--target", default="sm90", help="what the kernel is for: sm80, sm90, .. (default: sm90)")
    _add_qkv(command)
    _add_inputs(command)
    _add_format(command)


def _coverage(add: Add) -> None:
    command = _command(
        add,
        "coverage",
        "prove what a stack of layers lets each token see",
        "coverage power_attention --n 1048576 --layers 24",
        "coverage masformer --path 5:100000 --n 131072 --html masformer.html",
        "coverage power_attention 'sliding_window(window=2304)' --n 32768",
        "coverage masks/mine.sparse --claim 'complete within 12 layers' --claim 'density < 10%'",
    )
    command.add_argument(
        "files", nargs="+", metavar="FILE", help="files or shipped names; FILE(NAME=VALUE) sets values"
    )
    command.add_argument("--pattern", metavar="NAME", help="which pattern or stack of the file")
    command.add_argument(
        "-p", dest="params", type=pair, action="append", default=[], metavar="NAME=VALUE", help="a parameter's value"
    )
    command.add_argument("--n", type=length, default=8192, help="number of tokens (default: 8192)")
    command.add_argument("--layers", type=positive, help="how often a pattern is repeated (default: 24)")
    _add_heads(command)
    command.add_argument("--dtype", choices=DTYPES, default="bf16", help="type of the numbers (default: bf16)")
    command.add_argument("--path", type=tokens, metavar="A:B", help="show how what token A says gets to token B")
    command.add_argument("--claim", action="append", default=[], metavar="CLAIM", help="fail unless this holds")
    command.add_argument("--html", metavar="OUT.html", help="write one self-contained page")
    command.add_argument("--svg", metavar="OUT.svg", help="write what the whole stack reaches as a picture")
    command.add_argument("--png", metavar="OUT.png", help="the same as a PNG")
    _add_inputs(command)
    _add_format(command)


def _compile(add: Add) -> None:
    command = _command(
        add,
        "compile",
        "build machine code of masks ahead of time; needs no GPU",
        "compile sliding_window --target sm90 --dtype bf16 --head-dim 128",
        "compile masks/mine.sparse --target sm80,sm90 --dtype fp16,bf16",
        "compile s2_attention --heads 32 --kv-heads 8",
    )
    _add_pattern(command)
    command.add_argument("--target", type=words, default=["sm90"], metavar="T[,T]", help="targets (default: sm90)")
    command.add_argument("--dtype", type=words, default=["bf16"], metavar="D[,D]", help="dtypes (default: bf16)")
    _add_heads(command)


def _test(add: Add) -> None:
    command = _command(
        add,
        "test",
        "compare a pattern's tiles and attention with its dense mask, on this machine",
        "test masks/mine.sparse",
        "test sliding_window -p window=16 -n 100 257",
        "test neighborhood_2d -p height=9 -p width=11 -n 99",
        "test xattention --n 4096 --heads 8 --kv-heads 2",
    )
    _add_pattern(command)
    command.add_argument(
        "-n",
        "--n",
        type=length,
        nargs="+",
        metavar="N",
        help="lengths (default: 1 63 100 257, and for selections one at which there is something to choose)",
    )
    command.add_argument("--heads", type=positive, help="number of heads (default: what the pattern suggests)")
    _add_tensors(command)
    _add_format(command)


def _stubs(add: Add) -> None:
    command = _command(
        add,
        "stubs",
        "write NAME.pyi beside each NAME.sparse, for editors and type checkers",
        "stubs masks/mine.sparse",
        "stubs masks/*.sparse",
        "stubs mypackage/*.sparse",
    )
    command.add_argument("files", nargs="+", metavar="FILE", help="files to describe")


def _demo(add: Add) -> None:
    command = _command(
        add,
        "demo",
        "check, explain, draw and run a pattern, start to end",
        "demo",
        "demo --device cuda",
        "demo --n 4096",
    )
    command.add_argument("--n", type=length, default=8192, help="tokens of the timing (default: 8192)")
    command.add_argument("--device", help="cpu or cuda (default: cuda where there is one)")


DTYPES = ("bf16", "fp16", "fp32")


def _add_pattern(command: ArgumentParser) -> None:
    command.add_argument("file", metavar="FILE", help="a .sparse file, or the name of a shipped pattern")
    command.add_argument("--pattern", metavar="NAME", help="which pattern of the file (default: its namesake or last)")
    command.add_argument(
        "-p", dest="params", type=pair, action="append", default=[], metavar="NAME=VALUE", help="a parameter's value"
    )


def _add_heads(command: ArgumentParser) -> None:
    command.add_argument("--head-dim", type=positive, default=128, help="size of one head (default: 128)")
    command.add_argument("--heads", type=positive, help="query heads (default: what the pattern suggests)")
    command.add_argument("--kv-heads", type=positive, help="key/value heads (default: as many)")


def _add_qkv(command: ArgumentParser) -> None:
    command.add_argument(
        "--qkv",
        metavar="F.safetensors",
        help="selections: q, k, v `[(B,) heads, tokens, D]`, and inputs by name; their lengths count, and no others",
    )


def _add_tensors(command: ArgumentParser) -> None:
    _add_qkv(command)
    command.add_argument("--kv-heads", type=positive, help="selections: key/value heads made up (default: as many)")
    command.add_argument("--head-dim", type=positive, help="selections: size of a made-up head (default: 32)")
    command.add_argument("--seed", type=natural, help="selections: of what is made up (default: 0)")


def _add_inputs(command: ArgumentParser) -> None:
    command.add_argument(
        "--input", type=pair, action="append", default=[], metavar="NAME=0,0,1|F.npy", help="an input's numbers"
    )
    command.add_argument("--docs", type=positive, metavar="N", help="make up inputs: N equally long documents")


def _add_format(command: ArgumentParser) -> None:
    command.add_argument("--format", choices=("text", "json"), default="text", help="for people or for programs")


def natural(text: str) -> int:
    """A number, 0 or above."""
    if not text.isdecimal() or len(text) > 18:
        raise ArgumentTypeError(f"{text[:40]!r} is not a number, 0 or above")
    return int(text)


def positive(text: str) -> int:
    """A number above zero."""
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise ArgumentTypeError(f"{text[:40]!r} is not a number above 0")
    return int(text)


def length(text: str) -> int:
    """A number of tokens that a command can look at."""
    tokens = positive(text)
    if tokens > MOST_TOKENS:
        raise ArgumentTypeError(f"{text} tokens are too many: at most {MOST_TOKENS} (2^27)")
    return tokens


def pair(text: str) -> tuple[str, str]:
    """`name=value`."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def tokens(text: str) -> tuple[int, int]:
    """`A:B`, two tokens."""
    first, _, second = text.partition(":")
    return natural(first), natural(second)


def words(text: str) -> list[str]:
    """Comma-separated words."""
    return [word for word in text.split(",") if word]
