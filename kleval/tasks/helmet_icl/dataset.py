"""The five data sets, from their authors' files or in the shape of the Hugging Face hub's copies.

Under the data folder (NAME is banking77, clinc150, nlu or trec):

authors' files  banking77/{train,test}.csv · clinc150/data_oos_plus.json · trec/train_5500.label, TREC_10.label ·
                nlu/NLU-Data-Home-Domain-Annotated-All.csv
hub's shape     NAME/{train,test}.parquet, .jsonl, .json, .csv or .tsv (clinc150: train and validation; nlu: train alone), also cut
                into parts `train-00000-of-00001.parquet`; columns text and label, intent, coarse_label or fine_label,
                a label by its number or its name

Where both are there the authors' files count. They are read as the hub's loading scripts read them, so that both give
the same items in the same order: clinc150's items out of scope come last and its test items are the validation split;
of TREC the byte F0 becomes a blank; of NLU, rows without an annotation are left out and annotations like
`[time : five am]` are replaced by what they annotate.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile, packaged, tables
from kleval.tasks.helmet_icl.drawing import Item
from kleval.types import UsageError

FAMILY = "helmet_icl"
_ANNOTATION = re.compile(r"\[(.+?)\s+\:+\s(.+?)\]")
_COPIES = {
    "f96f211c9d180d3fa25b1841febd9be6f0a6fc65e5b6a99344b5946163b35009": "q_class_en's copy",
    "033f22c028c2bbba9ca682f68ffe204dc1aa6e1cf35dd6207f2d4ca67f0d0e8e": "q_class_en's copy",
}


@dataclass(frozen=True, slots=True)
class Spec:
    """Of one task. folder: of its data. n_labels: how many numbers the random mapping has. splits: (training, test);
    both the same where the data are not split. files: of the authors. field: its column in the hub's shape."""

    folder: str
    names: tuple[str, ...]
    n_labels: int
    splits: tuple[str, ...]
    files: tuple[str, ...]
    field: str


SPECS: dict[str, Spec] = {
    name: Spec(
        facts["folder"],
        packaged.words("helmet_icl/items.toml", "labels", facts["labels"]),
        facts["n_labels"],
        tuple(facts["splits"]),
        tuple(facts["files"]),
        facts["field"],
    )
    for name, facts in packaged.load("helmet_icl/tables.toml")["tasks"].items()
}


@dataclass(frozen=True, slots=True)
class Source:
    """paths: the authors' files, or per split its parts. sha256: over the files' own, hex."""

    name: str
    paths: tuple[tuple[Path, ...], ...]
    authors: bool
    revision: str
    sha256: str


def find(name: str, data_dir: Path | None) -> Source:
    """The files of a task. UsageError naming the command that gets them when there are none."""
    spec = SPECS[name]
    folder = data.data_folder(FAMILY, data_dir) / spec.folder
    authors = [datafile.packed_or_not(folder / file) for file in spec.files]
    if all(authors):
        return _source(name, tuple((path,) for path in authors if path), authors=True)
    parts = tuple(datafile.parts(folder / split) for split in dict.fromkeys(spec.splits))
    if all(parts):
        return _source(name, parts, authors=False)
    missing = next(file for file, path in zip(spec.files, authors, strict=True) if path is None)
    data.need(FAMILY, f"{spec.folder}/{missing}", f"{FAMILY}/{name} (official)", data_dir)
    raise AssertionError("unreachable: data.need found a file that is not there")


def _source(name: str, paths: tuple[tuple[Path, ...], ...], authors: bool) -> Source:
    hashes = [data.file_sha256(path) for parts in paths for path in parts]
    digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    known = data.known_revisions(FAMILY) | _COPIES
    shape = "authors' files" if authors else "hub's shape"
    if all(sha256 in known for sha256 in hashes):
        named = " and ".join(dict.fromkeys(known[sha256] for sha256 in hashes))
    else:
        named = f"unpinned sha256:{digest[:16]}"
    return Source(name, paths, authors, f"{SPECS[name].folder}, {shape}, {named}", digest)


