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
    by = evaluate(order.by, call, {"k": call.domain("k")}).over(("k",)).expand(shape)
    whole = n // order.within * order.within
    by = by[..., :whole].unflatten(-1, (-1, order.within))
    falling = torch.sort(by.masked_fill(by.isnan(), float("-inf")), dim=-1, descending=True, stable=True).indices
    last = torch.sort(by.isnan().gather(-1, falling).byte(), dim=-1, stable=True).indices
    first = call.positions[:whole].view(-1, order.within)[:, :1]
    keys = (falling.gather(-1, last) + first).flatten(-2)
    tail = call.positions[whole:].expand(*keys.shape[:-1], -1)
    key_of = torch.cat([keys, tail], -1)
    place_of = torch.empty_like(key_of).scatter_(-1, key_of, call.positions.expand(shape))
    return Order(key_of.int(), place_of.int())
