"""Load a shipped pattern, look at it, and run attention with it: `python examples/quickstart.py`."""

import torch

import weft

N = 1024


def main() -> None:
    """A sliding window in place of `scaled_dot_product_attention`'s mask."""
    window = weft.load("sliding_window", window=256)
    print(window.show(N))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    # Grouped heads: 8 query heads share 2 key/value heads.
    q = torch.randn(1, 8, N, 64, device=device)
    k, v = (torch.randn(1, 2, N, 64, device=device) for _ in range(2))
    out = window.attention(q, k, v)

    # The same with the whole mask written out, which is what a sparse kernel saves.
    mask = torch.as_tensor(window.mask(N), device=device)
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
    torch.testing.assert_close(out, wanted, rtol=1e-3, atol=1e-3)
    print(f"{tuple(out.shape)} on {device}, equal to dense attention with the mask")

    # Decoding: the queries are the last tokens, here one against all keys.
    last = window.attention(q[:, :, -1:], k, v)
    torch.testing.assert_close(last, out[:, :, -1:], rtol=1e-3, atol=1e-3)
    print("the last token alone gives the same row")


if __name__ == "__main__":
    main()
