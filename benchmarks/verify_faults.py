"""Small serving engine over one of kleval's decoders, with slots, chunked prefill and a prefix cache, and faults planted into it.

Without a fault it is right. Each fault is one class of those that engines have shipped, with a strength from 0 (right) to 1 (as bad
as the bug that it is named after). Requests that come together are decoded in the same steps; a prompt's log-probabilities leave the
prefix cache aside, as vLLM and SGLang do. `serving` answers over HTTP in vLLM's form.
"""

from __future__ import annotations

import json
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from torch import Tensor

from kleval.backends.generation import Job, advance, make_job, score_continuation
from kleval.backends.timing import ordinary_ids
from kleval.models.cache import HybridCache, LatentState, RecurrentState
from kleval.models.decoder import Decoder
from kleval.models.stepper import Steps
from kleval.tokenization import ModelTokenizer
from kleval.types import Completion, Failure, Outcome, Request

CHUNK, BLOCK, SLOTS, CACHED_BLOCKS = 64, 16, 4, 64
LIMIT = 150  # tokens: where an index of the lowered width overflows
MIXED_NEIGHBOURS = 2

# Each with the bug of a published engine that it rebuilds, where it is one.
FAULTS = {
    "state-layout": "the state is handed from prefill to decode transposed (vLLM #40956)",
    "carry-layout": "the state is carried to the next prefill chunk transposed (vLLM #41292)",
    "state-not-carried": "a prefill chunk begins without the state of the one before (mlxcel #1749)",
    "conv-tail-lost": "a prefill chunk begins without the last inputs of the short convolution",
    "cache-without-state": "a prefix cache hit restores attention rows and no recurrent state (SGLang #31474)",
    "cache-stale-state": "a prefix cache hit restores the state of a later token",
    "rope-in-nope": "positions are rotated in attention that has none (mlx-lm #853)",
    "batch-mixes": "rows of a decode step take part of a neighbour's state",
    "overflow": "prefill past a length overwrites what the state held (fla #1082)",
    "forgets": "attention rows are overwritten past a length, and the state with them",
    "nan-slot": "a state that is not finite stays in its slot (vLLM #51039)",
    "dirty-slot": "a slot's state is not cleared for the next request",
    "wrong-layers": "a layer has another layer's output weights",
    "wrong-inverse": "the delta rule of a chunk clamps large decays",
}
# The law that finds it first.
FOUND_BY = {
    "state-layout": "state", "carry-layout": "state", "state-not-carried": "state", "conv-tail-lost": "state",
    "cache-without-state": "prefix-cache", "cache-stale-state": "prefix-cache", "rope-in-nope": "reference",
    "batch-mixes": "batch", "overflow": "state", "forgets": "state", "nan-slot": "slots", "dirty-slot": "slots",
    "wrong-layers": "reference", "wrong-inverse": "state",
}  # fmt: skip


