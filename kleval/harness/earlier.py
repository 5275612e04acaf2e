"""Records of requests: what a row keeps of each, and answers of an earlier session to a sample that failed all the same.

A row keeps every request with its outcome. Where one of several failed (a judge that was gone, one choice of four), the others
stand and are not asked for again: they would cost the same again and give the same. Token ids are
not in rows, nor in these completions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kleval.types import Completion, Failure, Outcome, Request

_ASKED = ("kind", "max_new_tokens", "temperature", "top_p", "seed")


def outcome_record(request: Request, attempts: int, outcome: Outcome) -> dict[str, Any]:
    """What a row keeps of one request; prompts and token ids are not repeated."""
    record: dict[str, Any] = {
        "kind": request.kind,
        "max_new_tokens": request.max_new_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "attempts": attempts,
    }
    if request.continuation:
        record["continuation"] = request.continuation
    if isinstance(outcome, Failure):
        return {**record, "failure": {"kind": outcome.kind, "message": outcome.message}}
    record |= {
        "text": outcome.text,
        "prompt_tokens": outcome.prompt_tokens,
        "output_tokens": outcome.output_tokens,
        "finish_reason": outcome.finish_reason,
        "seconds": outcome.seconds,
    }
    if outcome.reasoning:
        record["reasoning"] = outcome.reasoning
    if outcome.notes:
        record["notes"] = list(outcome.notes)
    if outcome.logprob_sum is not None:
        record |= {"logprob_sum": outcome.logprob_sum, "greedy": outcome.greedy}
    return record


def reusable(records: Sequence[Mapping[str, Any]], of_code: bool = False) -> dict[int, Mapping[str, Any]]:
    """By number, the records of a failed row whose answers stand. of_code: it was the task's own code that failed: all of them do.

    A judge is always asked again. Without a failed request or a judge's it was the answer that the task could not use: none stands.
    """
    if of_code:
        return dict(enumerate(records))
    if not any("failure" in record or record["kind"] == "judge" for record in records):
        return {}
    return {n: r for n, r in enumerate(records) if "failure" not in r and r["kind"] != "judge"}


def completion_of(record: Mapping[str, Any] | None, request: Request) -> Completion | None:
    """The answer in a record; None when there is none or it is to another request."""
    if record is None or record.get("continuation", "") != request.continuation:
        return None
    if any(record[name] != getattr(request, name) for name in _ASKED):
        return None
    return stored_completion(record)


def stored_completion(record: Mapping[str, Any]) -> Completion:
    """The answer that a record holds, without its token ids."""
    return Completion(
        record["text"],
        record["prompt_tokens"],
        record["output_tokens"],
        record["finish_reason"],
        logprob_sum=record.get("logprob_sum"),
        greedy=record.get("greedy"),
        seconds=record["seconds"],
        notes=tuple(record.get("notes", ())),
        reasoning=record.get("reasoning", ""),
    )
