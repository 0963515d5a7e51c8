"""Do the tensors and inputs of a call fit its pattern: one clear sentence when they do not."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .compiler.ir import Mask
from .dsl.syntax import Definition

if TYPE_CHECKING:
    import torch

    from .pattern import Pattern

LARGEST_HEAD_DIM = 256


class TensorError(ValueError):
    """Tensors that do not fit a pattern, named with the pattern and the shapes."""


class Reader(Protocol):
    """What reads inputs: a pattern, or a stack of them."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def definition(self) -> Definition:
        """Its syntax."""
        ...

    @property
    def declared_inputs(self) -> tuple[str, ...]:
        """Names of the inputs it may read."""
        ...


def require_known(pattern: Reader, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise TensorError for a name that is no input; parameters are given before a call."""
    parameters = [parameter.name for parameter in pattern.definition.parameters]
    for name in sorted(set(given).difference(known)):
        if name in parameters:
            value = repr(given[name]) if isinstance(given[name], int | float | str) else ".."
            how = f"give it before the call: `pattern({name}={value})` or `weft.load(.., {name}={value})`"
            raise TensorError(f"pattern `{pattern.name}`: `{name}` is a parameter, not an input; {how}")
        raise TensorError(f"pattern `{pattern.name}` has no input `{name}` (its inputs: {', '.join(known) or 'none'})")


def host_inputs(
    pattern: Reader, mask: Mask, inputs: Mapping[str, Any], n: int, m: int, heads: int, batch: int | None = None
) -> dict[str, np.ndarray]:
    """The inputs a mask names, as int64 arrays of the right length; raises TensorError."""
    axes = {t.source: t.axis for t in mask.tables if t.source}
    require_known(pattern, inputs, pattern.declared_inputs)
    lengths = {"token": n, "key": n, "query": m, "head": heads}
    out: dict[str, np.ndarray] = {}
    for name, axis in axes.items():
        shapes = [(lengths[axis],)] + ([(batch, lengths[axis])] if batch is not None else [])
        wanted = " or ".join(str(list(s)) for s in shapes)
        if name not in inputs:
            what = f"integers, one for each {axis}, {wanted}"
            raise TensorError(f"pattern `{pattern.name}` needs the input `{name}`: {what}")
        value = inputs[name]
        try:
            array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
        except ValueError as error:
            raise TensorError(f"pattern `{pattern.name}`: input `{name}` is ragged: {error}") from error
        if array.dtype.kind not in "iub":
            raise TensorError(f"pattern `{pattern.name}`: input `{name}` must be integers, not {array.dtype}")
        if array.shape not in shapes:
            raise TensorError(f"pattern `{pattern.name}`: input `{name}` is {list(array.shape)}, wanted {wanted}")
        if array.size and (array.max() >= 2**31 or array.min() < -(2**31)):
            raise TensorError(f"pattern `{pattern.name}`: input `{name}` leaves 32 bits")
        out[name] = array.astype(np.int64)
    return out


def require_tensors(pattern: Pattern, given: tuple[object, ...]) -> None:
    """Raise TensorError for anything else, before it is asked for its shape."""
    import torch

    if not all(isinstance(x, torch.Tensor) for x in given):
        kinds = ", ".join(type(x).__name__ for x in given)
        raise TensorError(f"pattern `{pattern.name}` ({pattern.where}): q, k and v are torch tensors, not {kinds}")


def check_tensors(pattern: Pattern, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> None:
    """Raise TensorError unless q, k and v fit each other and what weft can run."""
    import torch

    shapes = f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"

    def wrong(why: str) -> TensorError:
        return TensorError(f"pattern `{pattern.name}` ({pattern.where}): {why}; got {shapes}")

    if not q.ndim == k.ndim == v.ndim == 4:
        raise wrong("q, k and v are [batch, heads, tokens, head_dim]")
    if k.shape != v.shape:
        raise wrong("k and v have the same shape")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise wrong("q and k agree in batch and head_dim")
    if not k.shape[1] or q.shape[1] % k.shape[1]:
        raise wrong("the query heads are a multiple of the key/value heads")
    if not 1 <= q.shape[3] <= LARGEST_HEAD_DIM:
        raise wrong(f"head_dim is 1 to {LARGEST_HEAD_DIM}")
    if not q.dtype == k.dtype == v.dtype:
        raise wrong(f"q, k and v have one dtype, not {q.dtype}, {k.dtype}, {v.dtype}")
    if q.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise wrong(f"the dtype is float16, bfloat16, float32 or (on the CPU) float64, not {q.dtype}")
    if not q.device == k.device == v.device:
        raise wrong(f"q, k and v are on one device, not {q.device}, {k.device}, {v.device}")
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        raise wrong("there is no backward pass yet: call under torch.no_grad()")
