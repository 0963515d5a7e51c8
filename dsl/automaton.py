"""The one door to lark: its LALR(1) tables, fed word by word so that a parse can survive errors."""

from collections.abc import Callable, Mapping, Set
from functools import cache
from pathlib import Path
from typing import Any, cast

from lark import Lark
from lark.exceptions import UnexpectedToken
from lark.lexer import PatternStr

from . import build_selection, builder
from .cache_folder import cache_folder, make_private
from .scanner import END, SOFT, Word


class _Reductions:
    """What lark calls for each rule: the builders' function of that name."""

    def __getattr__(self, rule: str) -> Callable[[list[object]], object]:
        # An AttributeError is right for the helper rules that lark makes: it has its own reductions for them.
        reduction = getattr(build_selection, rule, None) or getattr(builder, rule)
        return lambda children: reduction(*children)


@cache
def _grammar() -> Lark:
    return Lark(
        Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8"),
        parser="lalr",
        lexer="basic",
        start=["file", "expression", "claim_line"],
        transformer=cast(Any, _Reductions()),
        keep_all_tokens=True,
        maybe_placeholders=False,
        cache=_table_file(),
    )


def _table_file() -> str | bool:
    """Where lark keeps the tables it made of the grammar, which cost a third of a start; False if that is not safe."""
    try:
        folder = cache_folder()
        make_private(folder)
        return str(folder / "grammar.tables")
    except (OSError, RuntimeError):  # Path.home() raises the latter
        return False


@cache
def terminals() -> Mapping[str, str]:
    """The grammar's name of every keyword and symbol, by its spelling."""
    return {t.pattern.value: t.name for t in _grammar().terminals if isinstance(t.pattern, PatternStr)}


@cache
def _spellings() -> Mapping[str, str]:
    return {name: text for text, name in terminals().items()}


class Automaton:
    """A parse in progress; `result` is set once the end was fed."""

    def __init__(self, start: str) -> None:
        # Lark's types are partly unknown; nothing of them leaves this class.
        self._parser: Any = cast(Any, _grammar()).parse_interactive(start=start)
        self._state: Any = self._parser.parser_state
        self._table: dict[object, dict[str, object]] = self._state.parse_conf.parse_table.states
        self.result: object = None

    def feed(self, word: Word) -> bool:
        """Take one word; False, without taking it, where the grammar has no place for it."""
        actions = self._table[self._state.position]
        if word.text in SOFT and word.type not in actions and "NAME" in actions:
            word.type = "NAME"
        try:
            result = self._parser.feed_token(word)
        except UnexpectedToken:
            return False
        if word.type == END:
            self.result = result
        return True

    def expected(self) -> Set[str]:
        """Spellings of the words that could come next; names of terminals that have no one spelling."""
        return {_spellings().get(name, name) for name in self._parser.accepts()}

    def cut(self, word: Word, *beside: str) -> bool:
        """Forget what is half read until `word` fits where one of `beside` would too; False if it never does."""
        states: list[object] = self._state.state_stack
        for size in range(len(states), 0, -1):
            actions = self._table[states[size - 1]]
            if word.type not in actions or all(terminals()[b] not in actions for b in beside):
                continue
            probe = self._parser.copy(deepcopy_values=False)
            del probe.parser_state.state_stack[size:], probe.parser_state.value_stack[size - 1 :]
            if word.type in probe.accepts():
                del states[size:], self._state.value_stack[size - 1 :]
                return True
        return False
