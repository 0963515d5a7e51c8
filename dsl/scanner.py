"""Text to words: budgets and forbidden characters are settled here, before any parser runs."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .diagnostics import CompileError, Diagnostic
from .source import Source, Span
from .syntax import Comment

MAX_BYTES = 256 * 1024
MAX_WORDS = 6_000
MAX_NESTING = 64
MAX_NAME = 64
MAX_LITERAL = 2**31
MAX_ERRORS = 20

END = "$END"

# Words that are keywords where what follows says so, and names everywhere else: before a binder, and after `in`.
REDUCTIONS = frozenset(("sum", "mean", "max", "min", "descend"))
RULES = frozenset(("top", "cover", "reach", "under"))
# Keywords where the grammar has a place for them, names everywhere else: variables, and words people name things.
SOFT = frozenset(
    "layers heads every complete density reaches within at n axis q k last softmax where by counting among "
    "total visible triangle order when count".split()
).union(REDUCTIONS, RULES)
# Those of them with which a number may begin where an expression could also have ended.
OPENERS = frozenset(("q", "k", "n", "softmax", "count")) | REDUCTIONS

# Control characters, surrogates, line separators and the bidirectional controls of CVE-2021-42574:
# none of them belongs in a comment either. A carriage return may only precede a line feed.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|\r(?!\n)"
)
_WORD = re.compile(
    r"""(?P<SPACE>[ \t\r\n]+)
      | (?P<COMMENT>\#[^\n]*)
      | (?P<DOCSTRING>\"\"\"[\s\S]*?\"\"\")
      | (?P<NAME>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<DECIMAL>[0-9]+\.[0-9]+)
      | (?P<NUMBER>[0-9][0-9A-Za-z_]*)
      | (?P<SYMBOL><<|>>|<=|>=|==|!=|//|\.\.|[-<>=+*/%&^|()\[\]{},.:])
      | (?P<FOREIGN>[^\x00-\x7f]+)
      | (?P<OTHER>\"\"\"|.)""",
    re.VERBOSE,
)
_LOOKALIKES = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u00d7": "*", "\u00b7": "*", "\u2264": "<=", "\u2265": ">=",
    "\u2260": "!=", "\u2227": "and", "\u2228": "or", "\u00ac": "not", "\u2208": "in", "\u2209": "not in",
    "\u00a0": "a plain space", "\u2026": "..", "\u2223": "|", "\u230a": "//", "\u201c": '"""', "\u201d": '"""',
}  # fmt: skip
_ANCHORS = frozenset(("keep", "require", "drop", "causal", "let", "grid", "input", "pattern", "stack", "coverage"))


@dataclass(slots=True)
class Word:
    """One token, as the parser's tables want it: `type` is the terminal's name."""

    type: str
    text: str
    span: Span


@dataclass(slots=True)
class Scan:
    """What one pass over a text found; `errors` do not stop the parser, budgets do."""

    words: list[Word] = field(default_factory=list[Word])
    comments: list[Comment] = field(default_factory=list[Comment])
    errors: list[Diagnostic] = field(default_factory=list[Diagnostic])


def scan(source: Source, terminals: Mapping[str, str]) -> Scan:
    """The words and comments of a text; `terminals` maps keywords and symbols to their names.

    Raises CompileError for E011 and E012: past those nothing sensible can be said.
    """
    _check_characters(source)
    result = Scan()
    nesting = _Nesting()
    text = source.text
    for match in _matches(source):
        kind, lexeme = match.lastgroup or "OTHER", match.group()
        span = Span(source, match.start(), match.end())
        if kind == "COMMENT":
            before = text[text.rfind("\n", 0, span.start) + 1 : span.start]
            result.comments.append(Comment(lexeme[1:].rstrip(), not before.strip(), span=span))
            continue
        nesting.add(lexeme, span)
        result.words.append(Word(_terminal(kind, lexeme, span, terminals, result.errors), lexeme, span))
    foreign = [e for e in result.errors if e.code in ("E011", "E012")]
    if foreign:
        raise CompileError(foreign[:MAX_ERRORS])
    result.words.append(Word(END, "", Span(source, len(text), len(text))))
    for at, word in enumerate(result.words):
        if word.text in REDUCTIONS | RULES | {"softmax", "count"} and not _is_keyword(result.words, at):
            word.type = "NAME"
    return result


def _is_keyword(words: list[Word], at: int) -> bool:
    """Whether a word that starts a reduction, a rule or a softmax does so here."""
    after = [w.text for w in words[at + 1 : at + 4]]
    if words[at].text in REDUCTIONS:
        bound = len(after) == 3 and after[0] == "(" and after[1].isidentifier()
        return bound and (after[2] in ("<", "in") or (after[2] in (",", ")", "where") and _goes_on(words, at + 1)))
    if words[at].text == "count":
        after = [w.text for w in words[at + 1 : at + 5]]
        return len(after) == 4 and (after[0], after[2]) == ("(", "in") and after[3] in RULES
    if words[at].text in RULES:
        begins = after[0] == "(" or after[0].replace("_", "a")[:1].isalnum()
        # What is taken away from a name is an integer, and what ranks follows `by`.
        begins = begins or (after[0] == "-" and _ranks(words, at + 2))
        return at > 0 and words[at - 1].text == "in" and begins
    return after[0] == "("


def _goes_on(words: list[Word], opener: int) -> bool:
    """Whether an operand follows the bracket that closes this one, as after no call."""
    depth = 0
    for at in range(opener, len(words) - 1):
        depth += {"(": 1, ")": -1}.get(words[at].text, 0)
        if not depth:
            after = words[at + 1]
            return after.type in ("NAME", "NUMBER", "DECIMAL") or after.text in OPENERS | {"("}
    return False


def _ranks(words: list[Word], start: int) -> bool:
    """Whether `by score[..]` comes before the next statement."""
    for at in range(start, min(len(words) - 2, start + 64)):
        if words[at].text in _ANCHORS or words[at].text == "..":
            return False
        if words[at].text == "by" and words[at + 1].type == "NAME" and words[at + 2].text == "[":
            return True
    return False


def _matches(source: Source) -> list[re.Match[str]]:
    """The words and comments, counted before anything is made of them."""
    result: list[re.Match[str]] = []
    words = 0
    for match in _WORD.finditer(source.text):
        if match.lastgroup == "SPACE":
            continue
        words += match.lastgroup != "COMMENT"
        if words > MAX_WORDS:
            span = Span(source, match.start(), match.end())
            raise CompileError([Diagnostic("E011", span, f"more than {MAX_WORDS} words in one file")])
        result.append(match)
    return result


def _check_characters(source: Source) -> None:
    text = source.text
    if len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise CompileError([Diagnostic("E011", Span(source, 0, 0), f"the file is larger than {MAX_BYTES // 1024} KiB")])
    found: list[Diagnostic] = []
    for match in _FORBIDDEN.finditer(text):
        character = match.group()
        kind = "carriage return without a line feed" if character == "\r" else f"character U+{ord(character):04X}"
        message = f"{kind} is not allowed anywhere in a file"
        found.append(Diagnostic("E012", Span(source, match.start(), match.end()), message))
        if len(found) == MAX_ERRORS:
            break
    if found:
        raise CompileError(found)


def _terminal(kind: str, lexeme: str, span: Span, terminals: Mapping[str, str], errors: list[Diagnostic]) -> str:
    match kind:
        case "NAME":
            if len(lexeme) > MAX_NAME:
                errors.append(Diagnostic("E011", span, f"a name has {MAX_NAME} characters at most"))
            return terminals.get(lexeme, kind)
        case "NUMBER":
            if not lexeme.isdigit():
                hint = "integers are decimal digits, without `_`"
                errors.append(Diagnostic("E001", span, f"`{lexeme[:40]}` is not a number", hint))
            elif len(lexeme.lstrip("0")) > 10 or int(lexeme) > MAX_LITERAL:
                errors.append(Diagnostic("E005", span, "integer literals go up to 2147483648 (2^31)"))
            return kind
        case "SYMBOL":
            return terminals[lexeme]
        case "FOREIGN":
            plain = _LOOKALIKES.get(lexeme[0], "")
            hint = f"write {plain if plain.startswith('a ') else f'`{plain}`'}" if plain else ""
            message = f"character U+{ord(lexeme[0]):04X} is only allowed in comments and docstrings"
            errors.append(Diagnostic("E012", span, message, hint))
            return "OTHER"
        case _:
            return kind


class _Nesting:
    """How deep brackets and prefixes are at a point of the text."""

    def __init__(self) -> None:
        self.brackets = 0
        self.prefixes = 0

    def add(self, lexeme: str, span: Span) -> None:
        if lexeme in ("-", "not", "|"):
            self.prefixes += 1
        elif lexeme in ("(", "[", "{"):
            self.brackets += 1
        else:
            self.prefixes = 0
            if lexeme in (")", "]", "}"):
                self.brackets = max(0, self.brackets - 1)
            elif lexeme in _ANCHORS:
                self.brackets = 0
        if self.brackets > MAX_NESTING or self.prefixes > MAX_NESTING:
            raise CompileError([Diagnostic("E011", span, f"nested deeper than {MAX_NESTING} levels")])
