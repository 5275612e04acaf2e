"""Shared prefixes of requests, as a tree: planned here, prefilled by the backends.

Token sequences go into a radix tree (Morrison 1968; vLLM and SGLang keep one over their caches): an edge holds tokens that all
sequences below it share, and is split where one of them leaves it. Every token of every sequence is looked at once, whole edges at a
time, and nothing recurses: a million tokens in one sequence and thousands of sequences on one path are no special cases.
A part that is shared by two sequences or more and is at least `min_tokens` longer than the shared part before it becomes a `Node`.
No model, no cache and no torch here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Node:
    """Tokens that follow those of the parent and that at least two sequences share.

    members: positions (in what was planned) of the sequences whose shared part ends here, ascending; a member may have no tokens
    of its own left.
    """

    ids: tuple[int, ...]
    children: tuple[Node, ...]
    members: tuple[int, ...]


def plan_prefixes(sequences: Sequence[Sequence[int]], min_tokens: int = 32) -> tuple[Node, ...]:
    """The shared beginnings of token sequences, as a forest; each of its nodes has at least min_tokens ids.

    A sequence is the ids on the path to the node that it is a member of, then its own rest, which stays with the caller; one that is
    nowhere a member shares nothing. ValueError when min_tokens is below 1.
    """
    if min_tokens < 1:
        raise ValueError(f"min_tokens is {min_tokens}: at least 1 is needed")
    tree = _Radix(sequences)
    plan: list[_Planned] = []
    members: list[list[int]] = []
    stack = [(0, -1)]  # an edge, and the place in `plan` of the last shared part above it
    while stack:
        edge, above = stack.pop()
        anchor, depth = above, tree.end[edge]
        before = plan[above].end if above >= 0 else 0
        if tree.count(edge) > 1 and depth - before >= min_tokens:
            anchor = len(plan)
            plan.append(_Planned(above, tree.source[edge], before, depth))
            members.append([])
        if anchor >= 0:
            members[anchor].extend(tree.ends[edge])
        stack.extend((child, anchor) for child in reversed(tree.children[edge].values()))
    children: list[list[Node]] = [[] for _ in plan]
    forest: list[Node] = []
    for at in range(len(plan) - 1, -1, -1):
        part = plan[at]
        ids = tuple(sequences[part.source][part.begin : part.end])
        node = Node(ids, tuple(reversed(children[at])), tuple(sorted(members[at])))
        (children[part.above] if part.above >= 0 else forest).append(node)
    return tuple(reversed(forest))


def shared_tokens(forest: Sequence[Node]) -> int:
    """Tokens that need not be prefilled: those of each node, times the sequences below it but one."""
    counts: list[int] = []
    places: list[tuple[Node, int]] = []
    stack = [(node, -1) for node in forest]
    while stack:
        node, above = stack.pop()
        stack.extend((child, len(places)) for child in node.children)
        places.append((node, above))
        counts.append(len(node.members))
    saved = 0
    for at in range(len(places) - 1, -1, -1):
        node, above = places[at]
        saved += len(node.ids) * (counts[at] - 1)
        if above >= 0:
            counts[above] += counts[at]
    return saved


def walk(forest: Sequence[Node]) -> Iterator[tuple[Node, int]]:
    """Every node with its depth, the number of tokens from the beginning to its end; parents before children."""
    stack = [(node, len(node.ids)) for node in reversed(forest)]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        stack.extend((child, depth + len(child.ids)) for child in reversed(node.children))


@dataclass(frozen=True, slots=True)
class _Planned:
    """tokens begin ... end - 1 of sequence `source`, below the shared part `above` (-1: none)."""

    above: int
    source: int
    begin: int
    end: int


@dataclass(slots=True)
class _Radix:
    """A radix tree. Edge 0 is the root. An edge ends `end` tokens from the beginning; its tokens are those of sequence `source`,
    from its parent's end on. ends: the sequences that are over there; children: by first token."""

    sequences: Sequence[Sequence[int]]
    source: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    children: list[dict[int, int]] = field(default_factory=list)
    ends: list[list[int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._edge(-1, 0)
        arrays = [np.asarray(sequence, dtype=np.int64) for sequence in self.sequences]
        for position in range(len(arrays)):
            self._insert(position, arrays)

    def count(self, edge: int) -> int:
        """Sequences that go through to the end of an edge, 2 meaning two or more. A leaf has those that end there; an edge that
        branches has at least two."""
        return min(2, len(self.ends[edge]) + len(self.children[edge]))

    def _edge(self, source: int, end: int) -> int:
        self.source.append(source)
        self.end.append(end)
        self.children.append({})
        self.ends.append([])
        return len(self.end) - 1

    def _insert(self, position: int, arrays: Sequence[NDArray[np.int64]]) -> None:
        ours = arrays[position]
        at = edge = 0
        while at < len(ours):
            child = self.children[edge].get(int(ours[at]))
            if child is None:
                child = self._edge(position, len(ours))
                self.children[edge][int(ours[at])] = child
                edge, at = child, len(ours)
                continue
            theirs = arrays[self.source[child]]
            stop = min(self.end[child], len(ours))
            differs = ours[at:stop] != theirs[at:stop]
            first = int(differs.argmax())
            same = at + first if differs[first] else stop
            if same < self.end[child]:
                upper = self._edge(self.source[child], same)
                self.children[upper][int(theirs[same])] = child
                self.children[edge][int(ours[at])] = upper
                child = upper
            edge, at = child, same
        if len(ours):
            self.ends[edge].append(position)
