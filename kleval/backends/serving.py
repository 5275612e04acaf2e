"""Requests through an engine of this process, what they share once: a walk over the tree of their parts, depth first.

A frame is a batch of states and what goes on from each of their rows. A group of parts is taken from the last frame: its rows are
forked from the frame's, the group's tokens run through the model as one batch, and then either it becomes a frame of its own
(shared parts) or its requests are scored or decoded to the end. So at any time there is one batch of states per level of the tree
and no more. A finished row leaves its batch. What does not fit into memory halves the batch; a request that does not fit alone has
failed.

Where shared parts end, a request's inputs are split at other positions than without sharing: the same function of the same tokens,
equal up to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from kleval.backends.batching import is_out_of_memory, together
from kleval.backends.generation import Job, advance, steps_at_once
from kleval.backends.native_parts import Part, in_order, own_part
from kleval.models.stepper import Steps
from kleval.types import Failure, Outcome, Tokenizer

S = TypeVar("S")


class Engine(Protocol[S]):
    """A model with its states, each of a batch of rows."""

    @property
    def device(self) -> torch.device: ...

    def forked(self, state: S | None, group: Sequence[tuple[int, Part]]) -> S:
        """A row for each part, that goes on from that row of a state (None: from nothing), with room for what comes."""

    def prefill(self, state: S, parts: Sequence[Part]) -> list[Tensor | None]:
        """Run the parts' tokens, a chunk at a time; score continuations on the way. Returns each row's last logits [V], where
        some job wanted them and tokens were run."""

    def stepper(self, state: S) -> Callable[[Tensor, int, Collection[int]], Steps]:
        """`Stepper.greedy` of a state: of one token per row [B] one step, or several; rows may leave the state between two calls."""

    def keep(self, state: S, rows: Sequence[int]) -> None:
        """Let the other rows leave."""

    def weigh(self, state: S) -> dict[str, int]:
        """Bytes of a state, by component."""

    def alike(self, parts: Sequence[Part], fresh: bool) -> int:
        """How many of the first parts may be one batch, for their lengths. fresh: they go on from nothing."""

    def state_bytes(self, part: Part) -> int:
        """What a row takes to the end of the part, or of its request."""

    def working_bytes(self, part: Part) -> int:
        """What it takes besides while it is prefilled."""

    def left(self, live: int) -> int:
        """What may still be taken while states of `live` bytes are kept."""


@dataclass(slots=True, eq=False)
class _Frame(Generic[S]):
    """state: None before the first token. logits: the last ones of each row [V], where some job wanted them. waiting: parts and
    the row that each goes on from. live: bytes of this frame's states and of those before it."""

    state: S | None
    logits: list[Tensor | None]
    waiting: list[tuple[int, Part]]
    live: int = 0


