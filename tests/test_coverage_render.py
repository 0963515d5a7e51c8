"""Coverage reports as text, data, drawings and a page: one in full, and that nothing more is claimed than is known."""

import json
import re
import struct
import xml.etree.ElementTree as xml
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from weft.compiler.coverage import SCHEMA, Coverage, Hop, Picture, Route
from weft.compiler.coverage_json import JSON_SCHEMA, as_dict
from weft.compiler.coverage_page import as_page, packed
from weft.compiler.coverage_png import picture_png
from weft.compiler.coverage_svg import picture_svg, receptive_field_svg, route_svg
from weft.compiler.coverage_tables import answer, ranges, share_of
from weft.compiler.coverage_text import as_text, comparison_text

from .coverage_samples import HOSTILE, hostile_sample, sample, undecided_sample

SAMPLES = (sample(), sample("window", far=False), undecided_sample(), hostile_sample())
N = 1 << 20
MILLION = replace(sample(), n=N, admissible=N * (N + 1) // 2)


def test_golden() -> None:
    assert as_text(sample()) + "\n" == dedent(
        """\
        power
          A window, and keys at powers of two.
          96 tokens, 6 layers, 8 heads on 2 key/value heads, causal

        complete after 5 layers: every one of the 4,656 admissible pairs is reached

        holds      complete by 6
        fails      cache <= 8: layer 0 keeps key 1 for query 9

        each layer, of admissible pairs
          layers  density  least row  most  empty rows  waste  cache keys  drop keys  numbers
          0..5     17.6 %          1    10           0    1.5          96         no    exact
          layers 0..5: causal; keep q - k < 4; keep q - k in powers(2) or k == 0
          layers 0..5: 4 of 4 heads keep a pair that any of them keeps, on average
          layers 0..5: key 1 must not be dropped: skipped by query 8, needed by 9

        reached through the first layers
          depth  pairs reached  last row  contiguous  worst row  reaches   share
          1             17.6 %        10           5         95       10  10.4 %
          2             49.4 %        34          13         95       34  35.4 %
          3             82.6 %        68          29         95       68  70.8 %
          4             97.8 %        91          61         95       91  94.8 %
          5              100 %        96          96         95       96   100 %
          6              100 %        96          96         95       96   100 %

        pairs by the depth that first reaches them
          depth   share
          1      17.6 %  █████▎
          2      31.7 %  █████████▌
          3      33.2 %  ██████████
          4      15.2 %  ████▌
          5      2.19 %  ▋

        each alone, through all layers
          heads                       pairs reached  complete after
          heads 0-3, 7                        100 %        5 layers
          heads 4-6                          17.6 %        not in 6
          2 groups of heads 0-1, 4-5         17.6 %        not in 6

        closed forms
          last row at depth d = min(n, 1 + d*(w - 1)) = 96 (by brute force)

        flow (model, blocks of 8 tokens)
          ways from the last block       2^0 least, 2^3.25 median, 2^11.5 most
          a random walk ends             12.5 % in its own block, 50 % in the last tenth, 3 % in the first
          bottleneck blocks              3..5, 9
          blocks between last and first  2 at the fewest
          a model of the masks alone, every kept pair weighing the same: not what a trained network does

        cost of one forward, all layers and heads, head dim 128
                            this stack     dense  of dense
          FLOPs                 3.28 G    18.6 G    17.6 %
          bytes moved            1 MiB     3 MiB    33.3 %
          key/value cache       16 KiB    64 KiB      25 %
          time (predicted)    0.125 ms  1,234 ms  0.0101 %

        route: query 95 sees key 2 through 3 layers, no fewer
          95 -> 63 (layer 2) -> 31 (layer 1) -> 2 (layer 0)

        counts are exact; analysed in 0.25 s
        """
    )


@pytest.mark.parametrize(
    ("report", "wanted"),
    [
        (
            replace(MILLION, complete_at=6),
            "complete after 6 layers: every one of the 549,756,338,176 admissible pairs is reached",
        ),
        (
            replace(sample(far=False), hole=(95, 1), limit=2328, limit_depth=24),
            "never complete: query 95 cannot see key 1 "
            "(6 layers; 35.5 % of pairs reached; repeating the stack without end reaches 50 %)",
        ),
        (
            replace(sample(far=False), limit=2328, limit_depth=None),
            "not complete: query 95 cannot see key 0 "
            "(6 layers; 35.5 % of pairs reached; repeating the stack without end reaches at least 50 %)",
        ),
        (
            sample(far=False),
            "not complete: query 95 cannot see key 0 "
            "(6 layers; 35.5 % of pairs reached; repeating the stack reaches all after 32 layers)",
        ),
        (
            replace(undecided_sample(), hole=(95, 0), limit_depth=6),
            "not complete: query 95 cannot see key 0 (6 layers; 35.5 % (guaranteed) .. 71 % (possible) of pairs "
            "reached; repeating the stack without end reaches at least 35.5 %)",
        ),
        (
            undecided_sample(),
            "undecided: 35.5 % (guaranteed) .. 71 % (possible) of pairs reached in 6 layers: "
            "the input `doc` is not given",
        ),
    ],
)
def test_answers(report: Coverage, wanted: str) -> None:
    assert answer(report) == wanted


def test_bounds_are_said_to_be_bounds() -> None:
    text = as_text(undecided_sample())
    for wanted in (
        "undecided  complete by 6: between",
        "35.5 % .. 71 %",
        "a .. b is guaranteed .. possible",
        "not guaranteed  64.5 %",
        "query 17 is the first that keeps no key",
        "is not guaranteed to see key 2",
        "some numbers are bounds: the input `doc` is not given",
    ):
        assert wanted in text
    assert re.search(r"undecided +bounds$", text, re.MULTILINE) and "exact" not in text
    assert "does not see key 5" in as_text(replace(sample(), route=Route(9, 5, None, ())))


@pytest.mark.parametrize("report", SAMPLES)
def test_text_fits_a_terminal_and_does_not_steer_it(report: Coverage) -> None:
    for line in as_text(report).splitlines():
        assert len(line) <= 100 and line.isprintable()


def test_long_stacks_show_some_depths() -> None:
    text = as_text(sample("long", layers=21, far=False))
    rows = text.partition("reached through")[2].partition("\n\n")[0].splitlines()[2:]
    assert [int(row.split()[0]) for row in rows] == [*range(1, 9), 16, 21]
    assert "\n  9..16 " in text and "\n  17..21 " in text


def test_shares_are_never_rounded_to_all_or_nothing() -> None:
    assert [share_of(part, 10**9) for part in (0, 1, 10**9 - 1, 10**9, 10**9 + 1, 12 * 10**10)] == [
        "0 %",
        "1e-07 %",
        "under 100 %",
        "100 %",
        "over 100 %",
        "12,000 %",
    ]
    assert share_of(0, 0) == "-"
    assert ranges([7, 0, 1, 2, 3, 5]) == "0..3, 5, 7" and ranges(range(0, 40, 2)).endswith("14, and 12 more")


def test_comparison() -> None:
    text = comparison_text(SAMPLES[:3])
    rows = {line[:29].strip(): line[29:].split() for line in text.splitlines()[1:]}
    assert rows["last row reaches at depth 3"] == ["68", "10", "10"]
    assert rows["of it contiguous at depth 3"] == ["29", "10", "10"]
    assert rows["counts"] == ["exact", "exact", "guaranteed"]
    assert rows["complete"] == "after 5 layers not in 6 layers undecided".split()
    assert rows["never reached"] == "0 % 0 % at most 64.5 %".split()
    assert rows["unseen: query, key"] == ["-", "95,", "0", "-"]
    many = comparison_text([replace(sample(), name=f"{place} is a long name") for place in range(9)]).splitlines()
    assert max(map(len, many)) <= 100 and sum(line == "comparison" for line in many) > 1
    assert max(map(len, comparison_text([hostile_sample()] * 3).splitlines())) <= 100


def test_a_complete_stack_stays_complete_beyond_its_last_fact() -> None:
    short = replace(sample(), depths=sample().depths[:5])
    rows = [line.split() for line in comparison_text([short, sample("b", layers=4)]).splitlines()]
    assert ["last", "row", "reaches", "at", "depth", "6", "96", "-"] in rows


def faults(data: Any, schema: dict[str, Any], where: str = "$") -> list[str]:
    """Where data does not fit a schema; raises KeyError for a keyword it does not know."""
    found: list[str] = []
    if "$ref" in schema:
        return faults(data, JSON_SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], where)
    for keyword, wanted in schema.items():
        match keyword, data:
            case "type", _:
                kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
                number = {"integer": int, "number": (int, float)}
                fits = isinstance(data, kinds.get(wanted) or number[wanted])
                found += [] if fits and not (wanted in number and isinstance(data, bool)) else [f"{where}: {wanted}"]
            case "properties", dict():
                found += [f for name, part in wanted.items() if name in data for f in faults(data[name], part, name)]
            case "required", dict():
                found += [f"{where}.{name} is missing" for name in wanted if name not in data]
            case "additionalProperties", dict():
                found += [f"{where}.{name} is unknown" for name in data if name not in schema["properties"]]
            case "prefixItems", list():
                found += [f for item, part in zip(data, wanted, strict=False) for f in faults(item, part, where)]
            case "minItems", list():
                found += [f"{where} has {len(data)}"] if len(data) < wanted else []
            case "items", list() if wanted is False:
                found += [f"{where} has {len(data)}"] if len(data) > len(schema["prefixItems"]) else []
            case "items", list():
                found += [f for item in data for f in faults(item, wanted, where)]
            case "enum", _:
                found += [] if data in wanted else [f"{where}: {data!r}"]
            case "const", _:
                found += [] if data == wanted else [f"{where}: {data!r}"]
            case "anyOf", _:
                found += [] if any(not faults(data, part) for part in wanted) else [f"{where} fits none"]
            case _:
                assert keyword in {"$schema", "$id", "$defs", "title", "description"} or found, keyword
    return found