@lru_cache(maxsize=2)
def read(source: Source) -> tuple[tuple[Item, ...], ...]:
    """(training items, test items), or all of them in one where the data are not split. UsageError for what is damaged."""
    spec = SPECS[source.name]
    if source.authors:
        splits = _AUTHORS[spec.folder](source)
    else:
        splits = [[_hub_item(row, spec) for path in parts for row in tables.rows(path)] for parts in source.paths]
    for items, parts in zip(splits, source.paths * len(splits), strict=False):
        if not items:
            raise UsageError(f"{parts[0]} has no rows")
    return tuple(tuple(items) for items in splits)


def _hub_item(row: tuple[str, dict[str, Any]], spec: Spec) -> Item:
    where, fields = row
    return Item(tables.text(where, fields, "text"), _number(where, tables.value(where, fields, spec.field), spec.names))


def _number(where: str, label: Any, names: Sequence[str]) -> int:
    if isinstance(label, str) and label in names:
        return names.index(label)
    number = tables.whole_number(label)
    if number is not None and 0 <= number < len(names):
        return number
    raise UsageError(f"{where}: {str(label)[:80]!r} is none of the {len(names)} labels")


def _banking(source: Source) -> list[list[Item]]:
    found = []
    for (path,) in source.paths:
        rows = tables.rows(path)
        found.append(
            [
                Item(tables.text(w, r, "text"), _number(w, tables.text(w, r, "category"), SPECS["banking77"].names))
                for w, r in rows
            ]
        )
    return found


def _clinc(source: Source) -> list[list[Item]]:
    ((path,),) = source.paths
    found = datafile.whole_json(path)
    splits = []
    for split in ("train", "val"):
        items = []
        for name in (split, f"oos_{split}"):
            rows = tables.value(str(path), found, name)
            if not isinstance(rows, list):
                raise UsageError(f"{path}: field {name!r} must be a list of [text, label]")
            items += [_pair(f"{path} {name} row {i}", row) for i, row in enumerate(rows)]
        splits.append(items)
    return splits


def _pair(where: str, row: Any) -> Item:
    if not isinstance(row, list) or len(row) != 2 or not isinstance(row[0], str) or not tables.is_unicode(row[0]):
        raise UsageError(f"{where} must be [text, label]")
    return Item(row[0], _number(where, row[1], SPECS["clinic150"].names))


def _trec(source: Source) -> list[list[Item]]:
    spec = SPECS[source.name]
    found = []
    for (path,) in source.paths:
        items = []
        for n, line in enumerate(_lines(path)):
            label, blank, text = line.replace(b"\xf0", b" ").strip().decode("latin-1").partition(" ")
            if not blank:
                raise UsageError(f"{path} row {n} must be a label, a blank and a question")
            wanted = label if spec.field == "fine_label" else label.partition(":")[0]
            items.append(Item(text, _number(f"{path} row {n}", wanted, spec.names)))
        found.append(items)
    return found


def _lines(path: Path) -> Iterable[bytes]:
    return [line for line in datafile.content(path).split(b"\n") if line.strip()]


def _nlu(source: Source) -> list[list[Item]]:
    ((path,),) = source.paths
    items = []
    for n, row in enumerate(_semicolon_rows(path)):
        where = f"{path} row {n}"
        annotated = tables.text(where, row, "answer_annotation")
        if annotated != "null":
            label = f"{tables.text(where, row, 'scenario')}_{tables.text(where, row, 'intent')}"
            items.append(Item(_ANNOTATION.sub(r"\2", annotated), _number(where, label, SPECS["nlu"].names)))
    return [items]


def _semicolon_rows(path: Path) -> Iterator[dict[str, str]]:
    try:
        with datafile.opened(path, newline="") as file:
            yield from csv.DictReader(file, delimiter=";", skipinitialspace=True)
    except (*datafile.READ_ERRORS, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as CSV: {datafile.one_line(error)}") from error


_AUTHORS: dict[str, Callable[[Source], list[list[Item]]]] = {
    "banking77": _banking,
    "clinc150": _clinc,
    "nlu": _nlu,
    "trec": _trec,
}
