"""What to say about a score, an axis or a rule that the grammar has no place for."""

import re
from collections.abc import Set
from difflib import get_close_matches
from itertools import pairwise, takewhile

from .diagnostics import Diagnostic
from .scanner import END, REDUCTIONS, RULES, Word

_RULE = "a rule is `keep J in top 3 by score[I, J]`, and after it, in this order, `counting (..) among (..) when ..`"
_KNOWN = "rules are `top 3 by`, `top 5% by`, `cover 0.9 by`, `reach 0.9 by` and `under 0.9 by`"
_ENDS = frozenset(("keep", "require", "drop", "causal", "let", "}"))
# How a statement goes that its own keyword begins.
_FORMS = {
    "axis": "such as `axis I = q // 64` or `axis J = k // 64`",
    "order": "an order is of keys: `order p = k by hot[k] within 256`",
    "input": "such as `input w[I, J]: float`, `input x[J]: vector` or `input doc[token]: int`",
}


def missing_rule(words: list[Word], at: int) -> Diagnostic | None:
    """The error of a word after `in` that would be a rule, were it spelt like one."""
    if at < 2 or words[at - 2].text != "in" or words[at - 1].type != "NAME":
        return None
    name, word = words[at - 1], words[at]
    rest = list(takewhile(lambda text: text not in _ENDS, (w.text for w in words[at : at + 24])))
    if word.type not in ("NUMBER", "DECIMAL", "NAME", "BY") or "by" not in rest or name.text in RULES:
        return None
    split = re.fullmatch(r"([a-z]+)([0-9]+)", name.text)
    close = get_close_matches(split.group(1) if split else name.text.lower(), sorted(RULES), 1)
    meant = f"{close[0]} {split.group(2)}" if close and split else close[0] if close else ""
    hint = f"did you mean `{meant}`?" if meant else _KNOWN
    return Diagnostic("E001", name.span, f"there is no rule `{name.text}`", hint)


def selection_hint(words: list[Word], at: int, statement: list[Word], expected: Set[str], opener: Word | None) -> str:
    """A hint where the word stands in a score, an axis or a rule; empty elsewhere."""
    word, texts = words[at], [w.text for w in statement]
    keyword, before = texts[0] if texts else "", texts[-1] if texts else ""
    if before == "." and word.type == "NUMBER":
        return f"write `0.{word.text}`"
    if word.text == "," and words[at - 1].type == "NUMBER" and words[at + 1].type == "NUMBER" and opener is None:
        return f"decimals have a point: `{before}.{words[at + 1].text}`"
    if opener is not None and opener.text == "[" and (word.text == ";" or word.type == words[at - 1].type == "NAME"):
        return "a comma stands between two indices: `w[I, J]`"
    if opener is not None and (hint := _inside(words, at, opener, expected)):
        return hint
    if opener is not None and opener.text == "[" and word.text in ("]", ",") and ".." in expected:
        return "a part of a vector is written `[0 .. 16]`"
    if opener is not None and opener.text == "[" and word.text == ":":
        return "a part of a vector is `x[0 .. 16]`"
    if opener is not None and opener.text == "[" and word.text == "=" and keyword == "let":
        return "the brackets end before it: `let w[I, J] = ..`"
    if word.text == "head_dim":
        return "what scores are multiplied by is `scale`: head_dim^-0.5, or what the call says"
    if "last" in texts and "of" in expected:
        return "the last tokens are those `of q` or `of k`: `last 64 of q`"
    if before == "when":
        return "such as `when a[I] < 0.5`, of scores that have a value for each cell of queries"
    if keyword == "axis" and word.text == "..":
        count = " ".join(texts[5:]) if texts[3:5] == ["n", "-"] else "64"
        return f"the last tokens are an axis: `axis {texts[1]} = last {count} of q`"
    if keyword in _FORMS and "keep" not in expected and word.text != "=":
        return _FORMS[keyword]
    if keyword == "let":
        return _of_score(word, texts)
    if keyword == "keep" and (RULES & set(texts) or word.text in RULES or word.text == "by"):
        if word.text == "where":
            return "which cells a rule may choose is said by `among (..)`"
        return f"write `top {before}% by`" if word.text.startswith("percent") else _RULE
    return ""


def _inside(words: list[Word], at: int, opener: Word, expected: Set[str]) -> str:
    """Within the brackets of a reduction or a softmax."""
    word = words[at]
    name = next((w.text for w, after in pairwise(words) if after is opener), "")
    if name in ("counting", "among") and word.text == ",":
        return "conditions are joined with `and` and `or`"
    if name not in REDUCTIONS | {"softmax"}:
        return ""
    if word.text == "if" and "where" in expected:
        return "write `where`"
    if name == "softmax":
        return "`softmax(E over J where J <= I)`" if "over" in expected or word.text == "over" else ""
    if word.text in ("for", "[", ".") or word.type == END:
        return f"what `{name}` runs over stands in its brackets, and its term after them: `{name}(t in I) Q[t]`"
    if "in" in (words[at - 1].text, words[at - 2].text):
        bound = words[at + 2].text if word.text == "0" and words[at + 1].text == ".." else "64"
        return f"names run through cells, or below a bound: `{name}(t in I) ..`, `{name}(r < {bound}) ..`"
    return ""


def _of_score(word: Word, texts: list[str]) -> str:
    """In a `let` that is a score, or would be one."""
    if word.text == "(" and len(texts) == 2:
        return f"a score is written with brackets: `let {texts[1]}[I, J] = ..`"
    if "=" not in texts and word.text != "=":
        return f"such as `let {texts[1]}[I, J] = ..`" if len(texts) > 2 else ""
    if word.text == "if":
        return "numbers have no `if`: conditions stand after `where`, in `among (..)` and after `when`"
    if texts[-1] in RULES:
        return f"rules stand after `keep .. in`: `keep J in {texts[-1]} {word.text} by s[I, J]`"
    if texts[-1] in REDUCTIONS:
        return f"what `{texts[-1]}` runs over stands in brackets: `{texts[-1]}(J) ..`, `{texts[-1]}(t in I) ..`"
    if word.text == "@":
        return "the dot product is `a . b`"
    if word.text == "where" and {"softmax", *REDUCTIONS} & set(texts):
        return "`where` stands inside the brackets: `softmax(E over J where C)`, `sum(J where C) E`"
    return ""
