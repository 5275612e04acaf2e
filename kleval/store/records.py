"""Records of a run directory: a run's row, a profile's point, their JSON lines, their files and where each stands.

A record is on one line. The last line of a file, when a kill cut it short, is no record: readers stop before it and
`Records.repair` cuts it off. Anything else that is not a valid record is an error that names file and line. A record that
failed may be made again, and the new one stands for it; one that did not fail is never overwritten.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from kleval import files
from kleval.store.names import folder_name, row_file, row_file_order
from kleval.types import UsageError, unit_of

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


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record is, and what is asked of it so often that it is not read again for it; a point is no more than failed."""

    file: Path
    offset: int
    order: tuple[Any, ...]
    failed: bool
    scored: bool = False
    task: str = ""
    ctx: int = 0
    prompt_hash: str = ""
    max_new_tokens: int = 0


class Records(Generic[R]):
    """The records of one kind in a run directory, one per key. Whoever appends holds the run's lock."""

    def __init__(self, kind: type[R], folder: Path, appender: files.Appender) -> None:
        self.kind: type[R] = kind
        self.folder, self._appender = folder, appender
        self.places: dict[Any, Place] = {}
        self._read: dict[Path, tuple[int, int]] = {}  # bytes and lines of each file that are in `places`
        self._standing: dict[
            Path, tuple[int, array[int]]
        ] = {}  # bytes of a file, and where the records that stand are in it

    def append(self, record: R) -> None:
        """Add a record, as Appender.append does. ValueError when there is one that did not fail, or it is not valid."""
        earlier = self.places.get(record.key)
        if earlier is not None and not earlier.failed:
            raise ValueError(f"{record.key} {self.kind.ABOUT[1]}")
        line = to_line(record)
        from_line(self.kind, line)
        file = self.folder / record.file
        self.places[record.key] = _place(file, self._appender.append(file, line), record)

    def repair(self) -> list[Path]:
        """Cut off lines that a kill cut short; the files that had one."""
        return [file for file in sorted(self.folder.glob(self.kind.FILES)) if files.cut(file, files.end_of_lines(file))]

    def refresh(self) -> None:
        """Find what was added since the last time. UsageError for a line that is no record."""
        for file in self._files():
            for record, offset, end, number in self._lines(file, *self._read.get(file, (0, 0))):
                earlier = self.places.get(record.key)
                if earlier is None or earlier.failed:
                    self.places[record.key] = _place(file, offset, record)
                self._read[file] = end, number

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(self.kind.FILES), key=row_file_order)

    def _lines(self, file: Path, offset: int, number: int) -> Iterator[tuple[R, int, int, int]]:
        """Records behind an offset and so many lines: where each begins and ends, and the number of its line."""
        with files.usage_errors(file), file.open("rb") as handle:
            handle.seek(offset)
            for line in handle:
                if not line.endswith(b"\n"):
                    break  # still being written, or cut off by `repair` before anything is appended
                number += 1
                try:
                    record = from_line(self.kind, line)
                except ValueError as error:
                    what, _, again = self.kind.ABOUT
                    raise UsageError(
                        f"{file} line {number} is not a valid {what} ({error}): delete that line and run the same "
                        f"command again, which {again}"
                    ) from error
                yield record, offset, offset + len(line), number
                offset += len(line)

    def rewrite(self, change: Callable[[R], R], say: Callable[[str], None]) -> None:
        """Put a changed record in the place of each one that stands; every file is whole or as it was. say: told of each file."""
        standing = {(place.file, place.offset) for place in self.places.values()}
        for file in sorted({file for file, _ in standing}, key=row_file_order):
            say(str(file.relative_to(self.folder)))
            with files.usage_errors(file), file.open("rb") as old, files.replacing(file, self.folder / "tmp") as new:
                offset = 0
                for line in old:
                    stands = (file, offset) in standing
                    offset += len(line)
                    new.buffer.write(to_line(change(from_line(self.kind, line))) if stands else line)
        self.places.clear()
        self._read.clear()
        self.refresh()

    def all(self) -> Iterator[R]:
        """One record per key, read one at a time, in an order that does not depend on the one in which they came."""
        by_file: dict[Path, list[Place]] = {}
        for place in self.places.values():
            by_file.setdefault(place.file, []).append(place)
        for file in sorted(by_file, key=row_file_order):
            places = sorted(by_file[file], key=lambda place: (place.order, place.offset))
            yield from self._at(file, (place.offset for place in places))

    def read(self) -> Iterator[R]:
        """As `all`, of what is on the disk now, for one who needs no index: of each file only where the records that stand are is
        remembered. A key is in one file."""
        for file in self._files():
            with files.usage_errors(file):
                length = file.stat().st_size
            before, offsets = self._standing.get(file, (-1, array("Q")))
            if before != length:
                found: dict[Any, tuple[tuple[Any, ...], int, bool]] = {}
                for record, offset, _, _ in self._lines(file, 0, 0):
                    earlier = found.get(record.key)
                    if earlier is None or earlier[2]:
                        found[record.key] = record.order, offset, record.failed
                offsets = array("Q", (offset for _, offset, _ in sorted(found.values())))
                self._standing[file] = length, offsets
            yield from self._at(file, offsets)

    def _at(self, file: Path, offsets: Iterable[int]) -> Iterator[R]:
        with files.usage_errors(file), file.open("rb") as handle:
            for offset in offsets:
                handle.seek(offset)
                yield from_line(self.kind, handle.readline())

    def get(self, key: Any) -> R | None:
        """The record of a key, failed or not; None when there is none."""
        place = self.places.get(key)
        if place is None:
            return None
        with files.usage_errors(place.file), place.file.open("rb") as handle:
            handle.seek(place.offset)
            return from_line(self.kind, handle.readline())


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
    try:
        record: R = _ADAPTERS[kind].validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None
    record.check()
    return record


_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (Row, Point)}
_FIELDS = {kind: tuple(f.name for f in dataclasses.fields(kind)) for kind in (Row, Point)}


def _place(file: Path, offset: int, record: Row | Point) -> Place:
    if isinstance(record, Point):
        return Place(file, offset, record.order, record.failed)
    return Place(
        file,
        offset,
        record.order,
        record.failed,
        record.score is not None,
        sys.intern(record.task),
        record.ctx,
        record.prompt_hash,
        record.max_new_tokens,
    )


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
