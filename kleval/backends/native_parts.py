"""The requests of one call as a tree of parts: tokens that several of them begin with, and what each has for itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from kleval.backends.generation import Job, score_continuation
from kleval.backends.prefixes import Node, plan_prefixes

MIN_SHARED_TOKENS = 32  # a shorter part costs about as much in calls as it saves in tokens


@dataclass(slots=True, eq=False)
class Part:
    """Inputs begin ... end - 1 of every one of `jobs`.

    Either shared: `branches` go on from here; or one job's own, and the last of it: no branches, perhaps no tokens.
    """

    begin: int
    end: int
    jobs: list[Job]
    branches: list[Part] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return self.end - self.begin

    @property
    def first(self) -> int:
        """The position from which on some job wants logits."""
        return min(job.first for job in self.jobs)

    @property
    def total_tokens(self) -> int:
        """What a state must hold that only goes through here, or to the job's end."""
        return self.end if self.branches else self.jobs[0].total_tokens

    def score(self, logits: Tensor, position: int) -> None:
        """logits [n, V] of inputs position ... for every job of the part whose continuation they predict."""
        for job in self.jobs:
            skipped = max(0, job.first - position)
            if job.continuation and skipped < len(logits):
                score_continuation(job, logits[skipped:], position + skipped - job.first)


def own_part(job: Job, begin: int = 0) -> Part:
    return Part(begin, len(job.inputs), [job])


def plan_parts(jobs: Sequence[Job], share: bool) -> list[Part]:
    """Every job once, in its own part; parts that go together lie side by side, longest first."""
    forest = plan_prefixes([job.inputs for job in jobs], MIN_SHARED_TOKENS) if share and len(jobs) > 1 else ()
    alone = set(range(len(jobs)))
    roots: list[Part] = []
    made: list[Part] = []
    stack: list[tuple[Node, Part | None]] = [(node, None) for node in forest]
    while stack:
        node, above = stack.pop()
        begin = above.end if above else 0
        part = Part(begin, begin + len(node.ids), [jobs[i] for i in node.members])
        part.branches = [own_part(jobs[i], part.end) for i in node.members]
        alone.difference_update(node.members)
        (above.branches if above else roots).append(part)
        made.append(part)
        stack.extend((child, part) for child in node.children)
    for part in reversed(made):
        for branch in part.branches:
            if branch.branches:
                part.jobs.extend(branch.jobs)
        part.branches = in_order(part.branches)
    return in_order(roots + [own_part(jobs[i]) for i in alone])


def in_order(parts: Sequence[Part]) -> list[Part]:
    """Jobs' own parts before shared ones, so that they are done with; the longest first; scored and generating ones apart."""

    def key(part: Part) -> tuple[bool, int, bool, int, int]:
        first = part.jobs[0]
        return bool(part.branches), -part.tokens, bool(first.continuation), -part.begin, first.position

    return sorted(parts, key=key)
