"""Timed requests to a vLLM engine in this process: added at their times, while its step loop is run here.

A token has arrived when the step that made it returns. There is no server, no network and no text: what a server adds to the
times is not in them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Any

from kleval.backends.generation import Job
from kleval.backends.vllm_errors import failure_of
from kleval.types import Arrival, Failure, TimedRequest, Trace


def time_requests(
    engine: Any,
    requests: Sequence[TimedRequest],
    jobs: Sequence[Job | Failure],
    seconds: float,
    together: int | None = None,
) -> list[Trace]:
    """One trace per request. jobs: the requests as tokens, or why they are not asked. seconds: how long one may take. together: most
    that are under way.

    A step that raises fails all that are under way.
    """
    clock = time.perf_counter
    inputs = [None if isinstance(job, Failure) else _input(job) for job in jobs]
    params = [None if isinstance(job, Failure) else _params(job) for job in jobs]
    arrivals: list[list[Arrival]] = [[] for _ in jobs]
    cached: list[int | None] = [None] * len(jobs)
    failures: dict[int, Failure] = {at: job for at, job in enumerate(jobs) if isinstance(job, Failure)}
    start = clock()
    due = [start + one.submit_seconds for one in requests]
    waiting = sorted((at for at in range(len(jobs)) if at not in failures), key=lambda at: due[at], reverse=True)
    open_: dict[str, int] = {}
    prefix = f"kleval-{start}-"
    try:
        while waiting or open_:
            while waiting and due[waiting[-1]] <= clock() and len(open_) < (together or len(jobs)):
                at = waiting.pop()
                if together is not None:
                    due[at] = max(due[at], clock())
                try:
                    engine.add_request(f"{prefix}{at}", inputs[at], params[at])
                    open_[f"{prefix}{at}"] = at
                except Exception as error:
                    failures[at] = failure_of(error)
            if not open_:
                time.sleep(max(0.0, due[waiting[-1]] - clock()) if waiting else 0.0)
                continue
            try:
                outputs = engine.step()
            except Exception as error:
                failures |= dict.fromkeys(open_.values(), failure_of(error))
                _abort(engine, open_)
                continue
            now = clock()
            for output in outputs:
                found = open_.get(output.request_id)
                if found is None:
                    continue
                if tokens := len(output.outputs[0].token_ids):
                    arrivals[found].append(Arrival(now, tokens))
                cached[found] = output.num_cached_tokens
                if output.finished:
                    del open_[output.request_id]
            late = {name: at for name, at in open_.items() if now > due[at] + seconds}
            said = f"no complete answer within {seconds:g} seconds (--request-timeout)"
            failures |= dict.fromkeys(late.values(), Failure("timeout", said))
            open_ = {name: at for name, at in open_.items() if name not in late}
            _abort(engine, late)
    finally:
        _abort(engine, open_)
    return [
        Trace(
            due[at],
            tuple(arrivals[at]),
            sum(arrival.tokens or 0 for arrival in arrivals[at]),
            None if isinstance(job, Failure) else len(job.prompt),
            cached[at],
            failure=failures.get(at),
        )
        for at, job in enumerate(jobs)
    ]


def _abort(engine: Any, names: dict[str, int]) -> None:
    if names:
        with contextlib.suppress(Exception):  # a dead engine has nothing to abort
            engine.abort_request(sorted(names))
        names.clear()


def _params(job: Job) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0.0,
        max_tokens=job.request.max_new_tokens,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def _input(job: Job) -> Any:
    from vllm.inputs import tokens_input

    return tokens_input(list(job.prompt))
