"""Coverage reports as one HTML page that needs nothing else: no network, no framework, nothing taken on trust.

Names and texts come from files of others: each is escaped where it enters the page, and the template is filled in one
go, so that nothing filled in is read as a place to fill.
"""

import json
from base64 import b64encode
from collections.abc import Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from string import Template

import numpy as np
from numpy.typing import NDArray

from .coverage import Coverage, Picture
from .coverage_png import shade_bytes
from .coverage_svg import receptive_field_svg, route_svg
from .coverage_tables import (
    Table,
    answer,
    closing,
    comparison_table,
    densities,
    milliseconds,
    plain,
    reached,
    route_words,
    share_of,
    size,
    tables,
)

# Columns of a table that is given the whole width.
WIDE = 6


def as_page(reports: Sequence[Coverage]) -> str:
    """The page of one report, or of several with a comparison."""
    name = plain(reports[0].name) if len(reports) == 1 else f"{len(reports)} stacks compared"
    data = json.dumps([picture_data(report) for report in reports], separators=(",", ":"))
    template = Path(__file__).with_name("coverage_page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=text(name),
        comparison=comparison(reports) if len(reports) > 1 else "",
        reports="".join(article(report, place) for place, report in enumerate(reports)),
        # A script ends at its end tag even inside a string.
        data=data.replace("<", "\\u003c"),
    )


def text(value: str) -> str:
    """Text of others, fit for an element or an attribute."""
    return escape(plain(value), quote=True)


def comparison(reports: Sequence[Coverage]) -> str:
    """The table of several reports, and the choice of the one shown below it."""
    options = "".join(f'<option value="{place}">{text(report.name)}</option>' for place, report in enumerate(reports))
    return (
        f'<section class="comparison">{table_html(comparison_table(reports), "wide")}</section>'
        f'<p class="choice"><label for="report">Show</label> <select id="report">{options}</select></p>'
    )


def article(report: Coverage, place: int) -> str:
    """One report."""
    status = "complete" if report.complete_at is not None else "undecided" if report.hole is None else "incomplete"
    verdict, _, rest = answer(report).partition(": ")
    claims = "".join(
        f'<li class="{v.status}"><b>{v.status}</b> <code>{text(v.text)}</code> <span>{text(v.detail)}</span></li>'
        for v in report.verdicts
    )
    return (
        f'<article id="report-{place}" aria-labelledby="name-{place}">'
        f'<h2 id="name-{place}">{text(report.name)}</h2><p class="doc">{text(report.doc)}</p>'
        f'<p class="size">{text(size(report))}</p>'
        f'<p class="answer {status}"><strong>{text(verdict)}</strong> <span>{text(rest)}</span></p>'
        + (f'<ul class="claims" aria-label="claims">{claims}</ul>' if claims else "")
        + figures(report)
        + (pictures(report, place) if report.pictures else "")
        + '<section class="tables" aria-label="numbers">'
        + charts(report)
        + "".join(table_html(table) for table in tables(report))
        + f'</section><p class="closing">{text(closing(report))}</p></article>'
    )


def figures(report: Coverage) -> str:
    """The numbers that are asked for first."""
    last = report.depths[-1]
    shown = {
        "density of a layer": densities(report),
        f"pairs reached, depth {last.depth:,}": reached(report, last),
        "last query, without a gap": f"{last.last.contiguous:,}",
        "FLOPs of dense": share_of(report.cost.flops, report.cost.dense_flops),
        "time, predicted": milliseconds(report.cost.milliseconds),
    }
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in shown.items())
    return f'<dl class="figures">{items}</dl>'


def pictures(report: Coverage, place: int) -> str:
    """Empty plots and their controls; the script draws what `picture_data` holds."""
    masks, reach = parts(report)
    options = "".join(f'<option value="{at}">{text(mask.title)}</option>' for at, mask in enumerate(masks))
    slider = (
        f'<label for="depth-{place}">Reached by depth</label><span class="steps">'
        '<button type="button" class="previous" aria-label="one layer less">←</button>'
        f'<input id="depth-{place}" class="depth" type="range" min="0" max="{len(reach) - 1}" value="0">'
        '<button type="button" class="next" aria-label="one layer more">→</button></span>'
        f'<output class="says" for="depth-{place}"></output>'
    )
    choice = (
        f'<label for="mask-{place}">Kept by one layer</label>'
        f'<select id="mask-{place}" class="mask">{options}</select><span class="says"></span>'
    )
    plots = (plot("masks", choice) if masks else "") + (plot("reach", slider) if reach else "")
    most = report.n - 1
    cell = "".join(
        f'<label>{name} <input class="{name}" type="number" min="0" max="{most}" inputmode="numeric"></label>'
        for name in ("query", "key")
    )
    return (
        f'<section class="pictures" aria-label="pictures"><div class="plots">{plots}</div><p class="legend">'
        '<span><i class="none"></i>none</span> <span><i class="shades"></i>all of a square\'s admissible pairs</span>'
        + (' <span><i class="off"></i>not admissible</span>' if report.causal else "")
        + (' <span><i class="ring"></i>a pair that is not reached</span>' if report.hole else "")
        + f'</p><p class="look">Click a picture, or look at {cell} '
        '<span class="hint">← → step through depths</span></p></section>'
    )


