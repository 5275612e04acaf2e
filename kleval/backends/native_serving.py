"""Requests through a decoder, what they share once: a walk over the tree of their parts, depth first.

A frame is a batch of states and what goes on from each of their rows. A group of parts is taken from the last frame: its rows are
forked from the frame's, the group's tokens run through the decoder as one batch, and then either it becomes a frame of its own
(shared parts) or its requests are scored or decoded to the end. So at any time there is one batch of states per level of the tree
and no more. Latent rows are shared between a state and its forks; recurrent states are copied.

A part is split into chunks at the same positions whatever it is batched with. Where shared parts end, a request's inputs are split
at other positions than without sharing: the same function of the same tokens, equal up to rounding.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

import torch
from torch import Tensor

from kleval.backends.batching import is_out_of_memory, together
from kleval.backends.generation import Job, advance, score_continuation
from kleval.backends.native_memory import Memory
from kleval.backends.native_parts import Part, in_order, own_part
from kleval.models.cache import HybridCache
from kleval.models.decoder import Decoder
from kleval.models.stepper import Stepper
from kleval.types import Failure, Outcome, Tokenizer

SCORED_TOKENS = 256  # positions whose logits exist at a time


@dataclass(slots=True, eq=False)
class _Frame:
    """cache: None before the first token. logits: the last ones of each row [V], where some job wanted them. waiting: parts and
    the row that each goes on from. live: bytes of this frame's states and of those before it."""

    cache: HybridCache | None
    logits: list[Tensor | None]
    waiting: list[tuple[int, Part]]
    live: int = 0


