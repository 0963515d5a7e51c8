"""What to say about a word the grammar has no place for."""

from collections.abc import Set
from difflib import get_close_matches
from itertools import pairwise

from .diagnostics import Diagnostic
from .scanner import END, REDUCTIONS, Word
from .source import Span
from .unexpected_selection import missing_rule, selection_hint

STATEMENTS = ("keep", "require", "drop", "causal", "let", "grid", "input", "axis", "order")
DEFINITIONS = ("pattern", "stack")
# What may start a line of a stack or of its claims; `layers` and `heads` are variables too.
LINES = ("coverage", "layers", "heads", "complete", "density", "reaches")
STARTERS = frozenset((*STATEMENTS, *DEFINITIONS, *LINES, "import", "precompile"))

# What other languages write, and what to read in its place so that the parser can go on.
_REPAIRS = {";": "", "=": "==", "!": "not", "\\": ""}

_HINTS = {
    ";": "statements need no `;`: each starts with its keyword",
    "=": "compare with `==`",
    "!": "write `not`",
    "\\": "line breaks mean nothing, so no `\\` is needed",
    "if": "there is no `if`: join conditions with `and`, `or`, `not`",
    "else": "there is no `else`: write one `keep` for each case, they unite",
    "for": "there are no loops: a pattern speaks of every pair (q, k) at once",
    "def": 'a pattern is written `pattern name(parameters) { "docstring" statements }`',
    "return": "there is no `return`: `keep`, `require` and `drop` say which pairs are in",
    "?": "there is no `? :`: join conditions with `and`, `or`, `not`",
    "~": "there is no `~`: write `not` for conditions, `-e - 1` for integers",
    "@": "decorators do not exist here: a pattern starts with `pattern`",
    '"': 'text stands only in docstrings, between `"""` and `"""`',
    "'": 'text stands only in docstrings, between `"""` and `"""`',
    '"""': 'a docstring ends with `"""`',
    "..": "a range stands to the right of `in`: `e in a .. b`",
}
# Pairs of symbols that are each legal alone; the hint is for the pair.
_PAIRS = {
    ("&", "&"): "write `and` for `&&`",
    ("|", "|"): "write `or` for `||`",
    ("*", "*"): "there is no power: write the number, or `1 << e` for a power of two",
    ("<", ">"): "compare with `!=`",
    ("=", "<"): "compare with `<=`",
    ("=", ">"): "compare with `>=`",
    ("==", "="): "compare with `==`",
}
_CLOSERS = {"(": ")", "[": "]", "{": "}"}


def starts(word: Word) -> bool:
    """Whether a word starts something: `layers` and its like do not where the parser took them for names."""
    return word.text in STARTERS and word.type != "NAME"


def repair(words: list[Word], at: int) -> str | None:
    """The spelling that was meant by `words[at]`, "" if it can just go, None if that is unclear."""
    if words[at].text == ";" and (opener := _opener(words, at)) is not None and opener.text != "{":
        return ","
    doubled = (words[at].text, words[min(at + 1, len(words) - 1)].text) in _PAIRS
    return None if doubled else _REPAIRS.get(words[at].text)


def describe(words: list[Word], at: int, expected: Set[str]) -> Diagnostic:
    """The diagnostic for `words[at]`, where any of `expected` could have stood."""
    word, before = words[at], words[at - 1] if at else None
    if _defines(words, at) and "NAME" in expected and word.type != "NAME" and word.text.isidentifier():
        return Diagnostic("E008", word.span, f"`{word.text}` is a keyword and cannot be a name")
    if (fault := missing_rule(words, at)) is not None:
        return fault
    pair = _pair(words, at)
    if pair is not None:
        first, second, hint = pair
        span = Span(first.span.source, first.span.start, second.span.end)
        return Diagnostic("E001", span, f"`{first.text}{second.text}` is not an operator", hint)
    found = "the end of the text" if word.type == END else f"`{_shorten(word.text)}`"
    span = word.span
    ends = word.type == END or starts(word) or word.text == "}"
    if before is not None and ends and "pattern" not in expected:
        # What is missing is missing here, not on the line where the next thing starts.
        span = Span(before.span.source, before.span.end, before.span.end)
    opener = _opener(words, at)
    message = f"expected {_wanted(expected, opener)}, found {found}"
    return Diagnostic("E001", span, message, _hint(words, at, expected, opener))


def _shorten(text: str) -> str:
    line = text.split("\n")[0].rstrip()
    return line if len(line) <= 40 and line == text else line[:40] + "..."


def _defines(words: list[Word], at: int) -> bool:
    """Whether the word stands where a name is being given."""
    if at == 0:
        return False
    before, after = words[at - 1].text, words[min(at + 1, len(words) - 1)].text
    return before in ("let", "input", "axis", "order", *DEFINITIONS, "as") or (before in ("(", ",") and after == ":")


def _pair(words: list[Word], at: int) -> tuple[Word, Word, str] | None:
    """The last doubled symbol of the statement up to the word, if it follows an operand."""
    for i in range(min(at + 1, len(words) - 1), 0, -1):
        first, second = words[i - 1], words[i]
        if starts(first):
            return None
        hint = _PAIRS.get((first.text, second.text))
        touching = first.span.end == second.span.start
        if hint and touching and i > 1 and words[i - 2].type in ("NAME", "NUMBER", "RPAR", "RSQB"):
            return first, second, hint
        if first.text in _CLOSERS or at - i > 64:
            return None
    return None


