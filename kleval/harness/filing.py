"""From a sample that has ended to the row that is kept of it."""

from __future__ import annotations

import math
from typing import Any

from kleval.harness.asking import End
from kleval.harness.preparing import Asked
from kleval.store import Row
from kleval.store.manifest import now
from kleval.types import Failure, Score


def not_asked(row: Row) -> bool:
    """Whether a limit kept all of its requests from being asked: there is nothing to keep. One that was answered in part is kept,
    so that the run asks the rest when it goes on."""
    failed = row.failure is not None and row.failure["kind"] == "not_asked"
    return failed and all("failure" in record for record in row.outcomes)


def make_row(model: str, asked: Asked, end: End) -> Row:
    """What is kept of a sample that has ended."""
    task, sample = asked.task, asked.sample
    failure = end if isinstance(end, Failure) else None
    score = end if isinstance(end, Score) else Score({})
    return Row(
        model=model,
        id=sample.id,
        task=task.id,
        ctx=sample.ctx,
        index=sample.index,
        repeat=asked.repeat,
        edition=task.edition,
        protocol=task.protocol,
        task_version=task.version,
        data_revision=task.data_revision,
        data_digest=task.data_digest,
        prompt_hash=sample.prompt_hash,
        prompt_tokens=sample.prompt_tokens,
        max_new_tokens=sample.max_new_tokens,
        references=sample.references,
        metric=task.metric,
        **scored(score, task.metric),
        failure=None if failure is None else failure_record(failure),
        outcomes=tuple(asked.records),
        answer_prefix=sample.answer_prefix,
        meta=dict(sample.meta),
        seconds=math.fsum(record.get("seconds", 0.0) for record in asked.records),
        finished=now(),
    )


def scored(score: Score, metric: str) -> dict[str, Any]:
    """The fields of a row that a score is in. metric: the headline."""
    metrics = {name: float(value) for name, value in score.metrics.items()}
    headline = metrics.get(metric, math.nan)
    return {
        "score": None if math.isnan(headline) else headline,
        "metrics": {name: None if math.isnan(value) else value for name, value in metrics.items()},
        "extracted": score.extracted,
    }


def failure_record(failure: Failure) -> dict[str, str]:
    """As a row has it: a traceback where a task's own code failed."""
    told = {"kind": failure.kind, "message": failure.message}
    return told | ({"traceback": failure.traceback} if failure.traceback else {})