@dataclass
class Slot:
    """What the last request in it left."""

    states: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class FaultyEngine:
    """kleval.types.Backend. fault: one of FAULTS, or "". strength: of it."""

    name = "faulty"

    def __init__(
        self, decoder: Decoder, tokenizer: ModelTokenizer, fault: str = "", strength: float = 1.0, model: str = "tiny"
    ) -> None:
        self.decoder, self.tokenizer, self.fault, self.strength, self.model = decoder, tokenizer, fault, strength, model
        self.config = decoder.config
        self.max_ctx: int | None = self.config.max_position_embeddings
        self.dtype = decoder.model.embed_tokens.weight.dtype
        self.slots = [Slot() for _ in range(SLOTS)]
        self.blocks: dict[tuple[int, ...], HybridCache] = {}
        self.ends = tuple(end for end in (self.config.eos_token_id,) if end is not None)
        self._next_slot = 0
        if fault in _OF_MODEL:
            _OF_MODEL[fault](decoder, strength)

    def describe(self) -> dict[str, Any]:
        return {"dtype": str(self.dtype).removeprefix("torch."), "tokenizer_sha256": self.tokenizer.digest}

    def vocabulary(self) -> range:
        return ordinary_ids(self.config.vocab_size)

    def close(self) -> None: ...

    @torch.inference_mode()
    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        waiting: list[Job] = []
        for position, request in enumerate(requests):
            job = make_job(position, request, self.tokenizer, self.config.vocab_size, self.max_ctx or 0)
            if isinstance(job, Failure):
                yield position, job
            elif job.continuation:
                yield position, self._scored(job)
            else:
                waiting.append(job)
        running: list[tuple[Job, HybridCache, int, Tensor]] = []
        while waiting or running:
            while waiting and len(running) < SLOTS:
                job = waiting.pop(0)
                slot = self._take_slot({r[2] for r in running})
                cache, logits = self._prefilled(job, slot)
                running.append((job, cache, slot, logits))
            jobs = [one[0] for one in running]
            steps = Steps([], [], torch.stack([one[3] for one in running]))
            kept, done = advance(jobs, steps, self.tokenizer, self.ends, 0.0)
            for job, outcome in done:
                _, cache, slot, _ = next(one for one in running if one[0] is job)
                self._leave(cache, slot)
                yield job.position, outcome
            running = self._step([running[row] for row in kept])

    def _take_slot(self, taken: set[int]) -> int:
        while self._next_slot % SLOTS in taken:
            self._next_slot += 1
        slot = self._next_slot % SLOTS
        self._next_slot += 1
        return slot

    def _fresh(self, slot: int | None = None) -> HybridCache:
        cache = HybridCache(self.config, 1, "cpu", self.dtype)
        left = self.slots[slot].states if slot is not None else []
        if left and self.fault in ("dirty-slot", "nan-slot"):
            share = self.strength if self.fault == "dirty-slot" else 0.0
            for state, (recurrent, conv) in zip(_recurrent(cache), left, strict=True):
                state.recurrent, state.conv = share * recurrent, share * conv
        return cache

    def _leave(self, cache: HybridCache, slot: int) -> None:
        states = [(s.recurrent.clone(), s.conv.clone()) for s in _recurrent(cache)]
        self.slots[slot].states = states

    def _step(self, running: list[tuple[Job, HybridCache, int, Tensor]]) -> list[tuple[Job, HybridCache, int, Tensor]]:
        """One token more of every row."""
        if self.fault == "batch-mixes" and len(running) >= MIXED_NEIGHBOURS:
            before = [[s.recurrent for s in _recurrent(cache)] for _, cache, _, _ in running]
            for row, (_, cache, _, _) in enumerate(running):
                for layer, state in enumerate(_recurrent(cache)):
                    state.recurrent = torch.lerp(before[row][layer], before[row - 1][layer], self.strength)
        found = []
        for job, cache, slot, _ in running:
            hidden = self.decoder.hidden(torch.tensor([job.new_ids[-1:]]), cache)
            found.append((job, cache, slot, self.decoder.logits(hidden[0, -1])))
        return found

    def _prefilled(self, job: Job, slot: int) -> tuple[HybridCache, Tensor]:
        """With what the prefix cache has of it; whole blocks are put there."""
        ids = job.inputs
        cache, at = self._fresh(slot), 0
        for end in range((len(ids) - 1) // BLOCK * BLOCK, 0, -BLOCK):
            if ids[:end] in self.blocks:
                cache, at = self.blocks[ids[:end]].fork(), end
                self._damage_hit(cache, ids, end)
                break
        while at < len(ids):
            # A chunk ends at a multiple of CHUNK, the last whole block is kept.
            end = min(len(ids), (at // CHUNK + 1) * CHUNK)
            whole = len(ids) // BLOCK * BLOCK
            end = min(end, whole) if at < whole else end
            hidden = self._chunk(ids[at:end], cache, at)
            at = end
            if at % BLOCK == 0:
                self._keep(ids[:at], cache)
        if (
            self.fault == "nan-slot"
            and len(ids) >= 60
            and len(set(ids[8:])) <= 2
            and slot % max(1, round(1 / self.strength)) == 0
        ):
            for state in _recurrent(cache):
                state.recurrent = state.recurrent * math.nan
            self._leave(cache, slot)
        logits = self.decoder.logits(hidden[-1])
        if self.fault == "state-layout":
            _transpose(cache, self.strength)
        return cache, logits

    def _keep(self, ids: tuple[int, ...], cache: HybridCache) -> None:
        if len(self.blocks) >= CACHED_BLOCKS:
            del self.blocks[next(iter(self.blocks))]
        self.blocks[ids] = cache.fork()

    def _damage_hit(self, cache: HybridCache, ids: tuple[int, ...], end: int) -> None:
        if self.fault == "cache-without-state":
            _scale(cache, 1 - self.strength, conv=True)
        if self.fault == "cache-stale-state":
            later = next((c for known, c in self.blocks.items() if len(known) > end and known[:end] == ids[:end]), None)
            for mine, theirs in zip(_recurrent(cache), _recurrent(later) if later else [], strict=False):
                mine.recurrent = torch.lerp(mine.recurrent, theirs.recurrent, self.strength)

    def _chunk(self, ids: Sequence[int], cache: HybridCache, at: int) -> Tensor:
        """hidden [T, C] of a chunk that begins at token `at`."""
        if at % CHUNK == 0 and at > 0:
            if self.fault == "state-not-carried":
                _scale(cache, 1 - self.strength)
            if self.fault == "conv-tail-lost":
                for state in _recurrent(cache):
                    state.conv = state.conv * (1 - self.strength)
            if self.fault == "carry-layout":
                _transpose(cache, self.strength)
        if self.fault == "overflow" and at + len(ids) > LIMIT:
            _scale(cache, 1 - self.strength)
        if self.fault == "forgets" and at + len(ids) > LIMIT:
            _forget(cache, self.strength)
        return self.decoder.hidden(torch.tensor([list(ids)]), cache)[0]

    def _scored(self, job: Job) -> Outcome:
        cache, ids = self._fresh(), job.inputs
        for at in range(0, len(ids), CHUNK):
            hidden = self._chunk(ids[at : at + CHUNK], cache, at)
            first = max(at, job.first)
            if first < at + len(hidden):
                score_continuation(job, self.decoder.logits(hidden[first - at :]), first - job.first)
        if not math.isfinite(job.logprob_sum):
            return Failure("internal", "the model's logits are not finite")
        return Completion(
            "", len(job.prompt), len(job.continuation), "length", job.continuation, job.logprob_sum, job.greedy,
            logprobs=tuple(job.logprobs),
        )  # fmt: skip


def _recurrent(cache: HybridCache) -> list[RecurrentState]:
    return [state for state in cache.layers if isinstance(state, RecurrentState)]


def _scale(cache: HybridCache, factor: float, conv: bool = False) -> None:
    for state in _recurrent(cache):
        state.recurrent = state.recurrent * factor
        if conv:
            state.conv = state.conv * factor


def _transpose(cache: HybridCache, share: float) -> None:
    for state in _recurrent(cache):
        state.recurrent = torch.lerp(state.recurrent, state.recurrent.transpose(-1, -2), share).contiguous()


def _forget(cache: HybridCache, share: float) -> None:
    _scale(cache, 1 - share, conv=True)
    for state in cache.layers:
        if isinstance(state, LatentState):
            for views in state.rows():
                for view in views:
                    view *= 1 - share


def _rotate(decoder: Decoder, strength: float) -> None:
    """Rotated by a share of each position."""
    from kleval.models.attention import LatentAttention

    decoder._native_weights = lambda cache: None  # type: ignore[method-assign]
    for block in decoder.model.layers:
        block.steps = lambda: None  # type: ignore[method-assign]
        mixer = block.self_attn
        if isinstance(mixer, LatentAttention):
            mixer.theta = 10000.0
            forward = mixer.forward
            mixer.forward = lambda x, state, positions, f=forward: f(x, state, positions * strength)  # type: ignore[method-assign]


def _other_layer(decoder: Decoder, strength: float) -> None:
    first, *_, last = [block.mlp for block in decoder.model.layers]
    with torch.no_grad():
        for mine, theirs in zip(first.parameters(), last.parameters(), strict=False):
            if mine.shape == theirs.shape:
                mine.copy_(torch.lerp(mine, theirs, strength))


def _clamped(decoder: Decoder, strength: float) -> None:
    """Decays of more than one token at a time are clamped, as a kernel that bounds exp(g) would."""
    from kleval.models.linear_attention import LinearAttention

    decoder._native_weights = lambda cache: None  # type: ignore[method-assign]
    for block in decoder.model.layers:
        block.steps = lambda: None  # type: ignore[method-assign]
        mixer = block.self_attn
        if isinstance(mixer, LinearAttention):
            right = mixer._decay

            def decay(f: Tensor, inputs: Any, right: Callable[..., Tensor] = right) -> Tensor:
                g = right(f, inputs)
                return torch.lerp(g, g.clamp(min=-0.05), strength) if f.shape[1] > 1 else g

            mixer._decay = decay  # type: ignore[method-assign]


_OF_MODEL: dict[str, Callable[[Decoder, float], None]] = {
    "rope-in-nope": _rotate,
    "wrong-layers": _other_layer,
    "wrong-inverse": _clamped,
}


class Batcher:
    """Requests of many connections, run together where they come within a moment."""

    MOMENT = 0.004

    def __init__(self, engine: FaultyEngine) -> None:
        self.engine = engine
        self.waiting: queue.SimpleQueue[tuple[Request, list[Outcome], threading.Event] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def ask(self, request: Request) -> Outcome:
        box: list[Outcome] = []
        done = threading.Event()
        self.waiting.put((request, box, done))
        done.wait()
        return box[0]

    def _work(self) -> None:
        while (first := self.waiting.get()) is not None:
            batch = [first]
            time.sleep(self.MOMENT)
            while not self.waiting.empty():
                if (more := self.waiting.get()) is not None:
                    batch.append(more)
            for position, outcome in self.engine.run([request for request, _, _ in batch]):
                _, box, done = batch[position]
                box.append(outcome)
                done.set()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    batcher: Batcher

    def log_message(self, *args: Any) -> None: ...

    def do_GET(self) -> None:
        engine = self.batcher.engine
        listed = {"id": engine.model, "owned_by": "vllm", "max_model_len": engine.max_ctx}
        self._send(200, {"version": "0"} if self.path.endswith("/version") else {"data": [listed]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.path.endswith("/completions"):
            self._send(404, {"error": {"message": "no such path"}})
            return
        tokenizer = self.batcher.engine.tokenizer
        prompt = body["prompt"] if isinstance(body["prompt"], list) else tokenizer.encode(body["prompt"])
        ids, n = tuple(prompt), int(body["max_tokens"])
        if body.get("prompt_logprobs") is not None:
            request = Request("loglikelihood", "", token_ids=ids[:1], continuation_ids=ids[1:], logprobs=1)
        else:
            request = Request(
                "generate", "", token_ids=ids, max_new_tokens=n, stop=tuple(body.get("stop") or ()), logprobs=5,
                temperature=body.get("temperature", 0.0), seed=body.get("seed") or 0,
            )  # fmt: skip
        outcome = self.batcher.ask(request)
        if isinstance(outcome, Failure):
            code = 400 if outcome.kind in ("bad_request", "context_overflow") else 500
            self._send(code, {"error": {"message": outcome.message}})
            return
        choice: dict[str, Any] = {"text": outcome.text, "finish_reason": "length", "index": 0}
        n_new = outcome.output_tokens
        if request.kind == "loglikelihood":
            tables = [{str(t): {"logprob": p, "rank": 1}} for t, p in zip(ids[1:], outcome.logprobs, strict=True)]
            choice["prompt_logprobs"], n_new = [None, *tables], 1
        else:
            choice["token_ids"] = list(outcome.token_ids)
            tops = [{tokenizer.decode([t]): p for t, p in place.items()} for place in outcome.likely]
            choice["logprobs"] = {"token_logprobs": list(outcome.logprobs), "top_logprobs": tops}
            choice["finish_reason"] = "length" if outcome.finish_reason == "length" else "stop"
        usage = {"prompt_tokens": len(ids), "completion_tokens": n_new}
        self._send(200, {"model": self.batcher.engine.model, "choices": [choice], "usage": usage})

    def _send(self, code: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


@contextmanager
def serving(engine: FaultyEngine) -> Iterator[str]:
    """The engine's address, for --base-url."""
    with _Server(("127.0.0.1", 0), type("Of", (Handler,), {"batcher": Batcher(engine)})) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        finally:
            server.shutdown()