def _opener(words: list[Word], at: int) -> Word | None:
    """The innermost bracket of the statement that is still open before the word."""
    closed = 0
    for word in reversed(words[:at]):
        if starts(word) and word.text not in DEFINITIONS:
            return None
        if word.text in _CLOSERS:
            if not closed:
                return word
            closed -= 1
        elif word.text in _CLOSERS.values():
            closed += 1
    return None


def _statement(words: list[Word], at: int) -> list[Word]:
    """The words of the statement that the word is in or after, before it."""
    start = next((i for i in range(at - 1, -1, -1) if starts(words[i]) or words[i].text in ("axis", "order")), 0)
    return words[start:at]


def _reduction(words: list[Word], at: int) -> str | None:
    """The `sum` or its like whose arguments end before the word, which would go on after binders only."""
    if not at or words[at - 1].text != ")":
        return None
    opener = _opener(words, at - 1)
    name = next((a for a, b in pairwise(words[:at]) if b is opener), None)
    return name.text if name is not None and name.text in REDUCTIONS else None


def _wanted(expected: Set[str], opener: Word | None) -> str:
    """The expected words in human terms."""
    if "NUMBER" in expected and "(" in expected:
        return "an expression"
    parts: list[str] = []
    # The automaton may have finished the operand before it noticed, so not every operator is left.
    operand = not expected.isdisjoint(("+", ">", "and", "or"))
    if operand:
        parts.append("an operator")
    if "|" in expected and expected.isdisjoint(("and", "..", ":")):
        parts.append("the closing `|`")
    if "keep" in expected:
        parts.append("the next statement" if operand else "a statement (`keep`, `require`, `drop`, ..)")
    if "NAME" in expected:
        parts.append("a name")
    if "NUMBER" in expected:
        parts.append("an integer")
    brackets = () if operand or "=" in expected else ("(", "[")
    parts.extend(f"`{e}`" for e in (":", "over", "head_dim", *brackets, "{", "]", ")", ",") if e in expected)
    if "=" in expected and not operand:
        parts.append("`=`")
    if "}" in expected and (not operand or (opener is not None and opener.text == "{")):
        parts.append("`}`")
    if expected.isdisjoint(("keep", "and")):
        parts.extend(
            f"`{e}`" for e in ("..", "every", "within", "at", "<", "q", "k", "by", "of", "where") if e in expected
        )
    if "keep" not in expected:
        parts.extend(f"`{e}`" for e in LINES if e in expected)
    parts.extend(f"`{e}`" for e in ("import", "precompile", *DEFINITIONS) if e in expected)
    if not parts:
        parts.extend("the end of the text" if e == END else f"`{e}`" for e in sorted(expected))
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " or " + parts[-1]


def _hint(words: list[Word], at: int, expected: Set[str], opener: Word | None) -> str:
    word = words[at]
    if word.text == ":" and "{" in expected and "NUMBER" not in expected:
        return "the statements of a pattern stand between `{` and `}`"
    if word.text in ("import", "precompile"):
        return "`import` lines come first, then `precompile` lines, then patterns and stacks"
    if word.text in STATEMENTS and "pattern" in expected:
        return "statements stand inside `pattern name { .. }`"
    if word.text in LINES and "stack" in expected:
        return "`layers` and `coverage` stand inside `stack name over depth layers { .. }`"
    if word.text in STATEMENTS and "layers" in expected and "coverage" in expected:
        return "a stack says which patterns its layers use: `layers 0 .. 4: window(512)`"
    if ".." in expected and "and" not in expected and (opener is None or opener.text != "["):
        return "one alone is `{5}`, several are `0 .. 4`, `every 2` or `else`"
    fresh = word.type == "NAME" and "keep" in expected and word.span.line > words[max(at - 1, 0)].span.line
    if not fresh and (hint := selection_hint(words, at, _statement(words, at), expected, opener)):
        return hint
    for near in words[at : max(at - 2, -1) : -1] if at else words[:1]:
        # `keep if a` fails at `a`: the word before may be the one to explain.
        if near.text in _HINTS and (near is word or near.type == "NAME"):
            return _HINTS[near.text]
    if (reduction := _reduction(words, at)) is not None:
        return f"what `{reduction}` runs over: `{reduction}(i in I) ..`, `{reduction}(r < 16) ..`, `{reduction}(J) ..`"
    if word.type == "NAME" and (close := get_close_matches(word.text, sorted(STARTERS & expected), 1, 0.7)):
        return f"did you mean `{close[0]}`?"
    if fresh:
        return f"a statement starts with {', '.join(f'`{s}`' for s in STATEMENTS[:-1])} or `{STATEMENTS[-1]}`"
    if "}" in expected and (word.type == END or word.text in DEFINITIONS):
        start = next((w for w in reversed(words[:at]) if w.text in DEFINITIONS), word)
        return f"the {start.text} of line {start.span.line} is still open"
    if opener is not None and _CLOSERS[opener.text] in expected:
        line, column = opener.span.source.position(opener.span.start)
        return f"`{opener.text}` of line {line}, column {column} is still open"
    return ""
