"""Shared prefixes of requests, as a tree: planned here, prefilled by the backends.

Token sequences are sorted; neighbours then share the longest prefixes, and those that share one lie side by side (the tree of a
suffix array's common prefixes: Abouelhoda, Kurtz, Ohlebusch 2004). What all of a run share is split off, the run is cut where it is
all that they share, and so on. Every token is compared in C, and nothing recurses: a million tokens in one sequence and thousands of
sequences on one path are no special cases. A part that is shared by two sequences or more and is at least `min_tokens` longer than
the shared part before it becomes a `Node`. No model, no cache and no torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


@dataclass(frozen=True, slots=True)
class Node:
    """Tokens that follow those of the parent and that at least two sequences share.

    members: positions (in what was planned) of the sequences whose shared part ends here, ascending; a member may have no tokens
    of its own left.
    """

    ids: tuple[int, ...]
    children: tuple[Node, ...]
    members: tuple[int, ...]


@dataclass(slots=True)
class _Planned:
    """Tokens begin ... end - 1 of sequence `source`, below the shared part `above`. children: with the first position below each."""

    above: int
    source: int
    begin: int
    end: int
    members: list[int] = field(default_factory=list)
    children: list[tuple[int, Node]] = field(default_factory=list)

    @property
    def in_order(self) -> tuple[Node, ...]:
        return tuple(node for _, node in sorted(self.children, key=lambda child: child[0]))


def plan_prefixes(sequences: Sequence[Sequence[int]], min_tokens: int = 32) -> tuple[Node, ...]:
    """The shared beginnings of token sequences, as a forest; each of its nodes has at least min_tokens ids.

    A sequence is the ids on the path to the node that it is a member of, then its own rest, which stays with the caller; one that is
    nowhere a member shares nothing. ValueError when min_tokens is below 1.
    """
    if min_tokens < 1:
        raise ValueError(f"min_tokens is {min_tokens}: at least 1 is needed")
    order, shared = _sorted(sequences)
    root = _Planned(-1, -1, 0, 0)
    plan = [root]
    runs = [(0, len(order), 0)] if order else []  # of `order`, and the last shared part above them
    while runs:
        low, high, above = runs.pop()
        if high - low == 1:
            plan[above].members.append(order[low])
            continue
        common = shared[low : high - 1]
        depth, before = int(common.min()), plan[above].end
        cuts = [low, *(low + 1 + np.flatnonzero(common == depth)).tolist(), high]
        if depth - before >= min_tokens:
            plan.append(_Planned(above, order[low], before, depth))
            above = len(plan) - 1
        runs.extend((begin, end, above) for begin, end in pairwise(cuts))
    for part in reversed(plan[1:]):
        ids = tuple(sequences[part.source][part.begin : part.end])
        node = Node(ids, part.in_order, tuple(sorted(part.members)))
        first = min([*part.members, *(position for position, _ in part.children)])
        plan[part.above].children.append((first, node))
    return root.in_order


def _sorted(sequences: Sequence[Sequence[int]]) -> tuple[list[int], np.ndarray]:
    """Positions of the sequences that have tokens, in an order in which equal beginnings lie together; and how many tokens each has in
    common with the next."""
    arrays = [np.asarray(sequence, dtype=np.int64) for sequence in sequences]
    order = sorted((i for i, ids in enumerate(arrays) if len(ids)), key=lambda i: arrays[i].tobytes())
    shared = []
    for one, other in pairwise(arrays[i] for i in order):
        n = min(len(one), len(other))
        differs = one[:n] != other[:n]
        first = int(differs.argmax())
        shared.append(first if differs[first] else n)
    return order, np.array(shared, dtype=np.int64)
