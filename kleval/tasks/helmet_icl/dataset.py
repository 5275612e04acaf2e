"""The five data sets, from their authors' files or in the shape of the Hugging Face hub's copies (docs/helmet_icl.md says where which
file lies); where both are there the authors' files count.

They are read as the hub's loading scripts read them, so that both give the same items in the same order: clinc150's items out of scope
come last and its test items are the validation split; of TREC the byte F0 becomes a blank; of NLU, rows without an annotation are left
out and annotations like `[time : five am]` are replaced by what they annotate.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile, tables
from kleval.tasks.helmet_icl.official import SPECS, Item, Spec
from kleval.types import UsageError

FAMILY = "helmet_icl"
_ANNOTATION = re.compile(r"\[(.+?)\s+\:+\s(.+?)\]")
_COPIES = {
    "f96f211c9d180d3fa25b1841febd9be6f0a6fc65e5b6a99344b5946163b35009": "q_class_en's copy",
    "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e": "q_class_en's copy",
}
Labelled = Iterator[tuple[str, str, Any]]  # where (for messages), text, label by its name or its number


@dataclass(frozen=True, slots=True)
class Source:
    """paths: per split the authors' file, or the hub's parts. sha256: over the files' own, hex."""

    name: str
    paths: tuple[tuple[Path, ...], ...]
    authors: bool
    revision: str
    sha256: str


def find(name: str, data_dir: Path | None) -> Source:
    """The files of a task. UsageError naming the command that gets them when there are none."""
    spec, place = SPECS[name], data.data_folder(FAMILY, data_dir)
    folder = place / spec.folder
    authors = {file: datafile.packed_or_not(folder / file) for file in spec.files}
    if all(authors.values()):
        return _source(name, tuple((path,) for path in authors.values() if path), authors=True)
    parts = tuple(datafile.parts(folder / split) for split in dict.fromkeys(spec.splits))
    if all(parts):
        return _source(name, parts, authors=False)
    lacking = next(file for file, path in authors.items() if path is None)
    raise data.missing(f"{FAMILY}/{name} (official)", f"{spec.folder}/{lacking}", FAMILY, place, data_dir)


def _source(name: str, paths: tuple[tuple[Path, ...], ...], authors: bool) -> Source:
    hashes = [data.file_sha256(path) for parts in paths for path in parts]
    digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    known = data.known_revisions(FAMILY) | _COPIES
    shape = "authors' files" if authors else "hub's shape"
    named = f"unpinned sha256:{digest[:16]}"
    if all(sha256 in known for sha256 in hashes):
        named = " and ".join(dict.fromkeys(known[sha256] for sha256 in hashes))
    return Source(name, paths, authors, f"{SPECS[name].folder}, {shape}, {named}", digest)


@lru_cache(maxsize=2)
def read(source: Source) -> tuple[tuple[Item, ...], ...]:
    """(training items, test items), or all of them in one where the data are not split. UsageError for what is damaged."""
    spec, splits = SPECS[source.name], []
    for n, split in enumerate(dict.fromkeys(spec.splits)):
        paths = source.paths[n % len(source.paths)]
        rows = _AUTHORS[spec.folder](paths[0], split, spec) if source.authors else _hub(paths, spec)
        splits.append(tuple(Item(text, _number(where, label, spec.names)) for where, text, label in rows))
        if not splits[-1]:
            raise UsageError(f"{paths[0]} has no rows")
    return tuple(splits)


def _number(where: str, label: Any, names: Sequence[str]) -> int:
    if isinstance(label, str) and label in names:
        return names.index(label)
    number = tables.whole_number(label)
    if number is not None and 0 <= number < len(names):
        return number
    raise UsageError(f"{where}: {str(label)[:80]!r} is none of the {len(names)} labels")


def _hub(paths: Sequence[Path], spec: Spec) -> Labelled:
    for where, row in (one for path in paths for one in tables.rows(path)):
        yield where, tables.text(where, row, "text"), tables.value(where, row, spec.field)


def _banking(path: Path, split: str, spec: Spec) -> Labelled:
    for where, row in tables.rows(path):
        yield where, tables.text(where, row, "text"), tables.text(where, row, "category")


def _clinc(path: Path, split: str, spec: Spec) -> Labelled:
    found, own = datafile.whole_json(path), {"validation": "val"}.get(split, split)
    for name in (own, f"oos_{own}"):
        rows = tables.value(str(path), found, name)
        if not isinstance(rows, list):
            raise UsageError(f"{path}: field {name!r} must be a list of [text, label]")
        for n, row in enumerate(rows):
            where = f"{path} {name} row {n}"
            if (
                not isinstance(row, list)
                or len(row) != 2
                or not isinstance(row[0], str)
                or not tables.is_unicode(row[0])
            ):
                raise UsageError(f"{where} must be [text, label]")
            yield where, row[0], row[1]


def _trec(path: Path, split: str, spec: Spec) -> Labelled:
    for n, line in enumerate(line for line in datafile.content(path).split(b"\n") if line.strip()):
        label, blank, text = line.replace(b"\xf0", b" ").strip().decode("latin-1").partition(" ")
        if not blank:
            raise UsageError(f"{path} row {n} must be a label, a blank and a question")
        yield f"{path} row {n}", text, label if spec.field == "fine_label" else label.partition(":")[0]


def _nlu(path: Path, split: str, spec: Spec) -> Labelled:
    for n, row in enumerate(_semicolon_rows(path)):
        where = f"{path} row {n}"
        annotated = tables.text(where, row, "answer_annotation")
        if annotated != "null":
            label = f"{tables.text(where, row, 'scenario')}_{tables.text(where, row, 'intent')}"
            yield where, _ANNOTATION.sub(r"\2", annotated), label


def _semicolon_rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with datafile.opened(path, newline="") as file:
            yield from csv.DictReader(file, delimiter=";", skipinitialspace=True)
    except (*datafile.READ_ERRORS, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as CSV: {datafile.one_line(error)}") from error


_AUTHORS: dict[str, Callable[[Path, str, Spec], Labelled]] = {
    "banking77": _banking,
    "clinc150": _clinc,
    "nlu": _nlu,
    "trec": _trec,
}
