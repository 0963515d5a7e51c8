"""Pictures of masks: what they count, how they are drawn, and that nothing in them grows with n times n."""

import tracemalloc
import xml.etree.ElementTree as xml
from typing import Any

import numpy as np
import pytest

import weft
from weft.compiler.picture import CHARACTERS, COLUMNS, draw_svg, draw_text, levels, pooled, shades
from weft.compiler.plan import Shape

NAMES = ("sliding_window", "longformer", "power_attention", "bigbird", "s2_attention")


def picture(name: str, n: int, heads: int = 1, head: int = 0, cells: int = 64, **params: Any) -> np.ndarray:
    pattern = weft.load(name, **params)
    return shades(pattern.bind(heads), n, Shape(True, heads, heads), {}, head, cells)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "cells"), [(1, 64), (7, 64), (64, 64), (100, 64), (300, 16), (257, 7)])
def test_counts_by_brute_force(name: str, n: int, cells: int) -> None:
    heads, head = 4, 3
    mask = np.broadcast_to(weft.load(name).mask(n, heads=heads), (heads, n, n))[head]
    side = -(-n // min(cells, n))
    rows = range(0, n, side)
    wanted = [[mask[a : a + side, b : b + side].mean() for b in rows] for a in rows]
    np.testing.assert_allclose(picture(name, n, heads, head, cells), wanted)


@pytest.mark.parametrize("name", ["sliding_window", "longformer", "power_attention", "dilated_window"])
def test_long_pictures_agree_with_the_mask(name: str) -> None:
    """Beyond the exact length: nothing kept is blank and nothing dropped is dark."""
    n, cells = 4608, 16
    exact = weft.load(name).mask(n).reshape(cells, n // cells, cells, n // cells).mean((1, 3))
    drawn = picture(name, n, cells=cells)
    assert ((drawn == 1) <= (exact == 1)).all() and ((drawn == 0) == (exact == 0)).all()


def test_long_pictures_of_inputs_are_sampled() -> None:
    n, cells = 6000, 12
    doc = np.arange(n) // 700
    pattern = weft.load("packed_documents")
    exact = pattern.mask(n, doc=doc).reshape(cells, n // cells, cells, n // cells).mean((1, 3))
    drawn = shades(pattern.bind(), n, Shape(True), {"doc": doc}, 0, cells)
    np.testing.assert_allclose(drawn, exact, atol=0.15)


def test_a_million_tokens_take_little_memory() -> None:
    picture("sliding_window", 1 << 20)
    tracemalloc.start()
    drawn = picture("power_attention", 1 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert drawn.shape == (64, 64) and peak < 50e6


def test_levels_hide_nothing() -> None:
    assert levels(np.array([[0.0, 1e-9, 0.5, 1 - 1e-9, 1.0]])).tolist() == [[0, 1, 2, 3, 4]]


def test_text() -> None:
    lines = draw_text(picture("sliding_window", 8, window=3)).splitlines()
    assert lines == [
        "       key ->",
        "      ┌────────────────┐",
        "query │██              │",
        "      │████            │",
        "      │██████          │",
        "      │  ██████        │",
        "      │    ██████      │",
        "      │      ██████    │",
        "      │        ██████  │",
        "      │          ██████│",
        "      └────────────────┘",
    ]


@pytest.mark.parametrize("cells", [1, 5, 36, 37, 64, 73, 200])
def test_text_is_square_and_fits(cells: int) -> None:
    lines = draw_text(np.eye(cells)).splitlines()
    width, height = len(lines[1]) - 8, len(lines) - 3
    assert max(map(len, lines)) <= 80 and width <= COLUMNS
    assert abs(width - 2 * height) <= 1 or cells == 1
    assert {*"".join(line[7:-1] for line in lines[2:-1])} <= {*CHARACTERS}


def test_pooled_is_a_mean() -> None:
    np.testing.assert_allclose(pooled(np.array([[1.0, 0, 1], [1, 0, 1], [1, 1, 0]]), 2, 2), [[0.5, 1], [1, 0]])


@pytest.mark.parametrize("name", [*NAMES, "logsparse"])
def test_svg(name: str) -> None:
    text = weft.load(name).svg(4096)
    root = xml.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg" and root.attrib["role"] == "img" and root.find(f"{space}title") is not None
    assert "prefers-color-scheme:dark" in text and "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert len(text.encode()) < 50_000


def test_svg_draws_every_cell_once() -> None:
    shown = picture("longformer", 512, cells=32, window=40)
    drawn = np.zeros((32, 32))
    for path in xml.fromstring(draw_svg(shown, "a")).iter("{http://www.w3.org/2000/svg}path"):
        for part in path.attrib["d"].split("z")[:-1]:
            corner, size = part[1:].split("h", 1)
            (x, y), wide, high = (
                map(int, corner.split()),
                int(size.split("v")[0]),
                int(size.split("v")[1].split("h")[0]),
            )
            drawn[y : y + high, x : x + wide] += float(path.attrib["opacity"])
    assert np.array_equal(drawn, levels(shown) / 4)


def test_svg_stays_small_and_escapes() -> None:
    noise = np.random.default_rng(0).random((256, 256))
    text = draw_svg(noise, '<script>"&')
    assert len(text.encode()) < 50_000 and "<script>" not in text
    title = xml.fromstring(text).find("{http://www.w3.org/2000/svg}title")
    assert title is not None and title.text == '<script>"&'


def test_inputs_are_drawn() -> None:
    doc = np.repeat([0, 1], [3, 5])
    lines = weft.load("packed_documents").show(8, doc=doc).splitlines()[2:-1]
    assert [line.count("█") for line in lines] == [2, 4, 6, 2, 4, 6, 8, 10]


def test_notebooks_draw_what_can_be_drawn() -> None:
    for name in ("s2_attention", "sliding_window"):
        assert (weft.load(name)._repr_svg_() or "").startswith("<svg")  # pyright: ignore[reportPrivateUsage]
    for name in ("moa", "packed_documents", "prefix_lm"):
        assert weft.load(name)._repr_svg_() is None  # pyright: ignore[reportPrivateUsage]
    assert weft.load("pattern p(w: int) { input d[token]: int keep d[q] - d[k] < w }").inputs == ("d",)


@pytest.mark.parametrize(("arguments", "why"), [((0,), "n is"), ((8, 1, 1), "no head 1"), ((8, 1, -1), "head is")])
def test_wrong_pictures(arguments: tuple[int, ...], why: str) -> None:
    n, heads, head = (*arguments, 1, 0)[:3]
    with pytest.raises(ValueError, match=f"pattern `sliding_window`.*{why}"):
        weft.load("sliding_window").show(n, heads=heads, head=head)
