"""A pattern's inputs from the command line: numbers, `.npy` files, or made up."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from .tensors import TensorError, host_inputs
from .terminal import UsageError, reason

if TYPE_CHECKING:
    from .compiler.expand import Ints
    from .compiler.ir import Mask
    from .pattern import Pattern


def host_arrays(
    pattern: Pattern, mask: Mask, arguments: Namespace, n: int, m: int, heads: int, needed: bool = True
) -> dict[str, Ints]:
    """The inputs a mask reads; without `needed`, none at all if none are given. Raises UsageError."""
    given: dict[str, Any] = {name: numbers(name, text) for name, text in arguments.input}
    if arguments.docs:
        given = made_up(mask, n, m, heads, arguments.docs) | given
    if not given and not needed:
        return {}
    try:
        return host_inputs(pattern, mask, given, n, m, heads)
    except TensorError as error:
        hint = "" if given else "; give it as --input NAME=0,0,1, or make one up with --docs 4"
        raise UsageError(f"{error}{hint}") from None


def numbers(name: str, text: str) -> Ints:
    """`0,0,1,1`, or the array in a file."""
    try:
        if text.endswith(".npy"):
            found = np.load(text, allow_pickle=False)
            if not isinstance(found, np.ndarray):
                raise ValueError
            return found
        return np.array([int(word) for word in text.split(",")])
    except OSError as error:
        raise UsageError(f"cannot read {text}: {reason(error)}") from None
    except (ValueError, EOFError, BadZipFile):
        raise UsageError(f"input `{name}`: {text!r} is neither integers nor a .npy file") from None


def made_up(mask: Mask, n: int, m: int, heads: int, docs: int) -> dict[str, Ints]:
    """Inputs that cut the tokens into `docs` documents: each token's is named by where it starts."""
    lengths = {"token": n, "key": n, "query": m, "head": heads}
    out: dict[str, Ints] = {}
    for table in mask.tables:
        if table.source:
            place = np.arange(lengths[table.axis])
            start = place // -(-len(place) // docs) * -(-len(place) // docs)
            # In a tree each token hangs on the one before it, and each document is a tree of its own.
            tree = table.kind in ("enter", "leave")
            out[table.source] = np.where(place == start, -1, place - 1) if tree else start
    return out
