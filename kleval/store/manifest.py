"""run.json: what a run is, besides its rows.

Schema version 1, or 2 of a run whose rows have been put into Parquet files; JSON values only:

    schema_version, kind, name                   kind: "run" or "profile"; name: the directory's
    uid                                          16 hexadecimal digits that tell it from all others; "" where made before there was one
    title, tags {KEY: VALUE}                     what people call it (--name; only where it was given) and tell it by (--tag)
    status                                       running | complete | incomplete | interrupted
    started, finished                            UTC, ISO 8601; finished is null until it is
    kleval {version, commit}  hardware {cpu, cores, memory_bytes, gpus, ...}  dtype
    spec                                         the command as it was given, every option with its value
    settings                                     what must not change when it runs again (kleval.store.settings)
    models {NAME: {name, spec, backend, max_ctx, tokenizer {name, digest, chat_template_digest}, describe {...}}}
    tasks {ID: {version, metric, edition, protocol, data_revision, data_digest}}
    generation {temperature, top_p, ...}  seeds {...}
    counts {planned, finished, answered, scored, failed, unscored, skipped}
    skips [{model, task, ctx, edition, protocol, metric, n, reason, minimum_tokens}]
    errors [{model, task, ctx, message}]         tasks that could not make their samples
    caveats [text]  comparison {...}             what a reader who compares the models must know
    sessions [{started, seen, finished, status, kleval, hardware}]   one per time the command ran; seen: when this was written last
                                                 (of a run also spent {...}; carried: what a killed session before it had spent unsaid)
    amendments [{at, changes: [text]}]
    shards [n]                                   of a run with --shard: answers that each shard was planned to have
    merged [{shard, name, uid}]                  of shards that were merged: which; each session then says whose it was (shard)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from kleval import files
from kleval.types import UsageError

SCHEMA_VERSION, COMPACT_SCHEMA = 1, 2
Status = Literal["running", "complete", "incomplete", "interrupted"]


class SkipRecord(BaseModel):
    """What every reader of a skip relies on; it may say more."""

    model_config = ConfigDict(extra="allow")

    model: str
    task: str
    ctx: int
    edition: str
    protocol: str
    metric: str
    n: int


class Manifest(BaseModel):
    """The part of run.json that kleval relies on when it reads one."""

    model_config = ConfigDict(extra="allow")

    schema_version: int
    status: Status
    started: str
    finished: str | None = None
    uid: str = ""
    title: str = ""
    tags: dict[str, str] = {}
    settings: dict[str, Any]
    models: dict[str, dict[str, Any]] = {}
    tasks: dict[str, dict[str, Any]] = {}
    counts: dict[str, int] = {}
    skips: list[SkipRecord] = []
    caveats: list[str] = []
    sessions: list[dict[str, Any]] = []
    amendments: list[dict[str, Any]] = []


def read_manifest(path: Path) -> dict[str, Any]:
    file = path / "run.json"
    if not file.is_file():
        raise UsageError(f"{path} is not a run directory: it has no run.json")
    with files.usage_errors(file):
        raw = file.read_bytes()
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"{file} is damaged ({where + ': ' if where else ''}{first['msg']}): restore it, or give another --out"
        ) from error
    if manifest.schema_version > COMPACT_SCHEMA:
        raise UsageError(f"{file} has schema {manifest.schema_version}, written by a newer kleval: upgrade kleval")
    return manifest.model_dump()


def value_at(manifest: Mapping[str, Any], path: Sequence[str], default: Any = None) -> Any:
    """The value at a path of keys; default where it ends early or holds null."""
    value: Any = manifest
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return default if value is None else value


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
