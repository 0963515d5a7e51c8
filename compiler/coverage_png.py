"""A picture of reach as a PNG file."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from .coverage import Picture

SIDE = 768
# Nothing, and everything; what is between is mixed.
BLANK, INK = (255, 255, 255), (29, 78, 216)


def picture_png(picture: Picture) -> bytes:
    """The picture in 256 colours, each cell a square of pixels."""
    cells = shade_bytes(np.array(picture.shares, dtype=np.float64))
    pixels = max(1, round(SIDE / max(cells.shape)))
    drawn = cells.repeat(pixels, axis=0).repeat(pixels, axis=1)
    height, width = drawn.shape
    # Each row says first how it is filtered: not at all.
    rows = np.hstack([np.zeros((height, 1), dtype=np.uint8), drawn]).tobytes()
    # Even one pair shows.
    parts = (0.2 + 0.8 * step / 255 if step else 0 for step in range(256))
    mixed = (round(a + (b - a) * part) for part in parts for a, b in zip(BLANK, INK, strict=True))
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        (b"PLTE", bytes(mixed)),
        (b"IDAT", zlib.compress(rows, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, data) for kind, data in chunks)


def shade_bytes(shares: NDArray[np.float64]) -> NDArray[np.uint8]:
    """0 for nothing, 255 for everything, and 1 to 254 for what is between: no reached pair vanishes."""
    middle = 1 + np.minimum(253, (shares * 254).astype(np.int64))
    return np.where(shares <= 0, 0, np.where(shares >= 1, 255, middle)).astype(np.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
