"""Making of the code tasks (`benchmarks.toml`), and their problems: official ones from files under the data directory, in any format
that `tables` reads, builtin ones from `items.toml`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile, packaged, tables
from kleval.tasks.code.task import OWN, Benchmark, CodeTask, Grade, Problem, Reading
from kleval.tasks.registry import check_protocol
from kleval.types import UsageError

OWN_REVISION = "builtin-1"


def find(task_id: str, folder: str, stems: Sequence[str], data_dir: Path | None, *, every: bool = False) -> list[Path]:
    """The file of the first of `folder/STEM` that is there, or the files of every one, in any format or in parts; MissingData when
    none is."""
    root, family = data.data_folder("code", data_dir), data.family_of(task_id)
    theirs = data.data_folder(family, data_dir)
    bases = dict.fromkeys((root / folder, theirs / folder, theirs))
    for base in bases:
        found = [paths for stem in stems if (paths := _existing(base, stem))]
        if found:
            return [path for paths in found for path in paths] if every else found[0]
    raise data.missing(f"{task_id} (official)", f"{folder}/{stems[0]}.jsonl or .parquet", family, root, data_dir)


def _existing(base: Path, stem: str) -> list[Path]:
    return list(datafile.parts(base / stem) or datafile.parts(base / "data" / stem))


def read(paths: Sequence[Path], make: Callable[[str, dict[str, Any]], Any]) -> tuple[list[Any], str, str]:
    """What `make` makes of each row (None: passed over); revision and sha256 of the files."""
    made = [one for path in paths for where, row in tables.rows(path) if (one := make(where, row)) is not None]
    digest = data.source_of(paths, "").sha256
    if not made:
        raise UsageError(f"{paths[0]} has no problem for this task")
    return made, data.known_revisions("code").get(digest, f"unpinned sha256:{digest[:16]}"), digest


def bank(name: str) -> list[dict[str, Any]]:
    """Rows of that name, made by kleval."""
    rows: list[dict[str, Any]] = packaged.load("code/items.toml")[name]
    return rows


def load(
    name: str,
    make: Callable[[str, str, dict[str, Any]], Problem],
    grade: Callable[[str, Problem, Sequence[str]], Reading],
    edition: str,
    protocol: str | None,
    data_dir: Path | None,
) -> CodeTask:
    """The task code/NAME. make: protocol, place, row -> problem. grade: protocol, problem, answers -> metrics and what was read."""
    form = packaged.load("code/benchmarks.toml")[name]
    protocol = protocol_of(name, edition, protocol)
    if edition == "official":
        paths = find(f"code/{name}", form["folder"], form["stems"], data_dir)
        return task_of(name, edition, protocol, partial(grade, protocol), *read(paths, partial(make, protocol)))
    problems = [make(protocol, f"item {n}", row) for n, row in enumerate(bank(form["items"]))]
    return task_of(name, edition, protocol, partial(grade, protocol), problems, OWN_REVISION, own_digest(problems))


def protocol_of(name: str, edition: str, protocol: str | None) -> str:
    """The protocol asked for, or the edition's first. UsageError where it has no such."""
    known = packaged.load("code/benchmarks.toml")[name]["protocols"] if edition == "official" else (OWN,)
    return check_protocol(f"code/{name} ({edition})", protocol, known)


def task_of(
    name: str,
    edition: str,
    protocol: str,
    grade: Grade,
    problems: Sequence[Problem],
    revision: str,
    digest: str,
    **more: Any,
) -> CodeTask:
    """more: of `Benchmark`, beside what the table says."""
    form = packaged.load("code/benchmarks.toml")[name]
    said = {**form["asked"], **form.get(protocol, {})}
    said = {key: tuple(value) if isinstance(value, list) else value for key, value in said.items()}
    benchmark = Benchmark(grade=grade, **said, **more)
    return CodeTask(
        f"code/{name}", benchmark, problems, edition=edition, protocol=protocol, revision=revision, digest=digest
    )


def own_digest(problems: Sequence[Any]) -> str:
    """sha256 over the texts of a builtin edition."""
    return hashlib.sha256("\0".join(f"{one.plain}{one.data}" for one in problems).encode()).hexdigest()
