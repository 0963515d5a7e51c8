"""A coverage report as text for a terminal."""

from collections.abc import Sequence
from dataclasses import replace
from textwrap import wrap

from .coverage import Coverage, Form
from .coverage_tables import (
    Table,
    answer,
    closing,
    comparison_table,
    form_table,
    plain,
    route_words,
    size,
    tables,
)

WIDTH = 100
BAR = 30
EIGHTHS = " ▏▎▍▌▋▊▉█"


def as_text(report: Coverage) -> str:
    """The report for people."""
    head = [plain(report.name), *wrapped("  ", report.doc), *wrapped("  ", size(report))]
    blocks = [head, wrapped("", answer(report))]
    if report.verdicts:
        blocks.append([line for v in report.verdicts for line in claim_lines(v.status, v.text, v.detail)])
    forms = form_table(report)
    for table in tables(report):
        blocks.append(form_lines(table, report.forms) if table == forms else table_lines(table))
    words = route_words(report)
    if words:
        blocks.append([*wrapped("route: ", words[0]), *(line for chain in words[1:] for line in wrapped("  ", chain))])
    blocks.append(wrapped("", closing(report)))
    return "\n\n".join("\n".join(block) for block in blocks)


def claim_lines(status: str, text: str, detail: str) -> list[str]:
    """One claim and what became of it."""
    return wrapped(f"{status:<9}  ", f"{text}: {detail}" if detail else text)


def comparison_text(reports: Sequence[Coverage]) -> str:
    """Several reports side by side, as many in one table as fit."""
    parts: list[Table] = []
    table = comparison_table(reports)
    first = 1
    for last in range(2, len(table.heads) + 1):
        if last == len(table.heads) or widest(columns(table, first, last + 1)) > WIDTH:
            parts.append(columns(table, first, last))
            first = last
    answers = [line for r in reports for line in wrapped(f"{plain(r.name)}: ", answer(r))]
    claims = [
        line for r in reports for v in r.verdicts for line in claim_lines(v.status, f"{r.name}: {v.text}", v.detail)
    ]
    return "\n\n".join("\n".join(lines) for lines in (*(table_lines(part) for part in parts), answers, claims) if lines)


def columns(table: Table, first: int, last: int) -> Table:
    """The names of the rows, and some of the columns."""
    rows = tuple((row[0], *row[first:last]) for row in table.rows)
    return replace(table, heads=(table.heads[0], *table.heads[first:last]), rows=rows)


def widest(table: Table) -> int:
    """The length of the longest line of a table's body."""
    return max(map(len, table_lines(replace(table, notes=()))[1:]))


def table_lines(table: Table) -> list[str]:
    """A title, the headings, and rows in columns: names to the left, numbers to the right."""
    grid = [table.heads, *table.rows] if any(table.heads) else [*table.rows]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    bars = ["", *map(bar, table.bars)] if table.bars else [""] * len(grid)
    lines = [table.title]
    for row, drawn in zip(grid, bars, strict=True):
        cells = [
            cell.ljust(width) if place < table.left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join([*cells, drawn]).rstrip())
    return lines + [line for note in table.notes for line in wrapped("  ", note)]


def form_lines(table: Table, forms: Sequence[Form]) -> list[str]:
    """Closed forms as equations: a table of them would be too wide."""
    lines = [table.title]
    for form in forms:
        lines += wrapped("  ", f"{form.quantity} = {form.formula} = {form.value} ({form.checked})")
    return lines


def bar(share: float) -> str:
    """A share as a bar in eighths of a character; what is there is seen."""
    full, rest = divmod(max(round(8 * BAR * share), 1 if share > 0 else 0), 8)
    return "█" * full + EIGHTHS[rest].strip()


def wrapped(head: str, text: str) -> list[str]:
    """Text after a head, on lines that fit, the later ones further in."""
    indent = " " * (len(head) - len(head.lstrip()) + 4)
    return wrap(head + plain(text), WIDTH, subsequent_indent=indent)
