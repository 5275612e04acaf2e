"""Answers of an earlier session to a sample that failed all the same, which are not asked for again.

A row keeps every request with its outcome. Where one of several failed (a judge that was gone, one choice of four), the others
stand: asked again, they would cost the same again and give the same. Token ids are not in rows, nor in these completions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kleval.types import Completion, Request

_ASKED = ("kind", "max_new_tokens", "temperature", "top_p", "seed")


def reusable(records: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, Any]]:
    """By number, the records of a failed row whose answers stand.

    A judge is always asked again. Without a failed request or a judge's it was the answer that the task could not use: none stands.
    """
    if not any("failure" in record or record["kind"] == "judge" for record in records):
        return {}
    return {n: r for n, r in enumerate(records) if "failure" not in r and r["kind"] != "judge"}


def completion_of(record: Mapping[str, Any] | None, request: Request) -> Completion | None:
    """The answer in a record; None when there is none or it is to another request."""
    if record is None or record.get("continuation", "") != request.continuation:
        return None
    if any(record[name] != getattr(request, name) for name in _ASKED):
        return None
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