@dataclass(slots=True)
class Serving(Generic[S]):
    """One call. ends: tokens that end an answer. limit: most rows of a batch. prefilled_tokens: counted on the way. weighs: whether
    each job is told the bytes of its row's state when it ends."""

    engine: Engine[S]
    tokenizer: Tokenizer
    ends: frozenset[int]
    limit: int
    prefilled_tokens: int = 0
    weighs: bool = False
    _alone: list[Job] = field(default_factory=list)

    def run(self, parts: Sequence[Part]) -> Iterator[tuple[Job, Outcome]]:
        """Every job of the parts with its outcome. A group that runs out of memory is halved; what does not fit beside the states
        that it would go on from is served last, by itself, and fails only when it does not fit then."""
        stack: list[_Frame[S]] = [_Frame(None, [None], [(0, part) for part in parts])]
        while stack:
            frame = stack[-1]
            if not frame.waiting:
                stack.pop()
                if not stack and self._alone:
                    waiting = in_order([own_part(job) for job in self._alone])
                    self._alone = []
                    stack.append(_Frame(None, [None], [(0, part) for part in waiting]))
                continue
            rows = self._rows(frame)
            if rows == 0:
                yield from self._set_aside(frame, self._too_large(frame.waiting[0][1]))
                continue
            group, frame.waiting = frame.waiting[:rows], frame.waiting[rows:]
            jobs = [job for _, part in group for job in part.jobs]
            before = {job.position: (job, job.logprob_sum, job.greedy) for job in jobs}
            try:
                if group[0][1].branches:
                    stack.append(self._descend(frame, group))
                else:
                    for job, outcome in self._finish(frame, group):
                        del before[job.position]
                        yield job, outcome
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            if self.engine.device.type == "cuda":
                torch.cuda.empty_cache()
            for job, logprob_sum, greedy in before.values():
                job.restart()
                job.logprob_sum, job.greedy = logprob_sum, greedy
            again = [(row, part) for row, part in group if part.branches or part.jobs[0].position in before]
            frame.waiting = again + frame.waiting
            if rows > 1:
                self.limit = max(1, rows // 2)
            else:
                tokens = group[0][1].total_tokens
                yield from self._set_aside(frame, Failure("out_of_memory", f"{tokens} tokens do not fit into memory"))

    def _set_aside(self, frame: _Frame[S], failure: Failure) -> Iterator[tuple[Job, Outcome]]:
        """The first part of a frame does not fit: its jobs are served last, without what they share; one that had all memory to
        itself has failed."""
        _, part = frame.waiting.pop(0)
        if frame.state is None and not part.branches:
            yield part.jobs[0], failure
            return
        for job in part.jobs:
            job.restart()
        self._alone += part.jobs

    def _too_large(self, part: Part) -> Failure:
        used = self._need(part)
        return Failure(
            "out_of_memory",
            f"{part.total_tokens} tokens need about {used} bytes, the memory budget is {self.engine.left(0)}: "
            "give a larger --memory-budget or a shorter --ctx",
        )

    def _rows(self, frame: _Frame[S]) -> int:
        """How many of the frame's first parts go together: all of one kind. Shared ones leave room for what goes on from them:
        for at least one request, for as much again where there are several."""
        kind = _kind(frame.waiting[0][1])
        same = [part for _, part in takewhile(lambda one: _kind(one[1]) == kind, frame.waiting[: self.limit])]
        left = self.engine.left(frame.live)
        if kind == "scored":
            return len(same)
        same = same[: self.engine.alike(same, frame.state is None)]
        if kind == "own":
            return self._together(same, left)
        longest = [(part, max(part.jobs, key=lambda job: job.total_tokens)) for part in same]
        reserve = max(self._need(own_part(job, part.end)) for part, job in longest)
        return self._together(same, min(left - reserve, left // 2)) or self._together(same[:1], left - reserve)

    def _together(self, parts: Sequence[Part], budget: int) -> int:
        return together(parts, self.limit, lambda part: part.tokens, self._need, budget)

    def _need(self, part: Part) -> int:
        return self.engine.state_bytes(part) + self.engine.working_bytes(part)

    def _forked(self, frame: _Frame[S], group: Sequence[tuple[int, Part]]) -> S:
        return self.engine.forked(frame.state, group)

    @torch.inference_mode()
    def _descend(self, frame: _Frame[S], group: Sequence[tuple[int, Part]]) -> _Frame[S]:
        """Shared parts: what goes on from them is the next frame."""
        started = time.perf_counter()
        state = self._forked(frame, group)
        parts = [part for _, part in group]
        logits = self._prefill(state, parts)
        jobs = [job for part in parts for job in part.jobs]
        share = (time.perf_counter() - started) / len(jobs)
        for job in jobs:
            job.seconds += share
        live = frame.live + sum(map(self.engine.state_bytes, parts))
        rows = {id(branch): row for row, part in enumerate(parts) for branch in part.branches}
        branches = in_order([branch for part in parts for branch in part.branches])
        return _Frame(state, logits, [(rows[id(branch)], branch) for branch in branches], live)

    @torch.inference_mode()
    def _finish(self, frame: _Frame[S], group: Sequence[tuple[int, Part]]) -> Iterator[tuple[Job, Outcome]]:
        """Requests' own parts: prefill what is left of them and decode to the end, yielding each request as it finishes."""
        started = time.perf_counter()
        active = [part.jobs[0] for _, part in group]
        state: S | None = None
        last = [frame.logits[row] for row, _ in group]
        if _kind(group[0][1]) != "scored":
            state = self._forked(frame, group)
            fresh = self._prefill(state, [part for _, part in group])
            last = [old if new is None else new for old, new in zip(last, fresh, strict=True)]
        steps = Steps([], [], torch.stack([row for row in last if row is not None]))
        go_on: Callable[[Tensor, int, Collection[int]], Steps] | None = None
        while True:
            kept, done = advance(active, steps, self.tokenizer, self.ends, time.perf_counter() - started)
            if self.weighs and done and state is not None:
                weights = self.engine.weigh(state)
                for job, _ in done:
                    job.state_bytes = {name: nbytes // len(active) for name, nbytes in weights.items()}
            yield from done
            if not kept or state is None:
                return
            started = time.perf_counter()
            go_on = go_on or self.engine.stepper(state)
            if len(kept) < len(active):
                self.engine.keep(state, kept)
                active = [active[row] for row in kept]
            ids = torch.tensor([job.new_ids[-1] for job in active], device=self.engine.device)
            steps = go_on(ids, steps_at_once(active), self.ends)

    def _prefill(self, state: S, parts: Sequence[Part]) -> list[Tensor | None]:
        last = self.engine.prefill(state, parts)
        self.prefilled_tokens += sum(part.tokens for part in parts)
        return last


def _kind(part: Part) -> str:
    """`shared`; of requests' own parts `scored` where nothing is left to be run, else `own`."""
    if part.branches:
        return "shared"
    return "scored" if part.tokens == 0 and part.jobs[0].continuation else "own"