@dataclass(slots=True)
class Serving:
    """One call. limit: most rows of a batch. prefilled_tokens: counted on the way. weighs: whether each job is told the bytes of
    its row's state when it ends."""

    decoder: Decoder
    tokenizer: Tokenizer
    ends: frozenset[int]
    memory: Memory
    limit: int
    prefilled_tokens: int = 0
    weighs: bool = False
    _alone: list[Job] = field(default_factory=list)

    def run(self, parts: Sequence[Part]) -> Iterator[tuple[Job, Outcome]]:
        """Every job of the parts with its outcome. A group that runs out of memory is halved; what does not fit beside the states
        that it would go on from is served last, by itself, and fails only when it does not fit then."""
        stack = [_Frame(None, [None], [(0, part) for part in parts])]
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
            if self.memory.device.type == "cuda":
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

    def _set_aside(self, frame: _Frame, failure: Failure) -> Iterator[tuple[Job, Outcome]]:
        """The first part of a frame does not fit: its jobs are served last, without what they share; one that had all memory to
        itself has failed."""
        _, part = frame.waiting.pop(0)
        if frame.cache is None and not part.branches:
            yield part.jobs[0], failure
            return
        for job in part.jobs:
            job.restart()
        self._alone += part.jobs

    def _too_large(self, part: Part) -> Failure:
        used = self._need(part)
        return Failure(
            "out_of_memory",
            f"{part.total_tokens} tokens need about {used} bytes, the memory budget is {self.memory.left(0)}: "
            "give a larger --memory-budget or a shorter --ctx",
        )

    def _rows(self, frame: _Frame) -> int:
        """How many of the frame's first parts go together: all of one kind. Shared ones leave room for what goes on from them:
        for at least one request, for as much again where there are several."""
        kind = _kind(frame.waiting[0][1])
        same = [part for _, part in takewhile(lambda one: _kind(one[1]) == kind, frame.waiting[: self.limit])]
        left = self.memory.left(frame.live)
        if kind == "scored":
            return len(same)
        if kind == "own":
            return self._together(same, left)
        longest = [(part, max(part.jobs, key=lambda job: job.total_tokens)) for part in same]
        reserve = max(self._need(own_part(job, part.end)) for part, job in longest)
        return self._together(same, min(left - reserve, left // 2)) or self._together(same[:1], left - reserve)

    def _together(self, parts: Sequence[Part], budget: int) -> int:
        return together(parts, self.limit, lambda part: part.tokens, self._need, budget)

    def _need(self, part: Part) -> int:
        return self.memory.state_bytes(part.total_tokens, part.begin) + self.memory.working_bytes(part.tokens, part.end)

    def _forked(self, frame: _Frame, group: Sequence[tuple[int, Part]]) -> HybridCache:
        """Rows that go on from the frame's, with room for what comes."""
        more = [part.total_tokens - part.begin for _, part in group]
        if frame.cache is None:
            memory = self.memory
            return HybridCache(memory.config, len(group), memory.device, memory.dtype, more)
        cache = frame.cache.fork([row for row, _ in group])
        cache.reserve(more)
        return cache

    @torch.inference_mode()
    def _descend(self, frame: _Frame, group: Sequence[tuple[int, Part]]) -> _Frame:
        """Shared parts: what goes on from them is the next frame."""
        started = time.perf_counter()
        cache = self._forked(frame, group)
        parts = [part for _, part in group]
        logits = self._prefill(cache, parts)
        jobs = [job for part in parts for job in part.jobs]
        share = (time.perf_counter() - started) / len(jobs)
        for job in jobs:
            job.seconds += share
        live = frame.live + sum(self.memory.state_bytes(part.total_tokens, part.begin) for part in parts)
        rows = {id(branch): row for row, part in enumerate(parts) for branch in part.branches}
        branches = in_order([branch for part in parts for branch in part.branches])
        return _Frame(cache, logits, [(rows[id(branch)], branch) for branch in branches], live)

    @torch.inference_mode()
    def _finish(self, frame: _Frame, group: Sequence[tuple[int, Part]]) -> Iterator[tuple[Job, Outcome]]:
        """Requests' own parts: prefill what is left of them and decode to the end, yielding each request as it finishes."""
        started = time.perf_counter()
        active = [part.jobs[0] for _, part in group]
        cache: HybridCache | None = None
        last = [frame.logits[row] for row, _ in group]
        if _kind(group[0][1]) != "scored":
            cache = self._forked(frame, group)
            fresh = self._prefill(cache, [part for _, part in group])
            last = [old if new is None else new for old, new in zip(last, fresh, strict=True)]
        logits = torch.stack([row for row in last if row is not None])
        stepper: Stepper | None = None
        while True:
            kept, done = advance(active, logits, self.tokenizer, self.ends, time.perf_counter() - started)
            if self.weighs and done and cache is not None:
                used = cache.used_by_component()
                state = {"latent": used.latent, "recurrent": used.recurrent, "conv": used.conv}
                for job, _ in done:
                    job.state_bytes = {name: nbytes // len(active) for name, nbytes in state.items()}
            yield from done
            if not kept or cache is None:
                return
            started = time.perf_counter()
            stepper = stepper or Stepper(self.decoder, cache)
            if len(kept) < len(active):
                cache.keep(kept)
                active = [active[row] for row in kept]
            logits = stepper.step(torch.tensor([job.new_ids[-1] for job in active], device=self.memory.device))

    def _prefill(self, cache: HybridCache, parts: Sequence[Part]) -> list[Tensor | None]:
        """Run the parts' tokens, a chunk at a time; score continuations on the way. Returns each row's last logits [V], where
        some job wanted them."""
        last: list[Tensor | None] = [None] * len(parts)
        firsts = [part.first for part in parts]
        lengths = [part.tokens for part in parts]
        ids = torch.zeros(len(parts), max(lengths), dtype=torch.int64)
        for row, part in enumerate(parts):
            ids[row, : lengths[row]] = torch.tensor(part.jobs[0].inputs[part.begin : part.end])
        ids = ids.to(self.memory.device)
        for at in range(0, ids.shape[1], self.memory.prefill_tokens):
            chunk = ids[:, at : at + self.memory.prefill_tokens]
            counts = [min(max(length - at, 0), chunk.shape[1]) for length in lengths]
            full = min(counts) == chunk.shape[1]
            hidden = self.decoder.hidden(chunk, cache, None if full else torch.tensor(counts, device=ids.device))
            self.prefilled_tokens += sum(counts)
            for row, (part, count) in enumerate(zip(parts, counts, strict=True)):
                here = part.begin + at
                for begin in range(max(here, firsts[row]), here + count, SCORED_TOKENS):
                    end = min(begin + SCORED_TOKENS, here + count)
                    logits = self.decoder.logits(hidden[row, begin - here : end - here])
                    for job in part.jobs:
                        if job.continuation and job.first < end:
                            start = max(job.first, begin)
                            score_continuation(job, logits[start - begin :], start - job.first)
                    last[row] = logits[-1].clone()
        return last


def _kind(part: Part) -> str:
    """`shared`; of requests' own parts `scored` where nothing is left to be run, else `own`."""
    if part.branches:
        return "shared"
    return "scored" if part.tokens == 0 and part.jobs[0].continuation else "own"
