"""What a CUDA graph may capture: calls like one that ran before, in which the host reads no input."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from .tensors import TensorError

if TYPE_CHECKING:
    import torch

    from .pattern import Pattern


def capturing(device: torch.device) -> bool:
    """Whether a graph captures what is launched on a device."""
    import torch

    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def capturing_now() -> bool:
    """Whether a graph captures what is launched on the current device; no reason to import torch or to start CUDA."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def require_no_inputs(pattern: Pattern, names: Iterable[str]) -> None:
    """Raise TensorError for inputs that tiles are found from on the host: a graph would not follow their values."""
    if read := [f"`{name}`" for name in names]:
        raise TensorError(
            f"pattern `{pattern.name}`: the host reads {', '.join(read)}, which no CUDA graph can capture"
        )


def require_made(pattern: Pattern, made: bool) -> None:
    """Raise TensorError unless an earlier call made all that is made once for such tensors."""
    if not made:
        hint = "call it once with such tensors before a CUDA graph captures it"
        raise TensorError(f"pattern `{pattern.name}` has not run lately with tensors of these shapes: {hint}")