def test_json_fits_its_schema() -> None:
    data = json.loads(json.dumps(as_dict(SAMPLES)))
    assert next(iter(data)) == "schema" and data["schema"] == SCHEMA
    assert faults(data, JSON_SCHEMA) == []
    first = data["reports"][0]
    assert first["hole"] is None and data["reports"][1]["hole"] == [95, 0]
    assert first["derived"]["reached"][-1] == 100 and first["derived"]["density"] == [pytest.approx(17.6, abs=0.05)]
    assert np.array_equal(first["pictures"][0]["shares"], sample().pictures[0].shares)
    assert first["doc"] == sample().doc and data["reports"][3]["name"] == HOSTILE


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("n",), "96"),
        (("causal",), 1),
        (("layers",), True),
        (("hole",), [1]),
        (("hole",), [1, 2, 3]),
        (("verdicts", 0, "status"), "maybe"),
        (("more",), 1),
        (("derived", "limit"), None),
        (("route", "depth"), None),
    ],
)
def test_the_schema_refuses_what_does_not_fit(path: tuple[Any, ...], value: Any) -> None:
    data = as_dict([sample()])
    *outer, last = path
    place = data["reports"][0]
    for name in outer:
        place = place[name]
    place[last] = value
    fits = path in (("derived", "limit"), ("route", "depth"))
    assert (faults(data, JSON_SCHEMA) == []) is fits
    del data["reports"][0]["n"]
    assert any("n is missing" in fault for fault in faults(data, JSON_SCHEMA))


