"""Where information goes in a stack of block masks: ways, a random walk, and blocks that everything passes.

The only module that imports networkx, which is slow to load: import this one where it is needed.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from collections.abc import Sequence

import networkx as nx
import numpy as np
from networkx.algorithms.flow import shortest_augmenting_path
from numpy.typing import NDArray

from .coverage import Flow

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def flow(layers: Sequence[Bools], block: int) -> Flow:
    """The facts of the last block; layers[l][q, k] says whether block q attends to block k, the input's layer first."""
    bottlenecks, cut = narrows(np.logical_or.reduce(layers))
    return Flow(block, ways(layers), influence(layers), bottlenecks, cut)


def ways(layers: Sequence[Bools]) -> tuple[float, float, float]:
    """log2 of the number of ways from the last block to each it reaches: least, median, most."""
    with np.errstate(divide="ignore"):
        logs = np.log2(last_block(layers))
    for layer in reversed(layers):
        links = layer | np.eye(len(layer), dtype=np.bool_)
        logs = np.logaddexp2.reduce(np.where(links, logs[:, None], -np.inf), axis=0)
    logs = logs[logs > -np.inf]
    return float(logs.min()), float(np.median(logs)), float(logs.max())


def influence(layers: Sequence[Bools]) -> tuple[float, float, float]:
    """Where a walk from the last block ends that stays or goes to a key, evenly: its own, the last and first tenth."""
    share = last_block(layers)
    for layer in reversed(layers):
        keys = layer.sum(axis=1)
        leaving = np.where(keys > 0, share / 2, 0.0)
        share = share - leaving + (leaving / np.maximum(keys, 1)) @ layer
    tenth = -(-len(share) // 10)
    return float(share[-1]), float(share[-tenth:].sum()), float(share[:tenth].sum())


def narrows(attends: Bools) -> tuple[tuple[int, ...], int | None]:
    """Blocks that every way from the last block to the first passes, and how few separate the two (None: linked)."""
    last = len(attends) - 1
    if last == 0 or attends[last, 0]:
        return (), None
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from((0, last))
    graph.add_edges_from((q, k) for q, k in np.argwhere(direct(attends)).tolist())
    above = nx.immediate_dominators(graph, last)
    if 0 not in above:
        return (), 0
    found: list[int] = []
    node = above[0]
    while node != last:
        found.append(node)
        node = above[node]
    if found:
        return tuple(sorted(found)), 1
    # Not the default algorithm, which takes several times as long on dense graphs.
    return (), len(nx.minimum_node_cut(graph, last, 0, flow_func=shortest_augmenting_path))


def direct(attends: Bools) -> Bools:
    """The steps without those to the last block or one that it sees, nor those from the first or one that sees it.

    A way over such a step has a shorter one through fewer of its blocks: neither bottlenecks nor cuts change, and dense
    graphs become small. networkx also takes a step from the first block to the last for a link, and cuts nothing.
    """
    steps = attends & ~np.eye(len(attends), dtype=np.bool_)
    seen, seeing = attends[-1].copy(), attends[:, 0].copy()
    seen[-1] = seeing[0] = True
    steps[:-1, seen] = False
    steps[seeing, 1:] = False
    return steps


def last_block(layers: Sequence[Bools]) -> Floats:
    """All of it on the last block."""
    start = np.zeros(len(layers[0]))
    start[-1] = 1.0
    return start
