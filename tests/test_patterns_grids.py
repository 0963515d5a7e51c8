"""Shipped patterns for images and video, against their papers' rules written out cell by cell."""

from itertools import product

import numpy as np
import pytest

from tests.brute import Bools, assert_mask, load


def window(center: int, radius: int, extent: int) -> range:
    """NATTEN's window on one axis: 2 * radius + 1 cells, shifted inside where the border would cut it."""
    first = min(max(center - radius, 0), extent - 2 * radius - 1)
    return range(first, first + 2 * radius + 1)


def neighborhoods(extents: tuple[int, ...], radii: tuple[int, ...]) -> Bools:
    """[cells, cells], row-major: the product of one window an axis."""
    mask = np.zeros((*extents, *extents), dtype=bool)
    for center in product(*map(range, extents)):
        windows = [window(c, r, e) for c, r, e in zip(center, radii, extents, strict=True)]
        mask[center][np.ix_(*windows)] = True
    cells = int(np.prod(extents))
    return mask.reshape(cells, cells)


@pytest.mark.parametrize(("height", "width", "radius"), [(7, 7, 3), (9, 8, 3), (5, 11, 1), (6, 5, 2), (3, 4, 0)])
def test_neighborhood_2d(height: int, width: int, radius: int) -> None:
    expected = neighborhoods((height, width), (radius, radius))
    assert_mask(load("neighborhood_2d", height=height, width=width, radius=radius), expected)


def test_neighborhood_2d_rows_keep_their_size() -> None:
    """16 x 16 with a 5 x 5 kernel: 25 keys in every row, the corners' included; 0.0977 of the square."""
    mask = load("neighborhood_2d", height=16, width=16, radius=2).mask(256)
    assert set(mask.sum(axis=1).tolist()) == {25}
    assert round(float(mask.mean()), 4) == 0.0977


@pytest.mark.parametrize(("extents", "radii"), [((3, 4, 5), (1, 1, 2)), ((4, 3, 3), (0, 1, 1)), ((5, 2, 4), (2, 0, 1))])
def test_neighborhood_3d(extents: tuple[int, int, int], radii: tuple[int, int, int]) -> None:
    frames, height, width = extents
    radius_t, radius_y, radius_x = radii
    pattern = load(
        "neighborhood_3d",
        frames=frames,
        height=height,
        width=width,
        radius_t=radius_t,
        radius_y=radius_y,
        radius_x=radius_x,
    )
    assert_mask(pattern, neighborhoods(extents, radii))


def tile_major(canvas: tuple[int, ...], tile: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The tile of each token of a canvas, tokens ordered tile by tile."""
    cells = sorted(
        product(*map(range, canvas)),
        key=lambda cell: (tuple(c // t for c, t in zip(cell, tile, strict=True)), cell),
    )
    return [tuple(c // t for c, t in zip(cell, tile, strict=True)) for cell in cells]


def sliding_tiles(canvas: tuple[int, ...], tile: tuple[int, ...], kernel: tuple[int, ...], text: int) -> Bools:
    """[n, n]: a key is seen when its tile is within half a kernel of the clamped centre tile on every axis."""
    tiles = tile_major(canvas, tile)
    last = [c // t - 1 for c, t in zip(canvas, tile, strict=True)]
    n = len(tiles) + text
    mask = np.ones((n, n), dtype=bool)  # text and video see each other
    for q, query in enumerate(tiles):
        center = [max(k // 2, min(i, end - k // 2)) for i, k, end in zip(query, kernel, last, strict=True)]
        for k, key in enumerate(tiles):
            mask[q, k] = all(abs(c - i) <= w // 2 for c, i, w in zip(center, key, kernel, strict=True))
    return mask


@pytest.mark.parametrize("text", [0, 5])
@pytest.mark.parametrize("kernel", [(1, 1, 1), (3, 3, 3), (1, 3, 5), (2, 3, 4)])
def test_sliding_tile(kernel: tuple[int, int, int], text: int) -> None:
    canvas, tile = (6, 6, 10), (2, 2, 2)
    pattern = load(
        "sliding_tile",
        tiles_t=3,
        tiles_y=3,
        tiles_x=5,
        tile=8,
        window_t=kernel[0],
        window_y=kernel[1],
        window_x=kernel[2],
        text=text,
    )
    assert_mask(pattern, sliding_tiles(canvas, tile, kernel, text))


def test_sliding_tile_density() -> None:
    """HunyuanVideo's 300 tiles, one token each: 27 tiles a row, 91 % sparse."""
    mask = load("sliding_tile", tile=1).mask(300)
    assert set(mask.sum(axis=1).tolist()) == {27}
    assert round(float(mask.mean()), 4) == 0.09


def radial_pair(i: int, j: int, frame: int, *, wan: bool, decay: float, block: int) -> Bools:
    """[frame, frame]: which tokens of frame j the tokens of frame i see."""
    if wan and j == 0:
        return np.ones((frame, frame), dtype=bool)
    apart = abs(i - j)
    length = 2 ** frame.bit_length() / 2 ** apart.bit_length()
    if length < 128 and apart % int(128 / length) != 0:
        return np.zeros((frame, frame), dtype=bool)
    if apart == 0 or (apart == 1 and not wan):
        width: float = frame
    elif apart == 1:
        width = frame // 2
    else:
        width = max(length * decay, block)
    a, b = np.arange(frame)[:, None], np.arange(frame)[None, :]
    return np.abs(a - b) <= width


def radial(queries: range, frames: int, frame: int, *, wan: bool, decay: float, block: int) -> Bools:
    """[queries' tokens, all tokens]: the frame pairs side by side."""
    pairs = [[radial_pair(i, j, frame, wan=wan, decay=decay, block=block) for j in range(frames)] for i in queries]
    return np.block(pairs)


@pytest.mark.parametrize("wan", [True, False])
@pytest.mark.parametrize(
    ("frame", "frames", "block", "eighths"), [(130, 9, 16, 4), (300, 4, 128, 4), (128, 5, 8, 8), (5, 12, 2, 4)]
)
def test_radial(frame: int, frames: int, block: int, eighths: int, *, wan: bool) -> None:
    expected = radial(range(frames), frames, frame, wan=wan, decay=eighths / 8, block=block)
    pattern = load("radial", frame=frame, wan=wan, decay_eighths=eighths, block=block)
    assert np.array_equal(pattern.mask(frame * frames), expected)


def test_radial_far_frames() -> None:
    """The last of 200 frames: every range of distances up to 2^7 .. 2^8."""
    frame, frames = 130, 200
    expected = radial(range(frames - 1, frames), frames, frame, wan=False, decay=0.5, block=16)
    pattern = load("radial", frame=frame, wan=False, block=16)
    assert np.array_equal(pattern.mask(frame * frames, m=frame), expected)


def test_radial_text_is_seen_by_all() -> None:
    frame, frames, text = 130, 3, 7
    n = frame * frames + text
    expected = np.ones((n, n), dtype=bool)
    expected[:-text, :-text] = radial(range(frames), frames, frame, wan=True, decay=0.5, block=128)
    assert np.array_equal(load("radial", frame=frame, text=text).mask(n), expected)
