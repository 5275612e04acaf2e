"""Requests through a transformers model, what they share once: a walk over the tree of their parts, depth first.

Rows of a batch have different lengths only where the model was found to bear padding, and then no more of it than one chunk holds;
below a shared part they have the same length. A finished row leaves the batch. What does not fit into memory halves the batch; a
request that does not fit alone has failed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kleval.backends.batching import free_bytes, is_out_of_memory, together
from kleval.backends.generation import Job, advance, score_continuation
from kleval.backends.hf_model import HFModel, Rows, state_bytes
from kleval.backends.native_parts import Part, own_part
from kleval.tokenization import ModelTokenizer
from kleval.types import Failure, Outcome

_WORKING_FLOATS = 64  # per token of a chunk and channel of the widest layer: an estimate of the activations
_LOGITS = 128  # positions whose logits are made double at a time


@dataclass(slots=True)
class Serving:
    """One call. chunk: tokens of a prefill. limit: most rows of a batch. budget: bytes, None: of what is free.

    prefilled_tokens: counted on the way. weighs: whether each job is told the bytes of its row's state when it ends.
    """

    adapter: HFModel
    tokenizer: ModelTokenizer
    ends: frozenset[int]
    chunk: int
    limit: int
    budget: int | None
    prefilled_tokens: int = 0
    weighs: bool = False
    # Logits for requests that have no part of their own, by position.
    _last: dict[int, Tensor] = field(default_factory=dict)
    _late: list[Job] = field(default_factory=list)
    _held: int = 0

    def run(self, parts: Sequence[Part]) -> Iterator[tuple[Job, Outcome]]:
        """Every job of the tree once, as it ends. What finds no room beside a shared state goes by itself, when there is none."""
        stack: list[tuple[Part, Rows | None]] = [(part, None) for part in reversed(parts) if part.branches]
        yield from self._own([part for part in parts if not part.branches], None)
        while stack:
            part, above = stack.pop()
            self._hold([above, *(rows for _, rows in stack)])
            rows = self._shared(part, above)
            if rows is None:
                self._late += part.jobs
                continue
            self._hold([rows, *(rows for _, rows in stack)])
            yield from self._own([branch for branch in part.branches if not branch.branches], rows)
            self._last.clear()
            stack += [(branch, rows) for branch in reversed(part.branches) if branch.branches]
            above = rows = None
        self._hold([])
        for job in self._late:
            job.restart()
        yield from self._own([own_part(job) for job in self._late], None)

    def _hold(self, states: Sequence[Rows | None]) -> None:
        """Count the bytes of the shared states that are kept."""
        tokens = {id(rows): rows.mask.shape[1] for rows in states if rows is not None}
        self._held = sum(self.adapter.bytes_fixed + self.adapter.bytes_per_token * n for n in tokens.values())

    def _shared(self, part: Part, above: Rows | None) -> Rows | None:
        """The state after a shared part; None when it and one that goes on from it do not fit."""
        longest = max(job.total_tokens for job in part.jobs)
        if (
            self._need(part, part.end) + self.adapter.bytes_fixed + self.adapter.bytes_per_token * longest
            > self._left()
        ):
            return None
        started = time.perf_counter()
        try:
            rows = above.copy() if above is not None else self.adapter.fresh(1)
            self._prefill(rows, [part])
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._free()
            return None
        share = (time.perf_counter() - started) / len(part.jobs)
        for job in part.jobs:
            job.seconds += share
        return rows

    def _own(self, parts: Sequence[Part], above: Rows | None) -> Iterator[tuple[Job, Outcome]]:
        """Requests' own last parts, in batches."""
        waiting = sorted(parts, key=lambda part: (-part.tokens, part.jobs[0].position))
        limit = self.limit
        while waiting:
            alike = waiting[: self._alike(waiting, above)]
            rows = together(alike, limit, lambda part: part.tokens, self._need, self._left())
            if not rows:
                job = waiting.pop(0).jobs[0]
                if above is not None:
                    self._late.append(job)
                    continue
                used = self._need(own_part(job))
                yield (
                    job,
                    Failure(
                        "out_of_memory",
                        f"{job.total_tokens} tokens need about {used} bytes, the memory budget is {self._left()}: "
                        "give a larger --memory-budget or a shorter --ctx",
                    ),
                )
                continue
            batch, waiting = waiting[:rows], waiting[rows:]
            open_jobs = {part.jobs[0].position: (part, part.jobs[0].logprob_sum, part.jobs[0].greedy) for part in batch}
            try:
                for job, outcome in self._serve(batch, above):
                    del open_jobs[job.position]
                    yield job, outcome
                continue
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
            self._free()
            again = [part for part, *_ in open_jobs.values()]
            for part, logprob_sum, greedy in open_jobs.values():
                part.jobs[0].restart()
                part.jobs[0].logprob_sum, part.jobs[0].greedy = logprob_sum, greedy
            if len(batch) == 1 and above is not None:
                self._late.append(batch[0].jobs[0])
            elif len(batch) == 1:
                job = batch[0].jobs[0]
                yield job, Failure("out_of_memory", f"{job.total_tokens} tokens do not fit into memory")
            else:
                limit = max(1, len(batch) // 2)
                waiting = again + waiting

    def _alike(self, waiting: Sequence[Part], above: Rows | None) -> int:
        """How many of the first ones may go together, for their lengths."""
        longest = waiting[0].tokens
        bears = self.adapter.padded and above is None
        slack = min(self.chunk, longest) - 1 if bears else 0
        return next((i for i, part in enumerate(waiting) if longest - part.tokens > slack), len(waiting))

    def _serve(self, parts: Sequence[Part], above: Rows | None) -> Iterator[tuple[Job, Outcome]]:
        """Prefill a batch and decode it to the end."""
        started = time.perf_counter()
        active = [part.jobs[0] for part in parts]
        if above is None:
            rows = self.adapter.fresh(len(parts))
        else:
            rows = above.copy()
            rows.select([0] * len(parts))
        if parts[0].tokens:
            last = self._prefill(rows, parts)
        else:  # everything is shared: the last token of it gave the logits
            last = torch.stack([self._last[job.position] for job in active])
        while True:
            kept, done = advance(active, last, self.tokenizer, self.ends, time.perf_counter() - started)
            if self.weighs and done:
                state = state_bytes(rows.cache)
                for job, _ in done:
                    job.state_bytes = {name: nbytes // rows.n for name, nbytes in state.items()}
            yield from done
            if not kept:
                return
            started = time.perf_counter()
            if len(kept) < len(active):
                rows.select(kept)
                active = [active[row] for row in kept]
            ids = torch.tensor([[job.new_ids[-1]] for job in active], device=self.adapter.device)
            last = self.adapter.forward(ids, torch.ones_like(ids), rows, 1)[:, -1]

    def _prefill(self, rows: Rows, parts: Sequence[Part]) -> Tensor:
        """Run the parts' tokens, padded on the left, a chunk at a time; score continuations on the way. Returns each row's last
        logits [B, V]. Jobs whose own part is empty keep those of the part before."""
        width = max(part.tokens for part in parts)
        ids = torch.zeros(len(parts), width, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, part in enumerate(parts):
            if part.tokens:
                ids[row, width - part.tokens :] = torch.tensor(part.jobs[0].inputs[part.begin : part.end])
                mask[row, width - part.tokens :] = 1
        ids, mask = ids.to(self.adapter.device), mask.to(self.adapter.device)
        # Where on the padded line each row's first wanted position lies.
        wanted = [part.first - part.begin + width - part.tokens for part in parts]
        logits = torch.empty(0)
        for at in range(0, width, self.chunk):
            end = min(at + self.chunk, width)
            begin = min(max(at, min(wanted)), end - 1)
            logits = self.adapter.forward(ids[:, at:end], mask[:, at:end], rows, end - begin)
            for row, part in enumerate(parts):
                offset = part.begin - (width - part.tokens)  # a position of the line plus this is one of the inputs
                for start in range(max(begin, wanted[row]), end, _LOGITS):
                    stop = min(start + _LOGITS, end)
                    self._score(part, logits[row, start - begin : stop - begin], start + offset)
        self.prefilled_tokens += sum(part.tokens for part in parts)
        last = logits[:, -1].clone()
        for row, part in enumerate(parts):
            for branch in part.branches:
                if not branch.branches and not branch.tokens:
                    self._last[branch.jobs[0].position] = last[row]
        return last

    def _score(self, part: Part, logits: Tensor, position: int) -> None:
        """logits [n, V] of inputs position ... for every job of the part whose continuation they predict."""
        for job in part.jobs:
            skipped = max(0, job.first - position)
            if job.continuation and skipped < len(logits):
                score_continuation(job, logits[skipped:], position + skipped - job.first)

    def _need(self, part: Part, tokens: int | None = None) -> int:
        """Bytes for the state of a request to its end, and to prefill its part (or that many tokens)."""
        total = part.jobs[0].total_tokens if tokens is None else tokens
        state = self.adapter.bytes_fixed + self.adapter.bytes_per_token * total
        config = self.adapter.model.config.get_text_config()
        wide = max(int(config.hidden_size), int(getattr(config, "intermediate_size", None) or 0) // 4)
        chunk = min(self.chunk, part.tokens or 1)
        logits = min(chunk, max(1, part.end - max(part.first, part.begin)))
        working = chunk * wide * _WORKING_FLOATS + chunk * 4 * min(total, 4096)
        return state + working + (logits + 3) * self.adapter.vocab_size * 4

    def _left(self) -> int:
        return free_bytes(self.adapter.device) if self.budget is None else self.budget - self._held

    def _free(self) -> None:
        if self.adapter.device.type == "cuda":
            torch.cuda.empty_cache()
