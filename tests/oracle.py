"""What a kernel really attended, read off its output; and how far its numbers may be from exact ones.

Recovering the mask: with q = 0 every attended key weighs the same, 1 / count. With V holding one-hot rows, one chunk of
head_dim keys a batch element, output * count is 1 where a key was attended, 2 where it was attended twice, and the
log-sum-exp is log(count). A numeric tolerance would miss one dropped key in a thousand; this cannot.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

import weft
from tests.brute import Bools

NAN = float("nan")
# A pattern's arguments for small lengths, so that every shipped pattern has kept, dropped, full and partial tiles.
SMALL: dict[str, dict[str, Any]] = {
    "attention_sinks": {"start": 3, "recent": 40},
    "bigbird": {"block": 8, "random": 2},
    "block_causal_documents": {"block": 24},
    "block_diffusion": {"block": 12},
    "dilated_window": {"window": 20, "dilation": 3},
    "logsparse": {"window": 3},
    "longformer": {"window": 20, "dilation": 2, "globals": 2},
    "longnet": {"segment": 16, "branches": 4},
    "minference_a_shape": {"sinks": 5, "window": 30},
    "moa": {"alpha": [[16, 0, 40, 8]], "beta_eighths": [[1, 2, 0, 7]], "sink": 8, "block": 8},
    "neighborhood_2d": {"height": 9, "width": 11, "radius": 2},
    "neighborhood_3d": {"frames": 4, "height": 5, "width": 6, "radius_t": 1, "radius_y": 2, "radius_x": 1},
    "power_attention": {"window": 2, "block": 8},
    "prefix_lm": {"prefix": 37},
    "radial": {"frame": 12, "block": 4, "text": 5},
    "s2_attention": {"local": 2, "stride": 4, "block": 8, "dense": 1},
    "shared_prefix": {"prefix": 20},
    "sliding_tile": {"tiles_t": 2, "tiles_y": 3, "tiles_x": 4, "tile": 4, "text": 6},
    "sliding_window": {"window": 33},
    "sparse_transformer_fixed": {"stride": 16, "summary": 3, "phases": 2},
    "sparse_transformer_strided": {"stride": 12},
}


def small_inputs(pattern: weft.Pattern, n: int, m: int, seed: int = 0, heads: int = 4) -> dict[str, torch.Tensor]:
    """Inputs that make sense: documents in runs, heads' numbers, parents before children; empty where none are read."""
    out: dict[str, torch.Tensor] = {}
    axes = {t.source: t.axis for t in pattern.bind(heads).tables if t.source}
    trees = {t.source for t in pattern.bind(heads).tables if t.kind in ("enter", "leave")} | {"parent"}
    for name, axis in axes.items():
        length = {"token": n, "key": n, "query": m, "head": heads}[axis]
        rng = np.random.default_rng([seed, *name.encode()])  # the same whatever else is read
        if name in trees:
            values = [int(rng.integers(max(-1, t - 9), t)) for t in range(length)]
        elif name == "start":
            values = list(np.maximum.accumulate(np.where(rng.random(length) < 0.05, np.arange(length), 0)))
        else:
            values = list(np.cumsum(rng.random(length) < 0.06))
        out[name] = torch.tensor(np.asarray(values, dtype=np.int64))
    return out


# Elements before and after a guarded tensor: more than a tile of the widest kernel.
MARGIN = 128 * 256
# Tokens before and after the tokens of a guarded input; a whole number of 16-byte steps.
SPARE = 72


@contextmanager
def poisoned() -> Generator[None]:
    """Outputs start as NaN, so that what a kernel does not write shows; their margins show what it should not write."""
    empty, rooms = torch.empty, list[torch.Tensor]()

    def full_of_nan(*size: Any, **options: Any) -> torch.Tensor:
        made = empty(*size, **options)
        if not made.is_floating_point():
            return made
        room = torch.full((made.numel() + 2 * MARGIN,), NAN, dtype=made.dtype, device=made.device)
        rooms.append(room)
        return room[MARGIN : MARGIN + made.numel()].view(made.shape)

    with mock.patch("torch.empty", full_of_nan):
        yield
    margins = [part for room in rooms for part in (room[:MARGIN], room[-MARGIN:])]
    assert all(margin.isnan().all() for margin in margins), "written outside an output"


def guarded(x: torch.Tensor) -> torch.Tensor:
    """The same values inside a larger tensor of NaN: reading a token too many, on either side, shows."""
    tokens = slice(SPARE, SPARE + x.shape[2])
    room = torch.full((*x.shape[:2], x.shape[2] + 2 * SPARE, x.shape[3]), NAN, dtype=x.dtype, device=x.device)
    room[:, :, tokens] = x
    return room[:, :, tokens]


