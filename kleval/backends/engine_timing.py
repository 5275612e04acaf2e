"""Timed requests to an engine in this process that answers batch by batch: those that are due together are one call of it.

A request that becomes due while a batch is under way waits for its end: that is in its time to first token. A token has arrived
when the host knows it; prompts are prefilled, and rows decoded, as for any other request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from kleval.backends.generation import Job
from kleval.backends.peak_memory import resident_bytes, watch_peak
from kleval.types import Arrival, Failure, Outcome, Request, TimedRequest, Trace

Serve = Callable[[Sequence[Job]], Iterator[tuple[Job, Outcome]]]


def time_jobs(
    requests: Sequence[TimedRequest],
    make: Callable[[int, Request], Job | Failure],
    serve: Serve,
    device: torch.device,
    seconds: float,
    together: int | None = None,
) -> list[Trace]:
    """One trace per request. make: a request as tokens. serve: answers jobs, each to its full length. seconds: how long a request
    may take; that it takes longer is noticed at its next token. together: most requests of a batch; the next are submitted when it
    has ended."""
    traces: dict[int, Trace] = {}
    start = time.perf_counter()
    due = {at: start + one.submit_seconds for at, one in enumerate(requests)}
    jobs: dict[int, Job] = {}
    for at, one in enumerate(requests):
        job = make(at, replace(one.request, stop=()))
        if isinstance(job, Failure):
            traces[at] = Trace(due[at], failure=job)
        else:
            job.deadline = due[at] + seconds
            jobs[at] = job
    waiting = sorted(jobs, key=lambda at: due[at])
    while waiting:
        time.sleep(max(0.0, due[waiting[0]] - time.perf_counter()))
        now = time.perf_counter()
        batch = [at for at in waiting if due[at] <= now][:together]
        if together is not None:
            due |= {at: max(due[at], now) for at in batch}
        waiting = waiting[len(batch) :]
        ended: list[tuple[Job, Outcome]] = []
        before = resident_bytes() if device.type == "cpu" else None
        peak = watch_peak(device, lambda b=batch, e=ended: e.extend(serve([jobs[at] for at in b])))  # type: ignore[misc]
        most = peak.peak_bytes
        if before is not None and peak.extra_bytes is not None:
            most = before + peak.extra_bytes
        for job, outcome in ended:
            traces[job.position] = _trace(job, due[job.position], outcome, most)
    return [traces[at] for at in range(len(requests))]


def _trace(job: Job, submitted: float, outcome: Outcome, peak_bytes: int | None) -> Trace:
    failed = outcome if isinstance(outcome, Failure) else None
    return Trace(
        submitted,
        tuple(Arrival(seconds, 1) for seconds in job.arrivals),
        len(job.arrivals),
        len(job.prompt),
        0,
        job.state_bytes,
        peak_bytes,
        failed,
    )
