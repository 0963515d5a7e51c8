"""Orders of keys: the key at each place and the place of each key, for each head."""

import torch

from ..compiler import selection as ir
from .score_call import Call, Order
from .scores import evaluate


def placed(call: Call) -> Call:
    """The call with all orders known."""
    for order in call.program.orders:
        call.orders[order.name] = order_of(order, call)
    return call


def order_of(order: ir.Order, call: Call) -> Order:
    """Whole segments of keys by falling score, equal ones by position, then what is no number; a tail as it is."""
    n, shape = call.n, (call.q.shape[0], *call.q.shape[1:3], call.n)
    by = evaluate(order.by, call, {"k": call.domain("k")}).over(("k",))
    by = by.expand(*by.shape[:3], n)
    whole = n // order.within * order.within
    by = by[..., :whole].unflatten(-1, (-1, order.within))
    # Sorts end with NaN, whose sign must be that of a number after infinity where bits are sorted; zeros have one sign.
    rising = (0.0 - by).masked_fill(by.isnan(), float("nan"))
    first = call.positions[:whole].view(-1, order.within)[:, :1]
    keys = (torch.sort(rising, dim=-1, stable=True).indices + first).flatten(-2)
    tail = call.positions[whole:].expand(*keys.shape[:-1], -1)
    key_of = torch.cat([keys, tail], -1) if whole < n else keys
    place_of = torch.empty_like(key_of).scatter_(-1, key_of, call.positions.expand(key_of.shape))
    return Order(key_of.int().expand(shape), place_of.int().expand(shape))
