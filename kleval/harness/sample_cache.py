"""Sample cache on the disk: samples made once for a length are read, not made again, for a second model or a second run.

One gzip file of JSON lines per (task, edition, protocol, data, tokenizer, ctx, seed), named by the sha256 over all of
these and over the source of the generators, so that a change of any cannot bring back old samples, and by how many
samples were asked for. It holds the first of them in order, Unfits included; lines carry the hash of their prompt. A
damaged file is thrown away and its samples are made again. A file appears whole or not at all. The least recently used
go when the folder grows beyond its limit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import IO, Any

import kleval
from kleval.files import replacing
from kleval.harness.parts import Part
from kleval.tasks.own.code import digests
from kleval.types import Sample, Task, Tokenizer, Unfit

FORMAT = "2"
LIMIT_BYTES = 4 << 30
_IN_MEMORY_BYTES = 64 << 20
Made = Sample | Unfit


def default_folder() -> Path:
    return Path.home() / ".cache" / "kleval" / "samples"


class SampleCache:
    """folder: None keeps nothing. A folder that cannot be written is none either: samples are still made."""

    def __init__(self, folder: Path | None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder = folder
        self.limit_bytes = limit_bytes

    def samples(
        self, task: Task, tokenizer: Tokenizer, ctx: int, n: int, seed: int, part: Part | None = None
    ) -> Iterator[Made]:
        """`task.samples`, from the disk as far as they are there. Raises as that does. part: of the first n, those alone.

        A part is made by itself (`samples_at`) where the task can do that and the whole is not there.
        """
        if part is None:
            yield from self._cached(task, tokenizer, ctx, n, seed, "", task.samples(tokenizer, ctx, n, seed))
            return
        if self.has(task, tokenizer, ctx, n, seed):
            yield from part.taken(self.samples(task, tokenizer, ctx, n, seed), n)
            return
        fresh = None
        if hasattr(task, "samples_at"):
            fresh = task.samples_at(tokenizer, ctx, part.positions(n), seed)
        if fresh is None:
            fresh = part.taken(task.samples(tokenizer, ctx, n, seed), n)
        yield from self._cached(task, tokenizer, ctx, len(part.positions(n)), seed, f"{part}of{n}", fresh)

    def _cached(
        self, task: Task, tokenizer: Tokenizer, ctx: int, n: int, seed: int, part: str, fresh: Iterator[Made]
    ) -> Iterator[Made]:
        if (
            self.folder is None
            or not type(getattr(task, "unwrapped", task)).__module__.startswith("kleval.")
            or digests(task)[0]
        ):
            yield from fresh
            return
        name = key(task, tokenizer, ctx, seed) + part
        file = _holding(self.folder, name, n)
        known = 0
        if file is not None:
            try:
                for made in _first(_read(file), n):
                    yield made
                    known += 1
                with contextlib.suppress(OSError):
                    os.utime(file)
                return
            except (OSError, EOFError, ValueError, TypeError, KeyError, zlib.error):
                with contextlib.suppress(OSError):
                    file.unlink(missing_ok=True)
        if known:
            yield from islice(fresh, known, None)
        else:
            yield from self._kept(self.folder / f"{name}-{n}.jsonl.gz", fresh, n)

    def has(self, task: Task, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> bool:
        """Whether all of them are there."""
        return self.folder is not None and _holding(self.folder, key(task, tokenizer, ctx, seed), n) is not None

    def _kept(self, file: Path, fresh: Iterator[Made], n: int) -> Iterator[Made]:
        """fresh, written on the way. Not kept when the reader leaves before the end or the disk refuses."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as packed:
            count, whole = 0, True
            for made in _first(fresh, n):
                whole = whole and _written(packed, _record(made))
                count += 1
                yield made
            if whole and _written(packed, {"lines": count}):
                with contextlib.suppress(OSError), replacing(file) as target:
                    packed.seek(0)
                    shutil.copyfileobj(packed, target.buffer)
                _shrink(file.parent, self.limit_bytes)


def _first(made: Iterator[Made], n: int) -> Iterator[Made]:
    """Up to and including the n-th sample."""
    samples = 0
    for one in made:
        yield one
        samples += isinstance(one, Sample)
        if samples == n:
            return


def key(task: Task, tokenizer: Tokenizer, ctx: int, seed: int) -> str:
    """sha256 (hex) over everything that samples depend on; of a task's `also_reads`, what its data digest leaves out."""
    facts = [
        (FORMAT, kleval.__version__, _source_digest()),
        (task.id, task.version, task.edition, task.protocol, task.data_revision, task.data_digest),
        (tokenizer.digest, tokenizer.chat_template_digest, ctx, seed),
        getattr(task, "also_reads", ""),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


@cache
def _source_digest() -> str:
    """sha256 over the code that makes samples and counts their tokens, and the data that it reads."""
    package = Path(kleval.__file__).parent
    files = [
        package / "types.py",
        *sorted((package / "tasks").rglob("*.py")),
        *sorted((package / "tasks").rglob("*.toml")),
        *sorted(package.glob("tokenization*/*.py")),
    ]
    h = hashlib.sha256()
    for file in files:
        h.update(str(file.relative_to(package)).encode() + b"\0" + file.read_bytes() + b"\0")
    return h.hexdigest()


def _written(packed: IO[bytes], record: dict[str, Any]) -> bool:
    """One more line, a gzip member of its own. False when the disk refuses: what it holds is of no use then."""
    line = json.dumps(record).encode() + b"\n"
    try:
        packed.write(gzip.compress(line, compresslevel=1))
    except OSError:
        return False
    return True


def _record(made: Made) -> dict[str, Any]:
    hashed = {"prompt_hash": made.prompt_hash} if isinstance(made, Sample) else {}
    return {**dataclasses.asdict(made), **hashed}


def _holding(folder: Path, name: str, n: int) -> Path | None:
    """The file of that name for the fewest samples that are enough."""
    found = {int(file.name.split("-")[1].split(".")[0]): file for file in folder.glob(f"{name}-*.jsonl.gz")}
    return found[min(enough)] if (enough := [asked for asked in found if asked >= n]) else None


def _read(file: Path) -> Iterator[Made]:
    """ValueError when it is damaged."""
    with gzip.open(file, "rb") as lines:
        for count, line in enumerate(lines):
            record = json.loads(line)
            if "lines" in record:
                if record["lines"] != count:
                    raise ValueError("lines are missing")
                return
            yield _made(record)
        raise ValueError("the end is missing")


def _made(record: dict[str, Any]) -> Made:
    if "reason" in record:
        return Unfit(**record)
    expected = record.pop("prompt_hash")
    if isinstance(record["prompt"], list):
        record["prompt"] = tuple(record["prompt"])
    sample = Sample(**record | {"references": tuple(record["references"]), "stop": tuple(record["stop"])})
    if sample.prompt_hash != expected:
        raise ValueError("a prompt is not what was written")
    return sample


def _shrink(folder: Path, limit_bytes: int) -> None:
    """Remove the files used longest ago until the others are within the limit."""
    with contextlib.suppress(OSError):
        files = [(entry.stat().st_mtime, entry.stat().st_size, entry) for entry in folder.glob("*.jsonl.gz")]
        total = sum(size for _, size, _ in files)
        for _, size, entry in sorted(files):
            if total <= limit_bytes:
                return
            entry.unlink(missing_ok=True)
            total -= size
