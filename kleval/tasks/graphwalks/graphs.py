"""Directed graphs drawn at random, and the two operations on them.

As in those official rows that can be seen in public: node i is called by the first ten digits of md5 of its number, every node has
equally many edges, listed in the order of the nodes, and they lead to any node, to itself and to one node twice among them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from kleval.tasks import packaged

GRAPHS_VERSION = "graphs-1"
DEGREES, DEPTHS = 5, 4  # at most: edges from a node, steps of a search
Asked = tuple[str, tuple[str, ...]]
PROMPT = packaged.load("graphwalks/prompt.toml")
AROUND = "edges:\n{edges}Operation:\n"  # what stands around the edges, whatever blank lines a row has there


@cache
def name(node: int) -> str:
    return hashlib.md5(str(node).encode(), usedforsecurity=False).hexdigest()[:10]


def edges(rng: random.Random, n_nodes: int, degree: int) -> Iterator[str]:
    """Lines, those of one node after another."""
    return (f"{name(node)} -> {name(rng.randrange(n_nodes))}\n" for node in range(n_nodes) for _ in range(degree))


def ask(kind: str, lines: Sequence[str], n: int, seed: int, most: int) -> Asked:
    """A message with an operation on the graph of the first n lines, and what it results in: at most that many nodes, which must be as
    many as the largest degree. seed: of where it begins."""
    rng, after, nodes = random.Random(seed), dict[str, list[str]](), dict[str, None]()
    for line in lines[:n]:
        ends = line.split()[::2]
        nodes |= dict.fromkeys(ends)
        start, end = ends if kind == "bfs" else reversed(ends)
        after.setdefault(start, []).append(end)
    everywhere = list(nodes)
    while True:
        start, depth = rng.choice(everywhere), rng.randint(1, DEPTHS) if kind == "bfs" else 1
        if len(found := at_depth(after, start, depth)) <= most:
            return message(lines[:n], PROMPT[kind].format(node=start, depth=depth)), found


def at_depth(after: Mapping[str, Sequence[str]], start: str, depth: int) -> tuple[str, ...]:
    """Nodes to which the shortest way takes that many edges, in the order of a breadth-first search. after: node -> where its edges
    lead; against the edges, depth 1 holds a node's parents without itself."""
    seen, layer = {start}, [start]
    for _ in range(depth):
        layer = list(dict.fromkeys(node for one in layer for node in after.get(one, ()) if node not in seen))
        seen.update(layer)
    return tuple(layer)


def message(lines: Sequence[str], operation: str) -> str:
    return f"{PROMPT['before']}{''.join(lines)}{PROMPT['behind'].format(operation=operation)}"
