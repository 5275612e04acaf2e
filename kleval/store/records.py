"""Records of a run directory, a run's row and a profile's point, and their JSON lines. Each is on one line."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from kleval.store.names import folder_name, row_file
from kleval.types import unit_of

Count = Annotated[int, Field(ge=0)]
Number = int | float | None
Kind = Literal["prefill", "decode", "memory", "kernel", "machine", "served", "law"]
METRIC = {"prefill": "seconds", "decode": "ms_per_token"}  # the value that a kind of point is compared by
Key = tuple[str, str, int]  # of a row: model, sample id, repeat


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A unit of work, done or failed: the head that rows and points share.

    model: as it is printed. failure: {"kind", "message"}; such a record has no score and no values. finished: UTC, ISO 8601.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")
    FILES: ClassVar[str]  # where they are below a run directory, as a pattern
    COMPACT: ClassVar[str] = ""  # and in the compact form, where the kind has one
    ABOUT: ClassVar[tuple[str, str, str]]  # a record of the kind, what has one already, what running again does

    id: str
    model: str
    ctx: Count
    repeat: Count
    protocol: str
    failure: dict[str, str] | None = None
    finished: str = ""

    @property
    def failed(self) -> bool:
        return self.failure is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(Record):
    """One sample asked once (one repeat) of one model.

    score: the headline metric, in [0, 1] or in `unit`; None when the sample failed or was not scored. metrics: all, None for NaN.
    outcomes: one dict per request, in order: `kind`, `max_new_tokens`, `temperature`, `top_p`, `seed`, `attempts`, and
    either the completion's `text`, `prompt_tokens`, `output_tokens`, `finish_reason`, `seconds` (and for likelihoods
    `logprob_sum`, `greedy`) or `failure`.
    failure: of the failure that ended the sample. It has no score, rather than a score of 0.
    prompt_tokens: as the tokenizer that made the sample counts them. prompt_hash: names the prompt.
    seconds: sum of the outcomes' seconds.
    """

    FILES: ClassVar[str] = "samples/*/*.jsonl"
    COMPACT: ClassVar[str] = "samples/*/*.parquet"
    ABOUT: ClassVar[tuple[str, str, str]] = ("row", "has an answer already", "asks its sample again")

    task: str
    ctx: Annotated[int, Field(ge=1)]
    index: Count
    edition: str
    task_version: str
    data_revision: str
    data_digest: str
    prompt_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    prompt_tokens: Count
    max_new_tokens: Count
    references: tuple[str, ...]
    metric: str
    score: float | None = None
    metrics: dict[str, float | None] = field(default_factory=dict)
    extracted: Any = None
    outcomes: tuple[dict[str, Any], ...] = ()
    answer_prefix: str = ""
    meta: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def key(self) -> Key:
        return sys.intern(self.model), self.id, self.repeat

    @property
    def unit(self) -> str:
        """What its metrics are in, as `kleval.types.unit_of`."""
        return unit_of(self.protocol)

    @property
    def file(self) -> str:
        """Below the run directory."""
        return f"samples/{folder_name(self.model)}/{row_file(self.task, self.ctx)}"

    @property
    def order(self) -> tuple[Any, ...]:
        """Among the records of its file."""
        return self.index, self.repeat

    def check(self) -> None:
        """ValueError when fields do not go together."""
        if self.failure is not None and self.score is not None:
            raise ValueError("score: a failed sample cannot have one")
        for name, value in {"score": self.score, **self.metrics}.items():
            if value is not None and not self.unit and not 0 <= value <= 1:
                raise ValueError(f"{name}: {value} is not in [0, 1]")
        for number, outcome in enumerate(self.outcomes):
            for name in ("temperature", "output_tokens"):
                if not isinstance(outcome.get(name, 0), (int, float)):
                    raise ValueError(f"outcomes.{number}.{name}: not a number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(Record):
    """One thing measured once (one repeat).

    id: stable, derived from what is measured (`prefill/full/kimi-linear@nano/131072/b1/r0`).
    model: the operator of a `kernel` point, empty for `machine`. ctx: prompt length, depth, or T of a kernel.
    protocol: prefill `full` or `sampled`; decode `batch-1` or `largest-batch`; memory `state`; kernel `chunk` or `recurrent`;
    machine `copy` or `matmul`; served `concurrency-N`, N requests submitted together, `steady-N`, N held (batch is N), `rate-R`, R per
    second, `best-rate`, the highest that holds an SLO (batch is 0); law: its name, the verdict and its reasons in settings.
    values: measured, units in the names. closed_form: computed from the config, the same units. None: does not apply.
    estimate: values are extrapolated from part of the work (sampled prefill).
    settings: what shaped the measurement (chunk_tokens, dtype, device). environment: the fingerprint of machine and software.
    """

    FILES: ClassVar[str] = "points.jsonl"
    ABOUT: ClassVar[tuple[str, str, str]] = ("point", "is measured already", "measures it again")

    id: Annotated[str, Field(min_length=1)]
    kind: Kind
    batch: Count
    values: dict[str, Number] = field(default_factory=dict)
    closed_form: dict[str, Number] = field(default_factory=dict)
    estimate: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.id

    @property
    def file(self) -> str:
        """Below the run directory."""
        return self.FILES

    @property
    def order(self) -> tuple[Any, ...]:
        """Among the records of its file."""
        return self.kind, self.model, self.protocol, self.ctx, self.batch, self.repeat, self.id

    def check(self) -> None:
        """ValueError when fields do not go together."""
        if self.failure is not None and self.values:
            raise ValueError("values: a failed point cannot have any")


R = TypeVar("R", Row, Point)


def to_line(record: Row | Point) -> bytes:
    """A record as one JSON line, newline included. NaN and infinities become null, lone surrogates `?`."""
    fields = {name: getattr(record, name) for name in _FIELDS[type(record)]}
    try:
        text = json.dumps(fields, ensure_ascii=False, allow_nan=False, default=_other)
    except (ValueError, TypeError):  # a number that is none, or a key that is no text
        text = json.dumps(_plain(fields), ensure_ascii=False, allow_nan=False, default=_other)
    return text.encode("utf-8", "replace") + b"\n"


def from_line(kind: type[R], line: bytes) -> R:
    """The record of a line. ValueError with one line of text saying what is wrong with it."""
    return _valid(lambda: _ADAPTERS[kind].validate_json(line, strict=True))


def from_fields(kind: type[R], fields: Mapping[str, Any]) -> R:
    """As `from_line`, of fields by name."""
    return _valid(lambda: _ADAPTERS[kind].validate_python(fields))


def _valid(read: Callable[[], R]) -> R:
    try:
        record = read()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    record.check()
    return record


_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Row, Point)}
_FIELDS = {kind: tuple(f.name for f in dataclasses.fields(kind)) for kind in (Row, Point)}


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
    if isinstance(value, Mapping):
        return _plain(value)
    return _plain(value.item()) if hasattr(value, "item") else str(value)