@pytest.mark.parametrize("report", SAMPLES)
def test_svg(report: Coverage) -> None:
    drawn = [picture_svg(report.pictures[-1], HOSTILE), receptive_field_svg(report)]
    drawn += [route_svg(report.route, HOSTILE)] if report.route and report.route.hops else []
    for text in drawn:
        root = xml.fromstring(text)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and "prefers-color-scheme:dark" in text
        assert {element.tag.partition("}")[2] for element in root.iter()}.isdisjoint({"script", "img", "image"})
        assert len(text.encode()) < 50_000


def test_svg_axes() -> None:
    marks = re.findall(r">([\d,]+)</text>", picture_svg(Picture("a", 1, 1 << 14, ((1.0,) * 64,) * 64), "a"))
    assert marks == ["0", "262,144", "524,288", "786,432"] * 2
    assert picture_svg(Picture("a", 1, 1, ((1.0,) * 64,) * 64), "a").count("z") == 1  # one rectangle
    assert "log scale" not in receptive_field_svg(sample())
    last = replace(sample().depths[-1].last, reached=50_000)
    text = receptive_field_svg(
        replace(sample(), depths=(*sample().depths[:-1], replace(sample().depths[-1], last=last)))
    )
    assert "keys, log scale" in text and ">10,000<" in text
    assert "guaranteed" in receptive_field_svg(undecided_sample())
    receptive_field_svg(replace(sample(), depths=sample().depths[:1]))


