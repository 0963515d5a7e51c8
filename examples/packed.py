"""Several documents in one row, without padding and without a mask: `python examples/packed.py`."""

import torch

import weft

LENGTHS = (300, 100, 624)


def main() -> None:
    """The pattern's input says which document each token belongs to; other documents are never computed."""
    packed = weft.load("packed_documents")
    doc = torch.repeat_interleave(torch.arange(len(LENGTHS)), torch.tensor(LENGTHS))
    print(packed.show(len(doc), doc=doc))

    q, k, v = (torch.randn(1, 4, len(doc), 64) for _ in range(3))
    out = packed.attention(q, k, v, doc=doc)

    causal = weft.load("causal_attention")
    first = 0
    for length in LENGTHS:
        part = slice(first, first + length)
        alone = causal.attention(q[:, :, part], k[:, :, part], v[:, :, part])
        torch.testing.assert_close(out[:, :, part], alone)
        first += length
    print(f"{len(LENGTHS)} documents in one call, each as if it were alone")


if __name__ == "__main__":
    main()
