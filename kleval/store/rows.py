"""Row: what is kept of one answered, or failed, sample; and its JSON line."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

Unit = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Key = tuple[str, str, int]  # model, sample id, repeat


@dataclass(frozen=True, slots=True)
class Row:
    """One sample asked once (one repeat) of one model.

    score: the headline metric, in [0, 1]; None when the sample failed or was not scored. metrics: all, None for NaN.
    outcomes: one dict per request, in order: `kind`, `max_new_tokens`, `temperature`, `top_p`, `seed`, `attempts`, and
    either the completion's `text`, `prompt_tokens`, `output_tokens`, `finish_reason`, `seconds` (and for likelihoods
    `logprob_sum`, `greedy`) or `failure`.
    failure: {"kind", "message"} of the failure that ended the sample. It has no score, rather than a score of 0.
    prompt_tokens: as the tokenizer that made the sample counts them. prompt_hash: names the prompt's file.
    seconds: sum of the outcomes' seconds. finished: UTC, ISO 8601.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    model: str
    id: str
    task: str
    ctx: Annotated[int, Field(ge=1)]
    index: Count
    repeat: Count
    edition: str
    protocol: str
    task_version: str
    data_revision: str
    data_digest: str
    prompt_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    prompt_tokens: Count
    max_new_tokens: Count
    references: tuple[str, ...]
    metric: str
    score: Unit | None = None
    metrics: dict[str, Unit | None] = field(default_factory=dict)
    extracted: Any = None
    failure: dict[str, str] | None = None
    outcomes: tuple[dict[str, Any], ...] = ()
    answer_prefix: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    finished: str = ""

    @property
    def key(self) -> Key:
        return self.model, self.id, self.repeat

    @property
    def failed(self) -> bool:
        return self.failure is not None


_ADAPTER = TypeAdapter(Row)
_FIELDS = tuple(f.name for f in dataclasses.fields(Row))


def to_line(row: Row) -> bytes:
    """The row as one JSON line, newline included. NaN and infinities become null, lone surrogates `?`."""
    return json_line({name: getattr(row, name) for name in _FIELDS})


def json_line(record: Mapping[str, Any]) -> bytes:
    """A record as one JSON line, newline included. NaN and infinities become null, lone surrogates `?`."""
    text = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False, default=_other)
    return text.encode("utf-8", "replace") + b"\n"


def from_line(line: bytes) -> Row:
    """The row of a line. ValueError with one line of text saying what is wrong with it."""
    try:
        row = _ADAPTER.validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    if row.failure is not None and row.score is not None:
        raise ValueError("score: a failed sample cannot have one")
    for number, outcome in enumerate(row.outcomes):
        for name in ("temperature", "output_tokens"):
            if not isinstance(outcome.get(name, 0), (int, float)):
                raise ValueError(f"outcomes.{number}.{name}: not a number")
    return row


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def _other(value: Any) -> Any:
    """Numbers of array libraries as plain ones; whatever a task extracted beyond JSON as its text."""
    return _plain(value.item()) if hasattr(value, "item") else str(value)