def test_svg_of_a_long_route_stays_low() -> None:
    hops = tuple(Hop(200 - step, 9000 - step, 8999 - step) for step in range(200))
    root = xml.fromstring(route_svg(Route(9000, 8800, 201, hops), "a"))
    assert float(root.attrib["viewBox"].split()[3]) < 3000


@pytest.mark.parametrize("side", [1, 48, 1000])
def test_png(side: int) -> None:
    shares = np.random.default_rng(0).random((side, side)).round(2)
    data = picture_png(Picture("a", 1, 1, tuple(map(tuple, shares.tolist()))))
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        chunks[kind] = data[at + 8 : at + 8 + size]
        assert zlib.crc32(kind + chunks[kind]) == int.from_bytes(data[at + 8 + size : at + 12 + size], "big")
        at += 12 + size
    assert [*chunks] == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    wide, high, *rest = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    assert wide == high and wide % side == 0 and 384 < wide <= 1152 and rest == [8, 3, 0, 0, 0]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), dtype=np.uint8).reshape(high, wide + 1)
    assert not rows[:, 0].any() and len(chunks[b"PLTE"]) == 768
    cells = rows[:: wide // side, 1 :: wide // side]
    assert ((cells == 0) == (shares == 0)).all() and ((cells == 255) == (shares == 1)).all()
    assert np.abs(cells / 255 - shares).max() < 0.01


class Reader(HTMLParser):
    """What a browser would take for tags and scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts.append(data)


def test_page_is_safe_from_what_it_shows() -> None:
    page = as_page([hostile_sample(), undecided_sample()])
    calm = as_page([replace(hostile_sample(), name="calm"), undecided_sample()])
    found = Reader(page)
    assert found.tags == Reader(calm).tags and "img" not in found.tags
    assert not any(name.startswith("on") or name in ("src", "href") for name, _ in found.attributes)
    assert page.count("</script>") == 2 and "$body" in page and "\u202e" not in page and "\x1b" not in page
    assert "default-src 'none'" in page and not re.search(r"https?:(?!//www\.w3\.org/2000/svg)", page)
    names = [value for name, value in found.attributes if name == "id"]
    assert len(names) == len(set(names))


def test_page_controls_have_labels() -> None:
    page = as_page(SAMPLES[:2])
    labelled = set(re.findall(r'<label for="([^"]+)"', page))
    for place in ("report", *(f"{name}-{at}" for name in ("depth", "mask") for at in (0, 1))):
        assert place in labelled and f'id="{place}"' in page
    assert page.count("<label>query <input") == 2 and page.count('aria-label="one layer more"') == 2
    assert 'id="report"' not in as_page([sample()])


def test_page_data() -> None:
    data = json.loads("".join(Reader(as_page([sample()])).scripts[:1]))[0]
    assert [picture["depth"] for picture in data["reach"]] == [1, 2, 3, 4, 5, 6] and len(data["masks"]) == 1
    assert data["reach"][2]["says"] == "depth 3: 82.6 % of admissible pairs" and data["start"] == 5


@pytest.mark.parametrize(("n", "causal"), [(96, True), (95, True), (90, True), (95, False)])
def test_page_shows_shares_of_what_is_admissible(n: int, causal: bool) -> None:
    """Squares on the diagonal and at the end are full when all that is admissible in them is reached."""
    report = replace(sample(), n=n, causal=causal)
    found = np.zeros((96, 96))
    found[:n, :n] = np.tril(np.ones((n, n))) if causal else 1
    side = -(-n // 4)
    sides = np.minimum(4, n - 4 * np.arange(side))
    shares = found.reshape(24, 4, 24, 4).sum((1, 3))[:side, :side] / np.outer(sides, sides)
    shown = packed(Picture("a", 1, 4, tuple(map(tuple, shares.tolist()))), report)
    assert (shown["rows"], shown["columns"]) == (side, side)
    assert np.array_equal(
        unpacked(shown), 255 * np.tril(np.ones((side, side))) if causal else np.full((side, side), 255)
    )


def unpacked(shown: dict[str, Any]) -> np.ndarray:
    """The shades of a packed picture."""
    from base64 import b64decode

    runs = np.frombuffer(b64decode(shown["cells"]), dtype=np.uint8).reshape(-1, 2)
    return np.repeat(runs[:, 1], runs[:, 0].astype(np.int64) + 1).reshape(shown["rows"], shown["columns"])
