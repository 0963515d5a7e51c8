"""Dense masked attention in plain torch: slow, any dtype, the oracle."""

import torch


def attend_dense(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention over `mask` `[m, n]`, `[H, m, n]` or `[B, H, m, n]`; rows without keys give 0 and minus infinity."""
    group = q.shape[1] // max(1, k.shape[1])
    exact = torch.float64 if q.dtype == torch.float64 else torch.float32
    keys, values = (x.to(exact).repeat_interleave(group, 1) for x in (k, v))
    with torch.autocast(q.device.type, enabled=False):
        scores = (q.to(exact) @ keys.transpose(-1, -2)) * scale
        scores = scores.masked_fill(~mask, float("-inf"))
        lse = torch.logsumexp(scores, -1)
        weights = torch.exp(scores - torch.where(lse == float("-inf"), 0.0, lse)[..., None])
        return (weights @ values).to(q.dtype), lse
