"""A stack as users hold it: which pattern each layer and head of a model uses."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compiler.lower import Given
from .compiler.stack import LoweredStack, lower_stack
from .dsl.diagnostics import CompileError, Diagnostic, did_you_mean
from .dsl.loader import Module, load_text, search_roots
from .dsl.syntax import StackDef
from .parameterised import Parameterised
from .pattern import read_module

if TYPE_CHECKING:
    from .compiler.coverage import Coverage


class Stack(Parameterised):
    """One stack of a `.sparse` file with some of its parameters given."""

    kind = "stack"
    definition: StackDef

    def __call__(self, /, **params: Given) -> Stack:
        """The same stack with other parameter values."""
        other = Stack(self.module, self.definition, {**self.given, **params})
        other.check_names()
        return other

    def lower(self, heads: int, kv_heads: int | None = None) -> LoweredStack:
        """The mask of every head of every layer; raises CompileError."""
        return lower_stack(self.module, self.definition, self.given, heads, kv_heads or heads)

    def coverage(
        self,
        n: int = 8192,
        *,
        heads: int | None = None,
        kv_heads: int | None = None,
        head_dim: int = 128,
        path: tuple[int, int] | None = None,
        claims: str | tuple[str, ...] = (),
        **inputs: Any,
    ) -> Coverage:
        """What the layers let each of n tokens see; `path` is (key, query), `claims` as in a `coverage` block."""
        from .covering import coverage

        return coverage(self, n, 1, heads, kv_heads, head_dim, path, claims, inputs)


def load_stack(path_or_text: str | os.PathLike[str], name: str | None = None, /, **params: Given) -> Stack:
    """A stack from a file, from text (what has `{` or a line break), or shipped with weft by bare name.

    `name` chooses one of several stacks of a file; without it the file's namesake or last stack is meant.
    Raises CompileError with every finding; a missing file is E010.
    """
    from .check import check_module

    module = read_module(path_or_text)
    check_module(module)
    stack = Stack(module, choose_stack(module, name), params)
    stack.check_names()
    return stack


def load_file_stacks(text: str, path: str) -> dict[str, Stack]:
    """Every stack of a file's text, checked; `path` is its place, for messages and imports."""
    from .check import check_module

    module = load_text(text, path, search_roots(Path(path).parent))
    check_module(module)
    return {stack.name: Stack(module, stack) for stack in module.file.stacks}


def choose_stack(module: Module, name: str | None) -> StackDef:
    """The stack meant by a name, or the file's main one: its namesake, else its last."""
    stacks = {stack.name: stack for stack in module.file.stacks}
    if name is None and stacks:
        return stacks.get(module.name, module.file.stacks[-1])
    if name not in stacks:
        message = f"{module.source.path} has no stack `{name}`" if name else f"{module.source.path} has no stack"
        only_patterns = module.file.patterns and not stacks
        hint = "it has patterns: `weft.load`" if only_patterns else did_you_mean(name or "", stacks)
        raise CompileError([Diagnostic("E002", None, message, hint)])
    return stacks[name]
