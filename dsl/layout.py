"""Rows of canonical text and the comments around them: where each comment ends up."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from .syntax import Comment

INDENT = "    "


@dataclass(slots=True)
class Row:
    """A line of output (a docstring may be several) and the characters it stands for.

    `start` and `end` are offsets in the old text; a row without them attracts no comments.
    """

    text: str
    depth: int = 0
    start: int = -1
    end: int = -1
    opens: bool = False
    closes: bool = False
    apart: bool = False
    leading: list[Comment] = field(default_factory=list[Comment])
    trailing: str = ""


def arrange(rows: Sequence[Row], comments: Sequence[Comment], old: str) -> str:
    """The rows as text, each comment beside or above the row it belonged to in `old`."""
    rows = [*rows, Row("", start=len(old) + 1, end=len(old) + 1)]
    _attach([r for r in rows if r.start >= 0], comments)
    lines: list[tuple[str, str]] = []
    fresh = True
    for row in rows:
        depth = row.depth + 1 if row.closes else row.depth
        forced = row.apart
        for comment in row.leading:
            blank = forced or (comment.span is not None and _blank_before(old, comment.span.start))
            _add(lines, f"{INDENT * depth}#{comment.text}", "", blank and not fresh)
            fresh = forced = False
        if row.text:
            blank = forced or (not row.closes and _blank_before(old, row.start))
            _add(lines, INDENT * row.depth + row.text, row.trailing, blank and not fresh)
            fresh = row.opens
    return "".join(f"{line}\n" for line in _align(lines))


def _attach(rows: Sequence[Row], comments: Sequence[Comment]) -> None:
    """A comment goes beside the row before it, or above the row it stands in or before."""
    starts = [r.start for r in rows]
    for comment in comments:
        at = comment.span.start if comment.span else 0
        index = bisect_left(starts, at) - 1
        inside = index >= 0 and at < rows[index].end
        if index >= 0 and not inside and not comment.own_line and not rows[index].trailing:
            rows[index].trailing = f"#{comment.text}"
        else:
            rows[index if inside else index + 1].leading.append(comment)


def _add(lines: list[tuple[str, str]], text: str, trailing: str, blank: bool) -> None:
    if blank:
        lines.append(("", ""))
    lines.append((text, trailing))


def _blank_before(old: str, at: int) -> bool:
    """Whether an empty line precedes the line of an offset, nothing else being on its line."""
    if at < 0:
        return False
    newline = old.rfind("\n", 0, at)
    if newline < 0 or old[newline:at].strip():
        return False
    previous = old.rfind("\n", 0, newline)
    return not old[previous + 1 : newline].strip()


def _align(lines: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Trailing comments of neighbouring lines of one depth start in one column."""
    for _, group in groupby(lines, _run):
        run = [(text, trailing, len(text.rsplit("\n", 1)[-1])) for text, trailing in group]
        column = max(width for _, _, width in run) + 2
        yield from (text + " " * (column - width) + trailing if trailing else text for text, trailing, width in run)


def _run(line: tuple[str, str]) -> tuple[bool, int, int]:
    text, trailing = line
    return bool(trailing), len(text) - len(text.lstrip()), text.count("\n")