def layouts(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same numbers, laid out in every way a caller may; where they are expanded, the first ones."""
    apart = torch.full((*x.shape[:3], 2 * x.shape[3]), NAN, dtype=x.dtype, device=x.device)
    apart[..., ::2] = x
    odd = torch.full((x.numel() + 1,), NAN, dtype=x.dtype, device=x.device)
    odd[1:] = x.flatten()
    return {
        "rows inside a larger tensor": torch.cat([x, x * NAN], 3)[..., : x.shape[3]],
        "[B, N, H, D] transposed": x.transpose(1, 2).contiguous().transpose(1, 2),
        "last stride not 1": x.transpose(2, 3).contiguous().transpose(2, 3),
        "last stride 2": apart[..., ::2],
        "start not aligned": odd[1:].view(x.shape),
        "heads expanded": x[:, :1].expand(x.shape),
        "tokens expanded": x[:, :, :1].expand(x.shape),
        "batch expanded": x[:1].expand(x.shape),
    }


Call = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def recovered(call: Call, shape: tuple[int, int, int, int], head_dim: int, dtype: torch.dtype, device: str) -> Bools:
    """[heads, m, n]: the keys that `call(q, k, v)` attended; `shape` is heads, kv_heads, m, n."""
    heads, kv_heads, m, n = shape
    chunks = -(-n // head_dim)
    q = torch.zeros(chunks, heads, m, head_dim, dtype=dtype, device=device)
    k = torch.randn(chunks, kv_heads, n, head_dim, device=device).to(dtype)
    v = torch.zeros(chunks, kv_heads, n, head_dim, dtype=dtype, device=device)
    keys = torch.arange(n, device=device)
    v[keys // head_dim, :, keys, keys % head_dim] = 1.0
    with poisoned():
        out, lse = call(guarded(q), guarded(k), guarded(v))
    out, lse = out.double().cpu(), lse.double().cpu()
    assert out.shape == q.shape and lse.shape == (chunks, heads, m)
    assert not out.isnan().any(), "rows that nobody wrote, or a read out of range"
    assert torch.equal(lse, lse[:1].expand_as(lse)), "batch elements differ"
    assert not out[lse == float("-inf")].any(), "a row without keys is 0"
    count = lse[0].exp()
    times = (out * count[None, :, :, None]).permute(1, 2, 0, 3).reshape(heads, m, -1)
    assert not times[..., n:].any(), "keys past the end"
    times = times[..., :n]
    whole = times.round()
    assert (times - whole).abs().max() < 0.1, "weights that are no multiple of 1 / count"
    assert whole.max() <= 1, "a key attended twice"
    assert torch.allclose(whole.sum(-1), count, rtol=1e-3, atol=0), "the log-sum-exp counts other keys"
    return whole.bool().numpy()


def recovered_mask(
    pattern: weft.Pattern,
    n: int,
    m: int,
    heads: int = 1,
    kv_heads: int | None = None,
    backend: str = "auto",
    dtype: torch.dtype = torch.float32,
    head_dim: int = 64,
    device: str = "cpu",
    layer: int = 0,
    layers: int = 1,
    **inputs: Any,
) -> Bools:
    """[heads, m, n]: the keys that one attention call of a pattern attended."""

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pattern.attention(q, k, v, backend=backend, return_lse=True, layer=layer, layers=layers, **inputs)

    return recovered(call, (heads, kv_heads or heads, m, n), head_dim, dtype, device)


def definition(
    pattern: weft.Pattern, n: int, m: int, heads: int = 1, kv_heads: int | None = None, **rest: Any
) -> Bools:
    """[heads, m, n]: what the pattern means."""
    return np.broadcast_to(pattern.mask(n, m, heads=heads, kv_heads=kv_heads, **rest), (heads, m, n))


def assert_attends(
    pattern: weft.Pattern,
    n: int,
    m: int,
    heads: int = 1,
    kv_heads: int | None = None,
    inputs: Mapping[str, torch.Tensor] | None = None,
    layer: int = 0,
    layers: int = 1,
    **call: Any,
) -> None:
    """A back end attends exactly the pattern's keys."""
    given = {**(inputs or {}), "layer": layer, "layers": layers}
    got = recovered_mask(pattern, n, m, heads, kv_heads, **given, **call)
    wrong = np.argwhere(got != definition(pattern, n, m, heads, kv_heads, **given))
    assert not len(wrong), f"{len(wrong)} wrong of [head, row, key], first {wrong[0].tolist()}"


def exact(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Dense masked attention with every step in `dtype`: output and log-sum-exp, as float64."""
    group = q.shape[1] // k.shape[1]
    q, k, v = q.to(dtype), k.to(dtype).repeat_interleave(group, 1), v.to(dtype).repeat_interleave(group, 1)
    scores = ((q @ k.transpose(-1, -2)) * scale).masked_fill(~mask, float("-inf"))
    some = mask.any(-1, keepdim=True)
    weights = torch.where(some, torch.softmax(torch.where(some, scores, 0.0), -1), 0.0).to(dtype)
    return (weights @ v).double(), torch.logsumexp(scores.double(), -1)


def assert_close(
    got: tuple[torch.Tensor, torch.Tensor],
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: Bools,
    scale: float | None = None,
) -> None:
    """Row by row at most twice the error of the dense computation in the same dtype, plus one rounding of V."""
    kept = torch.as_tensor(np.array(mask), device=q.device)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    out, lse = exact(q, k, v, kept, factor, torch.float64)
    rough, rough_lse = exact(q, k, v, kept, factor, q.dtype)
    unit = torch.finfo(q.dtype).eps
    floor = unit * (2 if unit > 1e-4 else 16) * max(1.0, float(v.abs().max()))
    error = (got[0].double() - out).abs().amax(-1)
    allowed = 2 * (rough - out).abs().amax(-1) + floor
    assert (error <= allowed).all(), f"error {float((error - allowed).max()):.2e} above what is allowed"
    empty = (~kept.any(-1)).expand(lse.shape)
    assert (got[0][empty] == 0).all() and (got[1][empty] == float("-inf")).all(), "an empty row is 0 and -inf"
    off = (got[1].double() - lse)[~empty].abs()
    room = 2 * (rough_lse - lse)[~empty].abs() + 2e-5 * (1 + lse[~empty].abs())
    assert (off <= room).all(), f"log-sum-exp off by {float(off.max()):.2e}"
