"""RunStore: one run directory, read by anyone, written by one process at a time.

kleval.store.manifest says what is in run.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from filelock import FileLock, Timeout

from kleval import files
from kleval.store import settings
from kleval.store.excerpts import as_text, excerpt
from kleval.store.manifest import COMPACT_SCHEMA, SCHEMA_VERSION, Manifest, Status, now, read_manifest
from kleval.store.places import Compacted, Place, Records
from kleval.store.prompts import Prompts
from kleval.store.records import Key, Point, R, Row
from kleval.types import Prompt, UsageError

LOCK_SECONDS = 1.0  # a reader that asks for the status holds the lock for an instant


class RunStore:
    """A run directory. Make one with `open` (reading) or `create` (writing, holds the lock until `close`)."""

    def __init__(self, path: Path, lock: FileLock | None = None) -> None:
        self.path = path
        self.repaired: list[Path] = []
        self._lock = lock
        self._manifest: dict[str, Any] | None = None
        self._appender = files.Appender()
        self._rows, self._points = Records(Row, path, self._appender), Records(Point, path, self._appender)
        self._prompts = Prompts(path)
        self._scanned = False

    @classmethod
    def open(cls, path: Path) -> RunStore:
        """For reading. UsageError when path is not a run directory or its manifest cannot be read."""
        store = cls(Path(path))
        store.manifest  # noqa: B018 - a run that cannot be read is refused here, not at first use
        return store

    @classmethod
    def create(cls, path: Path, manifest: Mapping[str, Any], amend: bool = False) -> RunStore:
        """For writing: a new run, or the continuation of the one that is there.

        UsageError when another process writes it, when path holds something else, or when the settings differ; with
        amend, settings may grow (kleval.store.settings). A line cut short by a kill is cut off (`repaired` names its
        file).
        """
        path = Path(path)
        store = cls(path, _locked(path))
        try:
            store._begin(dict(manifest), amend)
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def reopen(cls, path: Path) -> RunStore:
        """A run that is there, for writing, whatever its command. UsageError when another process writes it."""
        store = cls.open(path)
        store._lock = _locked(store.path)
        try:
            store._manifest = None  # as it is now that nobody else writes it
            store._clear_drafts()
            store.repaired = [*store._rows.repair(), *store._prompts.repair()]
        except BaseException:
            store.close()
            raise
        return store

    @staticmethod
    def exists(path: Path) -> bool:
        return (Path(path) / "run.json").is_file()

    @staticmethod
    def find_runs(root: Path) -> list[Path]:
        """The run directories directly in root, and root itself if it is one, by name; none when root is not there."""
        root = Path(root)
        with files.usage_errors(root):
            folders = [root, *sorted(p for p in root.iterdir() if p.is_dir())] if root.is_dir() else []
        return [folder for folder in folders if RunStore.exists(folder)]

    @staticmethod
    def find_named(places: Iterable[str | Path]) -> list[Path]:
        """`find_runs` of several places, each run once. UsageError for a place that is not there or holds none."""
        found: dict[Path, Path] = {}
        for place in map(Path, places):
            if not place.is_dir():
                raise UsageError(f"{place}: no such run directory; see kleval ls runs")
            inside = RunStore.find_runs(place)
            if not inside:
                raise UsageError(f"{place} holds no run (no run.json in it or in its folders)")
            for path in inside:
                found.setdefault(path.resolve(), path)
        return list(found.values())

    @staticmethod
    def check_place(path: Path, kind: str = "run") -> None:
        """UsageError when no run, or profile, could be written at path; creates nothing."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file: --out takes a directory")
        if RunStore.exists(path):
            _check_kind(path, read_manifest(path), kind)
        elif path.is_dir():
            _refuse_foreign(path)
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            raise UsageError(f"cannot write in {there}: check its permissions, or give another --out")

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def uid(self) -> str:
        """What tells it from every other run, wherever its directory lies."""
        facts = [self.manifest.get(name) for name in ("name", "started", "settings")]
        return self.manifest["uid"] or hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def title(self) -> str:
        """What people call it: the name that it was given, else the directory's."""
        return self.manifest["title"] or self.name

    @property
    def manifest(self) -> dict[str, Any]:
        """run.json. Change it through `update` only."""
        if self._manifest is None:
            self._manifest = read_manifest(self.path)
        return self._manifest

    @property
    def is_profile(self) -> bool:
        """Whether it holds measurements."""
        return str(self.manifest.get("kind", "run")) != "run"

    @property
    def is_run(self) -> bool:
        """Whether it holds answers: any run, and a profile whose prompts were those of tasks."""
        return not self.is_profile or bool(self.manifest["tasks"])

    @property
    def status(self) -> Status:
        """The manifest's status, but `interrupted` for a run that says `running` and that nobody is writing."""
        status: Status = self.manifest["status"]
        if status != "running" or self._lock is not None:
            return status
        lock_path = self.path / ".lock"
        if not lock_path.exists():
            return "interrupted"
        lock = FileLock(lock_path)
        try:
            with lock.acquire(timeout=0):
                return "interrupted"
        except (Timeout, OSError, NotImplementedError):
            return "running"

    def update(self, **fields: Any) -> None:
        """Set fields of the manifest and write it, after everything that was appended is on the disk."""
        self.sync()
        self._manifest = {**self.manifest, **fields}
        data = json.dumps(self._manifest, indent=1, ensure_ascii=False, default=str).encode("utf-8", "replace")
        path = self.path / "run.json"
        with files.usage_errors(path), files.replacing(path, drafts=self.path / "tmp") as file:
            file.buffer.write(data + b"\n")

    def append(self, row: Row, prompt: Prompt | None = None) -> None:
        """Add a row: a kill after this loses nothing, and it is on the disk at the next `sync`, within a second. prompt, if
        given, is on the disk before it, once per hash.

        ValueError when its key has an answer already or it is not a valid row; UsageError when the disk is full (the
        file is as it was before).
        """
        self._writable()
        if prompt is not None:
            self.put_prompt(row.model, row.task, row.ctx, row.prompt_hash, prompt, row.references, row.meta)
            self._prompts.sync(row.prompt_hash)
        self._rows.append(row)

    def append_point(self, point: Point) -> None:
        """As `append`, for a measurement: on the disk when this returns, so that no sync falls into the next one."""
        self._writable()
        self._points.append(point)
        self._appender.sync()

    def rewrite(self, change: Callable[[Row], Row], say: Callable[[str], None] = lambda text: None) -> None:
        """Put a changed row in the place of each one that stands, file by file (`kleval.harness.rescoring`)."""
        self._writable()
        self.sync()
        self.index  # noqa: B018 - which rows stand
        self._rows.rewrite(change, say)

    def compact(self, say: Callable[[str], None] = lambda text: None) -> Compacted:
        """Put the rows into their compact form, a Parquet file per cell (`Records.compact`); what is appended later is lines again.
        An older kleval, which would not see them, refuses the directory then. say: told of each file."""
        self._writable()
        self.sync()
        if any(self.path.glob(Row.FILES)):
            self.update(schema_version=COMPACT_SCHEMA, compacted=now())
        return self._rows.compact(say)

    def models(self) -> set[str]:
        """Those that it has rows of."""
        return {row.model for row in self._rows.firsts()}

    def n_cells(self) -> int:
        """Of how many models, tasks and lengths it has rows."""
        return len(self._rows.cells())

    def take(self, others: Sequence[RunStore], say: Callable[[RunStore], None] = lambda store: None) -> int:
        """Add the rows of other directories that have no answer here, with the prompts; how many were added. say: told of each."""
        self._writable()
        self.index  # noqa: B018 - which rows are here
        self._prompts.take([other._prompts for other in others])
        self.sync()
        added = 0
        for other in others:
            say(other)
            added += self._rows.take(other.rows())
        return added

    def put_prompt(
        self,
        model: str,
        task: str,
        ctx: int,
        digest: str,
        prompt: Prompt,
        references: Sequence[str] = (),
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Store what is about to be asked, once per hash, and of a long one what is shown of it. Many put before one `sync` cost
        one wait for the disk. references, meta: of the sample."""
        self._writable()
        tokenizer = self.manifest["models"].get(model, {}).get("tokenizer", {})
        self._prompts.put(task, ctx, str(tokenizer.get("digest", "")), digest, prompt, references, meta)

    def sync(self) -> None:
        """Everything that was appended is on the disk when this returns. UsageError when the disk is full."""
        self._writable()
        self._prompts.sync()
        self._appender.sync()

    def answered(self, key: Key) -> tuple[str, int] | None:
        """(prompt hash, max_new_tokens) of an answered sample; None when it is yet to be asked, or failed."""
        place = self.index.get(key)
        return None if place is None or place.failed else (place.prompt_hash, place.max_new_tokens)

    def answered_by_cell(self) -> dict[tuple[str, str, int], set[tuple[int, int]]]:
        """(model, task, ctx) -> (index, repeat) of its answered samples."""
        cells: dict[tuple[str, str, int], set[tuple[int, int]]] = {}
        for (model, _, _), place in self.index.items():
            if not place.failed:
                cells.setdefault((model, place.task, place.ctx), set()).add(place.order)
        return cells

    def answered_tasks(self) -> set[str]:
        """Ids of the tasks that have answers, without those that could not make all samples: their code is there to be mended."""
        broken = {error["task"] for error in self.manifest.get("errors") or ()}
        return {place.task for place in self.index.values() if not place.failed} - broken

    def counts(self) -> dict[str, int]:
        """finished = answered + failed, answered = scored + unscored."""
        places = self.index.values()
        failed, scored = sum(p.failed for p in places), sum(p.scored for p in places)
        answered = len(places) - failed
        unscored = answered - scored
        counts = {"finished": len(places), "answered": answered, "scored": scored}
        return {**counts, "failed": failed, "unscored": unscored}

    def rows(self) -> Iterator[Row]:
        """One row per key, read one at a time, by model, task, ctx, index and repeat. UsageError for a corrupt one."""
        return self._all(self._rows)

    def keys(self) -> Iterator[Key]:
        """The keys of the rows on the disk, by model, task and length; no index is made for them."""
        return self._rows.keys()

    def row(self, key: Key) -> Row | None:
        """The row of a key, answered or failed; None when there is none."""
        return self._rows.get(key) if key in self.index else None

    def points(self) -> Iterator[Point]:
        """One point per id, in an order that does not depend on when they were measured. UsageError for a corrupt one."""
        return self._all(self._points)

    def _all(self, records: Records[R]) -> Iterator[R]:
        yield from records.read() if self._lock is None else records.all()

    def read_prompt(self, row: Row) -> Prompt:
        """The prompt of a row, checked against its hash. UsageError when it is missing or damaged."""
        return self._prompts.read(row.task, row.ctx, row.prompt_hash, row.answer_prefix)

    def read_excerpt(self, row: Row) -> str:
        """What a page shows of the prompt of a row, in JSON (`Excerpt.json`). UsageError when it is missing or damaged."""
        stored = self._prompts.excerpt(row.task, row.ctx, row.prompt_hash)
        return stored or excerpt(as_text(self.read_prompt(row)), row.references, row.meta).json

    @property
    def index(self) -> dict[Key, Place]:
        if not self._scanned:
            self._rows.refresh()
            self._scanned = True
        return self._rows.places

    def close(self) -> None:
        """Put what was appended on the disk and give the lock back. UsageError when the disk is full."""
        if self._lock is not None:
            try:
                self.sync()
            finally:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _begin(self, manifest: dict[str, Any], amend: bool) -> None:
        own = {"schema_version": SCHEMA_VERSION, "kind": "run", "name": self.name, "uid": secrets.token_hex(8)}
        manifest = {**own, **manifest}
        manifest = json.loads(json.dumps(manifest, default=str))  # so that it compares with one that was read back
        if RunStore.exists(self.path):
            manifest = self._continued(read_manifest(self.path), manifest, amend)
        else:
            _refuse_foreign(self.path)
        self._clear_drafts()
        self._manifest = Manifest.model_validate(manifest).model_dump()
        self.repaired = [*self._rows.repair(), *self._points.repair(), *self._prompts.repair()]
        self._points.refresh()
        self.index  # noqa: B018 - a corrupt row is refused here, not at first use
        self.update()

    def _clear_drafts(self) -> None:
        with files.usage_errors(self.path):
            for draft in (self.path / "tmp").glob("*"):
                draft.unlink()

    def _continued(self, old: dict[str, Any], new: dict[str, Any], amend: bool) -> dict[str, Any]:
        _check_kind(self.path, old, new["kind"])
        changes = settings.check(old["settings"], new["settings"], self.path, amend, answered=self.answered_tasks())
        amendments = list(old["amendments"])
        if changes:
            amendments.append({"at": now(), "changes": [str(change) for change in changes]})
        return {
            **old,
            **new,
            "schema_version": old["schema_version"],
            "uid": old["uid"],
            "started": old["started"],
            "tags": {**old["tags"], **new.get("tags", {})},
            "caveats": list(dict.fromkeys([*old["caveats"], *new.get("caveats", [])])),
            "sessions": [*old["sessions"], *new.get("sessions", [])],
            "amendments": amendments,
        }

    def _writable(self) -> None:
        if self._lock is None:
            raise ValueError(f"{self.path} is open for reading")


def _locked(path: Path) -> FileLock:
    with files.usage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise UsageError(f"{path} is in use by another kleval: wait for it, or give another --out") from None
        except NotImplementedError:
            raise UsageError(f"{path} is on a file system without locks: give an --out on a local disk") from None
    return lock


def _check_kind(path: Path, manifest: Mapping[str, Any], kind: str) -> None:
    if (there := manifest.get("kind", "run")) != kind:
        raise UsageError(f"{path} holds a {there}, not a {kind}: give another --out")


def _refuse_foreign(path: Path) -> None:
    """UsageError for a folder that holds something and is no run; a run killed before its run.json holds only a lock."""
    with files.usage_errors(path):
        foreign = sorted(p.name for p in path.iterdir() if p.name not in (".lock", "tmp"))
    if foreign:
        raise UsageError(f"{path} is not empty and not a run (it has {foreign[0]}): give another --out")
