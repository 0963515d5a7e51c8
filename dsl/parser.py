"""Text to syntax tree, with every syntax error of the text rather than the first."""

from typing import cast

from .automaton import Automaton, terminals
from .builder import Item
from .diagnostics import CompileError, Diagnostic
from .scanner import MAX_ERRORS, Scan, Word, scan
from .source import Source, Span
from .syntax import Claim, Expr, File, Import, PatternDef, Precompile, StackDef
from .unexpected import DEFINITIONS, STARTERS, describe, repair, starts
from .walk import claim_parts, expressions, walk

MAX_DEPTH = 128
# What can also stand where a body ends: of a pattern or a stack, of claims, of a layer's heads.
_BODIES = ("coverage", "complete", "heads")


def parse(source: Source) -> File:
    """The syntax tree of a file; raises CompileError with all its syntax errors."""
    scanned = _scan(source)
    items = cast(tuple[Item, ...], _run(source, scanned, "file"))
    file = File(
        tuple(i for i in items if isinstance(i, Import)),
        tuple(i for i in items if isinstance(i, Precompile)),
        tuple(i for i in items if isinstance(i, PatternDef)),
        tuple(i for i in items if isinstance(i, StackDef)),
        tuple(scanned.comments),
        span=Span(source, 0, len(source.text)),
    )
    for expr in expressions(file):
        _check_depth(expr)
    return file


def parse_expression(source: Source) -> Expr:
    """The syntax tree of one expression, such as a parameter's value given as text."""
    expr = cast(Expr, _run(source, _scan(source), "expression"))
    _check_depth(expr)
    return expr


def parse_claim(source: Source) -> Claim:
    """The syntax tree of one claim, such as one given on a command line."""
    claim = cast(Claim, _run(source, _scan(source), "claim_line"))
    for expr in claim_parts(claim):
        _check_depth(expr)
    return claim


def _scan(source: Source) -> Scan:
    return scan(source, terminals())


def _check_depth(expr: Expr) -> None:
    """Refuse trees that later passes, which recurse, could not walk."""
    for node, depth in walk(expr):
        if depth > MAX_DEPTH:
            raise CompileError([Diagnostic("E011", node.span, f"more than {MAX_DEPTH} operators deep")])


def _run(source: Source, scanned: Scan, start: str) -> object:
    machine = _Machine(scanned, start)
    result = machine.run()
    errors = sorted(machine.errors, key=lambda d: d.span.start if d.span else 0)[:MAX_ERRORS]
    if errors:
        raise CompileError(errors)
    assert result is not None, "the parser stops without a result only after an error"
    return result


class _Machine:
    """The automaton, driven word by word and put back on its feet after each error."""

    def __init__(self, scanned: Scan, start: str) -> None:
        self.words = scanned.words
        self.errors = list(scanned.errors)
        self.automaton = Automaton(start)

    def run(self) -> object:
        at = 0
        while at < len(self.words) and len(self.errors) < MAX_ERRORS:
            if not self.automaton.feed(self.words[at]):
                at = self._recover(at)
            else:
                at += 1
        return self.automaton.result

    def _recover(self, at: int) -> int:
        """Report the word, then return the index to go on from, with the stack cut to match."""
        expected = self.automaton.expected()
        self.errors.append(describe(self.words, at, expected))
        word = self.words[at]
        if self.errors[-1].code == "E008":
            word.type = "NAME"
            return at
        if word.text == "{" and "layers" in expected:
            self.words.insert(at, Word(terminals()["layers"], "layers", word.span))
            return at
        better = repair(self.words, at)
        if better == "":
            return at + 1
        if better is not None and better in expected:
            word.type, word.text = terminals()[better], better
            return at
        return self._resynchronise(at)

    def _resynchronise(self, at: int) -> int:
        """Skip to a word that starts or ends something, and to a state that takes it."""
        open_braces, in_header = self._context(at)
        while at < len(self.words) - 1:
            word = self.words[at]
            if word.text == "{" and in_header and self.automaton.cut(word, "{"):
                return at
            if word.text == "{":
                open_braces += 1
            elif word.text == "}" and open_braces:
                open_braces -= 1
            elif word.text in STARTERS or word.text == "}":
                in_header = False
                # A brace ends a body here: where only a set could end, no statement could follow.
                if self.automaton.cut(word, *(_BODIES if word.text == "}" else (word.text,))):
                    return at
            at += 1
        return len(self.words)

    def _context(self, at: int) -> tuple[int, bool]:
        """Braces open since the statement's keyword, and whether its own body has yet to open."""
        open_braces = 0
        for word in reversed(self.words[:at]):
            if starts(word):
                body = 1 if word.text in (*DEFINITIONS, "coverage", "layers") and open_braces > 0 else 0
                return max(0, open_braces - body), word.text in (*DEFINITIONS, "coverage") and not body
            open_braces += {"{": 1, "}": -1}.get(word.text, 0)
        return 0, False