def plot(kind: str, controls: str) -> str:
    """One picture with its axes, and the line that tells what is under the pointer."""
    return (
        f'<figure class="{kind}"><figcaption>{controls}</figcaption><div class="plot">'
        '<span class="axis keys">key →</span><span class="axis queries">query →</span>'
        '<div class="frame"><canvas role="img"></canvas><i class="hole" hidden></i><i class="pick" hidden></i>'
        "</div></div>"
        '<p class="readout" role="status"></p></figure>'
    )


def charts(report: Coverage) -> str:
    """The receptive field, and the route where there is one."""
    field = f"<figure class='chart'><figcaption>Receptive field</figcaption>{receptive_field_svg(report)}</figure>"
    if not report.route:
        return field
    drawn = route_svg(report.route, report.name) if report.route.hops else ""
    chain = "".join(f'<p class="chain">{text(line)}</p>' for line in route_words(report))
    return f"{field}<figure class='chart'><figcaption>Route</figcaption>{drawn}{chain}</figure>"


def table_html(table: Table, kind: str = "") -> str:
    """A table that scrolls by itself where it is too wide."""
    heads = ""
    if any(table.heads):
        cells = [f'<th scope="col"{named(table, at)}>{text(head)}</th>' for at, head in enumerate(table.heads)]
        heads = f"<thead><tr>{''.join(cells)}{'<td></td>' if table.bars else ''}</tr></thead>"
    rows = ""
    for at, row in enumerate(table.rows):
        cells = [f"<td{named(table, place)}>{text(cell)}</td>" for place, cell in enumerate(row) if place]
        bar = f'<td class="bar"><i style="width:{100 * table.bars[at]:.4g}%"></i></td>' if table.bars else ""
        rows += f'<tr><th scope="row">{text(row[0])}</th>{"".join(cells)}{bar}</tr>'
    notes = "".join(f'<p class="note">{text(note)}</p>' for note in table.notes)
    wide = kind or ("wide" if len(table.heads) > WIDE else "")
    title = text(table.title)
    return (
        f'<div class="table {wide}"><h3>{title}</h3><div class="scroll" role="region" tabindex="0" '
        f'aria-label="{title}"><table>{heads}<tbody>{rows}</tbody></table></div>{notes}</div>'
    )


def named(table: Table, place: int) -> str:
    """How a cell says that it holds words, not a number."""
    return ' class="words"' if place < table.left else ""


def parts(report: Coverage) -> tuple[list[Picture], list[Picture]]:
    """The pictures of single layers, and those of what is reached, by depth."""
    masks = [picture for picture in report.pictures if not picture.depth]
    return masks, sorted((picture for picture in report.pictures if picture.depth), key=lambda picture: picture.depth)


def picture_data(report: Coverage) -> dict[str, object]:
    """What the script draws and says of one report."""
    masks, reach = parts(report)
    shares = {d.depth: reached(report, d) for d in report.depths}
    says = [f"depth {p.depth:,}: {shares.get(p.depth, 'a share not counted')} of admissible pairs" for p in reach]
    return {
        "n": report.n,
        "causal": report.causal,
        "hole": report.hole,
        "exact": not report.undecided,
        "masks": [packed(p, report) for p in masks],
        "reach": [packed(p, report) | {"depth": p.depth, "says": line} for p, line in zip(reach, says, strict=True)],
        # Where the reader starts: at the end, or where the end is first reached.
        "start": report.complete_at or report.layers,
    }


def packed(picture: Picture, report: Coverage) -> dict[str, object]:
    """A picture as runs of equal shades, each two bytes: how many less one, and which."""
    cells = shade_bytes(of_admissible(picture, report))
    out = bytearray()
    for shade, run in groupby(cells.ravel().tolist()):
        count = len(list(run))
        for start in range(0, count, 256):
            out += bytes((min(256, count - start) - 1, shade))
    rows, columns = cells.shape
    return {"cell": picture.cell, "rows": rows, "columns": columns, "cells": b64encode(out).decode()}


def of_admissible(picture: Picture, report: Coverage) -> NDArray[np.float64]:
    """The squares within the sequence, and shares of their admissible pairs: diagonal squares can be full."""
    cell, n = picture.cell, report.n
    count = -(-n // cell)
    shares = np.array(picture.shares, dtype=np.float64)[:count, :count]
    sizes = np.minimum(cell, n - cell * np.arange(count))
    whole = squares = np.outer(sizes, sizes)
    if report.causal:
        whole = np.tril(whole)
        np.fill_diagonal(whole, sizes * (sizes + 1) // 2)
    # Counts, so that full squares are full.
    kept = np.minimum(whole, np.ceil(shares * squares - 1e-6))
    return np.divide(kept, whole, out=np.zeros_like(shares), where=whole > 0)
