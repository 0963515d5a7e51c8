"""Where a piece of syntax came from: the file, and the characters in it."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Source:
    """One file's name as the user knows it, and its text."""

    path: str
    text: str = field(repr=False)

    def position(self, offset: int) -> tuple[int, int]:
        """The 1-based line and column of a character offset."""
        before = self.text[:offset]
        return before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1

    def line(self, number: int) -> str:
        """The text of a 1-based line, without its line break."""
        lines = self.text.split("\n")
        return lines[number - 1] if number <= len(lines) else ""


@dataclass(frozen=True, slots=True)
class Span:
    """A half-open range of characters of one source."""

    source: Source = field(repr=False)
    start: int
    end: int

    @property
    def line(self) -> int:
        """1-based line of the first character."""
        return self.source.position(self.start)[0]

    @property
    def where(self) -> str:
        """`file:line:col` of the first character."""
        line, column = self.source.position(self.start)
        return f"{self.source.path}:{line}:{column}"


@dataclass(frozen=True, slots=True)
class Node:
    """Spans never count in equality: two spellings of one tree are equal."""

    span: Span | None = field(default=None, kw_only=True, compare=False, repr=False)
