"""Runs a model in vLLM, in this process: token ids in, token ids and log-probabilities out.

Requests are added to the engine one by one and stepped, so that an answer is yielded as it is finished and a prompt that vLLM
refuses fails alone (`LLM.generate` raises for all of a batch). What vLLM would refuse or answer short is found before it is
sent: no tokens, ids outside the vocabulary, prompt + new tokens beyond max_model_len, where it clamps max_tokens and says
nothing; an answer that comes back short all the same is Failure(context_overflow). A step that fails is tried again request
by request, which finds the one it was.

vLLM's own tokenizer is not loaded: prompts are ids, and text, stop strings and end of sequence are the backend's, as native has
them. A likelihood is that of the continuation's last token as the next one, and prompt log-probabilities of those before it: with
a single token, as in multiple choice, none of the prompt's are computed and its prefix comes from the cache. Greedy: each of them
has rank 1, and the last is what would be generated.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from kleval.backends.generation import Job, completion, finish_reason, make_job
from kleval.backends.spec import BackendSpec
from kleval.backends.timing import ordinary_ids
from kleval.backends.vllm_errors import failure_of, is_dead, line
from kleval.backends.vllm_setup import (
    Place,
    cache_for_cpu,
    check_device,
    engine_arguments,
    find,
    import_vllm,
    known_arguments,
    settings,
    wake_when_dead,
)
from kleval.backends.vllm_timing import time_requests
from kleval.models.checkpoint.config_json import eos_ids
from kleval.models.checkpoint.files import digest, weight_files
from kleval.tokenization import ModelTokenizer, asked_with, has_tokenizer, load_tokenizer, read_tokenizer
from kleval.types import Failure, Outcome, Request, TimedRequest, Tokenizer, Trace, UsageError


def open_vllm(spec: BackendSpec) -> VllmBackend:
    """A backend for a folder or hub id that vLLM knows. UsageError for what is not there, and for what vLLM refuses to load."""
    place = find(spec)
    tokenizer = asked_with(_tokenizer(spec, place), spec.add_bos, spec.template_args)
    vllm = import_vllm()
    from vllm.platforms import current_platform

    check_device(spec.device, current_platform.device_type)
    arguments = engine_arguments(spec, place, known_arguments())
    if current_platform.device_type == "cpu":
        arguments |= cache_for_cpu(arguments)
    try:
        llm = vllm.LLM(**arguments)
    except Exception as error:  # an engine that cannot be made raises nearly anything, its own log says where
        raise UsageError(f"vLLM {vllm.__version__} cannot load {spec.model}: {line(error)}") from error
    own = tokenizer.eos_id if isinstance(tokenizer, ModelTokenizer) else None
    ends = eos_ids(place.folder, own)
    facts = {
        "vllm": vllm.__version__,
        "device": current_platform.device_type,
        "engine_args": spec.shown_engine_args(),
        "own_process": os.environ.get("VLLM_ENABLE_V1_MULTIPROCESSING", "1") != "0",
    }

    def weights() -> str:
        return digest(weight_files(place.folder)) if place.revision is None else f"revision {place.revision}"

    return VllmBackend(llm, tokenizer, place.name, frozenset(ends), facts, weights, spec.request_timeout)


@dataclass(slots=True)
class _Queue:
    """waiting: not yet with the engine. running: with it, by number. suspects: how many of the first are asked alone."""

    waiting: deque[Job] = field(default_factory=deque)
    running: dict[str, Job] = field(default_factory=dict)
    suspects: int = 0

    def one_less(self) -> None:
        self.suspects = max(0, self.suspects - 1)


class VllmBackend:
    """kleval.types.Timed on a vllm.LLM. ends: ids that end an answer. facts: what describe() tells besides the settings, and
    weights: their digest, made when it is asked for. request_timeout: seconds that a timed request may take."""

    name = "vllm"

    def __init__(
        self,
        llm: Any,
        tokenizer: Tokenizer,
        model: str,
        ends: frozenset[int],
        facts: dict[str, Any] | None = None,
        weights: Callable[[], str] = lambda: "",
        request_timeout: float = 600.0,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        config = llm.llm_engine.vllm_config
        self.max_ctx: int | None = config.model_config.max_model_len
        self.stats = {"prompt_tokens": 0, "prefilled_tokens": 0, "cached_tokens": 0}
        self._llm = llm
        self._engine = llm.llm_engine
        self._vocab_size: int = config.model_config.get_vocab_size()
        self._ends = frozenset(i for i in ends if 0 <= i < self._vocab_size)  # vLLM refuses requests that name others
        # The engine schedules among what it has been given; more than it runs at a time keeps it busy.
        self._window = 2 * config.scheduler_config.max_num_seqs
        self._facts, self._weights, self._request_timeout = facts or {}, weights, request_timeout
        self._numbers = itertools.count()
        self._dead: Failure | None = None
        wake_when_dead(llm)

    def describe(self) -> dict[str, Any]:
        import torch

        return {
            **self._facts,
            "weights_sha256": self._weights(),
            "torch": torch.__version__,
            "tokenizer_sha256": self.tokenizer.digest,
            **settings(self._llm),
        }

    def close(self) -> None:
        if self._llm is None:
            return
        with contextlib.suppress(Exception):  # of a dead engine nothing is left to shut down
            self._engine.engine_core.shutdown()
        self._llm = self._engine = None
        gc.collect()

    def timed(self, requests: Sequence[TimedRequest], together: int | None = None) -> list[Trace]:
        jobs = [self._job(position, one.request) for position, one in enumerate(requests)]
        return time_requests(self._engine, requests, jobs, self._request_timeout, together)

    def describe_timed(self) -> dict[str, Any]:
        engine = settings(self._llm)
        engine.pop("memory_budget_bytes", None)  # what is free differs from one start to the next
        known = {"backend": "vllm", "software": "vllm", "prompts": "token ids", "ignore_eos": True}
        return (
            known
            | engine
            | {"environment": {"software": f"vLLM {self._facts.get('vllm')}", "vllm": self._facts.get("vllm")}}
        )

    def memory_told(self) -> dict[str, Any]:
        """Of the engine's caches, as its configuration has them, and how many workers hold a part of each."""
        config = self._llm.llm_engine.vllm_config
        if (cache := getattr(config, "cache_config", None)) is None:
            return {}
        workers = getattr(getattr(config, "parallel_config", None), "world_size", 1)
        return {"cache": dict(vars(cache)), "workers": workers}

    def vocabulary(self) -> range:
        return ordinary_ids(self._vocab_size)

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        queue = _Queue()
        for position, request in enumerate(requests):
            job = self._job(position, request)
            if isinstance(job, Failure):
                yield position, job
            else:
                queue.waiting.append(job)
        try:
            while queue.waiting or queue.running:
                yield from self._fill(queue)
                if queue.running:
                    yield from self._step(queue)
        finally:
            self._abort(queue.running)

    def _fill(self, queue: _Queue) -> Iterator[tuple[int, Outcome]]:
        """Give the engine what it has room for; yield what it does not take."""
        while queue.waiting and len(queue.running) < (1 if queue.suspects else self._window):
            job = queue.waiting.popleft()
            failure = self._dead or self._add(job, queue.running)
            if failure is not None:
                queue.one_less()
                yield job.position, failure

    def _step(self, queue: _Queue) -> Iterator[tuple[int, Outcome]]:
        """One step of the engine; yield what it finished."""
        started = time.perf_counter()
        try:
            outputs = self._engine.step()
        except Exception as error:
            yield from self._after_fault(queue, error)
            return
        share = (time.perf_counter() - started) / len(queue.running)
        for job in queue.running.values():
            job.seconds += share
        for output in outputs:
            done = queue.running.get(output.request_id)
            outcome = self._take(done, output) if done is not None else None
            if done is None or outcome is None:
                continue
            if not output.finished:
                self._abort([output.request_id])
            del queue.running[output.request_id]
            queue.one_less()
            yield done.position, outcome

    def _after_fault(self, queue: _Queue, error: Exception) -> Iterator[tuple[int, Outcome]]:
        """A step failed: ask again one by one, or give up the one that was alone, or all of them if the engine is gone."""
        jobs, failure = list(queue.running.values()), failure_of(error)
        self._abort(queue.running)
        queue.running.clear()
        if is_dead(error) or not self._forget_prefixes():
            self._dead = failure
        if len(jobs) > 1 and self._dead is None:
            for job in reversed(jobs):
                job.restart()
                queue.waiting.appendleft(job)
            queue.suspects = len(jobs)
            return
        queue.one_less()
        for job in jobs:
            yield job.position, failure

    def _job(self, position: int, request: Request) -> Job | Failure:
        return make_job(position, request, self.tokenizer, self._vocab_size, self.max_ctx or 0)

    def _add(self, job: Job, running: dict[str, Job]) -> Failure | None:
        """Hand one request to the engine, or say why it does not take it."""
        from vllm.inputs import tokens_input

        number = f"kleval-{next(self._numbers)}"
        try:
            self._engine.add_request(number, tokens_input(list(job.inputs)), self._sampling(job))
        except Exception as error:
            return failure_of(error)
        running[number] = job
        return None

    def _sampling(self, job: Job) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        request = job.request
        if job.continuation:
            return SamplingParams(
                temperature=0.0,
                max_tokens=1,
                prompt_logprobs=0 if len(job.continuation) > 1 else None,
                logprob_token_ids=[job.continuation[-1]],
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
        sampled = request.temperature > 0
        return SamplingParams(
            temperature=max(request.temperature, 0.0),
            top_p=request.top_p if sampled else 1.0,
            seed=request.seed if sampled else None,
            max_tokens=request.max_new_tokens,
            logprobs=request.logprobs or None,
            stop_token_ids=sorted(self._ends),
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA if request.stop else RequestOutputKind.FINAL_ONLY,
        )

    def _abort(self, numbers: Sequence[str] | dict[str, Job]) -> None:
        if numbers and self._engine is not None:
            with contextlib.suppress(Exception):  # a dead engine has nothing to abort
                self._engine.abort_request(list(numbers))

    def _forget_prefixes(self) -> bool:
        """Empty the prefix cache; whether it could be. Blocks count as cached from when they are scheduled: after a step that
        failed they would be reused though nothing was computed into them."""
        try:
            return bool(self._engine.reset_prefix_cache())
        except Exception:
            return False

    def _take(self, job: Job, output: Any) -> Outcome | None:
        """What a step brought for one request: its outcome, or None while there is more to come."""
        answer = output.outputs[0]
        if not job.continuation:
            for number, token in enumerate(answer.token_ids):
                job.new_ids.append(token)
                if job.request.logprobs and answer.logprobs:
                    told = answer.logprobs[number]
                    job.logprobs.append(float(told[token].logprob))
                    job.likely.append({one: float(entry.logprob) for one, entry in told.items()})
                if token in self._ends:
                    break
                if finish_reason(job, self.tokenizer, ()) == "stop":
                    self._count(job, output)
                    return completion(job, "stop", self.tokenizer)
        if not output.finished:
            return None
        self._count(job, output)
        if answer.finish_reason not in ("stop", "length"):
            return Failure("internal", f"vLLM ended the request with {answer.finish_reason!r}")
        if job.continuation:
            return _scored(job, output.prompt_logprobs or (), answer, self.tokenizer)
        if answer.finish_reason == "stop":
            return completion(job, "eos", self.tokenizer)
        asked, got = job.request.max_new_tokens, len(job.new_ids)
        if got < asked:
            return Failure("context_overflow", f"vLLM stopped for length after {got} of {asked} tokens")
        return completion(job, "length", self.tokenizer)

    def _count(self, job: Job, output: Any) -> None:
        sent, cached = len(job.inputs), output.num_cached_tokens or 0
        self.stats["prompt_tokens"] += sent
        self.stats["cached_tokens"] += cached
        self.stats["prefilled_tokens"] += sent - cached


def _scored(job: Job, logprobs: Sequence[Any], answer: Any, tokenizer: Tokenizer) -> Outcome:
    """The likelihood of the continuation: its last token from the answer's log-probabilities, those before from the prompt's."""
    *head, last = job.continuation
    if (head and len(logprobs) != len(job.inputs)) or not answer.logprobs or last not in answer.logprobs[0]:
        return Failure("internal", "vLLM did not give the log-probabilities that were asked for")
    chosen = [at[token] for at, token in zip(list(logprobs)[len(job.prompt) :], head, strict=True)] if head else []
    each = [*(float(entry.logprob) for entry in chosen), float(answer.logprobs[0][last].logprob)]
    job.logprob_sum = sum(each)
    job.logprobs = each if job.request.logprobs else []
    job.greedy = all(entry.rank == 1 for entry in chosen) and answer.token_ids[0] == last
    return completion(job, "length", tokenizer)


def _tokenizer(spec: BackendSpec, place: Place) -> Tokenizer:
    """The model's own; the one that was named where it has none: `--tokenizer` may be one that lengths are counted in."""
    folder = place.folder
    found = next((one for one in (folder, folder.parent) if has_tokenizer(one)), None)
    if found is None and spec.tokenizer is not None and spec.tokenizer.startswith("hf:"):
        return load_tokenizer(spec.tokenizer)
    return read_tokenizer(found or folder, name=place.name)
