"""Data files of lm-eval's tasks on this machine.

A task names a data set of the hub (openai/gsm8k) and often a configuration of it (main). Its folder here is called like the
set (gsm8k, or openai__gsm8k) and lies in the data directory, or in `lm_eval/` there, where `kleval data fetch lm_eval/NAME`
puts it. In it, or in a folder called like the configuration (which those called main or default need not have), a split is
one file (test.jsonl, test.parquet, also .json and .csv) or several (test-00000-of-00002.parquet, also in `data/`). Two
shapes are read: the hub's, and that of the authors' own repositories, which keep one file for a configuration
(bbh/navigate.json, with the rows under `examples`); it is then the split that is evaluated.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile, tables
from kleval.tasks.assets import ASSETS
from kleval.types import UsageError

SOURCE_FILE = "source.json"
_SYNONYMS = {"validation": ("validation", "valid", "val", "dev"), "val": ("val", "validation"), "dev": ("dev",)}
_ONLY = (None, "main", "default")
_WRAPPERS = ("examples", "data", "rows")


@dataclass(frozen=True, slots=True)
class Needed:
    """What a task reads. evaluated: the split that is asked; others: the ones its examples may come from, drawn: that they do."""

    task: str
    path: str
    config: str | None
    evaluated: str
    others: tuple[str, ...] = ()
    drawn: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """splits: split -> files. revision: where they come from, as far as is known; digest: sha256 over the splits' files."""

    folder: Path
    splits: Mapping[str, tuple[Path, ...]]
    revision: str
    digest: str


def roots(data_dir: Path | None) -> tuple[Path, ...]:
    """Where data sets' folders may lie, in the order in which they are looked for."""
    given = data_dir or (Path(os.environ["KLEVAL_DATA_DIR"]) if os.environ.get("KLEVAL_DATA_DIR") else None)
    root = given.expanduser() if given else Path.home() / ".cache" / "kleval" / "data"
    return root / "lm_eval", root


def folder_names(path: str) -> tuple[str, ...]:
    """What the folder of a hub data set may be called: openai__gsm8k, gsm8k."""
    short = path.rstrip("/").rpartition("/")[2]
    return tuple(dict.fromkeys((path.replace("/", "__"), short, short.lower())))


def find(needed: Needed, data_dir: Path | None, fetched_by: str) -> Found:
    """The files of a task. MissingData naming the command that fetches them (fetched_by: its argument)."""
    for folder in _folders(needed.path, data_dir):
        splits = splits_in(needed, folder)
        if needed.evaluated in splits:
            return Found(folder, splits, _revision(folder, splits), _digest(splits))
    where = f" --data-dir {data_dir}" if data_dir else ""
    what = needed.path + (f" ({needed.config})" if needed.config else "")
    names = " or ".join(sorted(folder_names(needed.path), key=len))
    raise data.MissingData(
        f"lm_eval/{needed.task} needs the {needed.evaluated} split of {what}, which is not in {roots(data_dir)[1]}:"
        f" `kleval data fetch {fetched_by}{where}` gets it, or put it into a folder {names} there",
        fetched_by,
    )


def _folders(path: str, data_dir: Path | None) -> Iterator[Path]:
    for root in roots(data_dir):
        for name in folder_names(path):
            if (root / name).is_dir():
                yield root / name
    # A data directory of this one data set.
    root = roots(data_dir)[1]
    if root.name in folder_names(path):
        yield root


def splits_in(needed: Needed, folder: Path) -> dict[str, tuple[Path, ...]]:
    """Split -> files, of those that are there."""
    found = {}
    for split in dict.fromkeys((needed.evaluated, *needed.others)):
        places = stems(needed.path, needed.config, split, split == needed.evaluated)
        if files := next(filter(None, (datafile.parts(folder / stem) for stem in places)), None):
            found[split] = files
    return found


def stems(path: str, config: str | None, split: str, evaluated: bool) -> list[str]:
    """Where a split may lie in its set's folder, without the ending, in the order in which it is looked for."""
    places = [f"{config}/"] if config else []
    # A split beside the folders of configurations belongs to none of them, unless there is only one.
    if config in _ONLY:
        places.append("")
    names = _SYNONYMS.get(split, (split,))
    found = [f"{place}{folder}{name}" for place in places for folder in ("", "data/") for name in names]
    if evaluated:
        found += [config] if config else folder_names(path)
    return found


def read(found: Found, split: str) -> Any:
    """A split as a datasets.Dataset, in memory. UsageError when a file cannot be read as one."""
    import datasets

    parts = []
    for file in found.splits[split]:
        datafile.refuse_pointer(file)
        if file.suffix == ".parquet":
            import pyarrow.parquet

            try:
                # The schema of a file that came from the hub holds what its columns mean (names of labels).
                parts.append(datasets.Dataset(pyarrow.parquet.read_table(file)))
            except Exception as error:
                raise UsageError(f"{file} cannot be read as Parquet: {error}") from error
        else:
            rows = _rows(file)
            for n, row in enumerate(rows):
                if lacking := [name for name in rows[0] if name not in row]:
                    # from_list would fill in None, which templates write as the answer "None".
                    raise UsageError(f"{file} row {n}: field {lacking[0]!r} is missing, which row 0 has")
            try:
                parts.append(datasets.Dataset.from_list(_with_whole_numbers(rows)))
            except (TypeError, ValueError, ArithmeticError) as error:
                raise UsageError(f"{file}: a column holds values of different types: {error}") from error
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)


def _with_whole_numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows in which a column of nothing but 1.0, 3.0 is one of whole numbers: as a label lm-eval would write it out in its examples."""
    whole = [name for name in rows[0] if all(isinstance(row[name], float) and row[name].is_integer() for row in rows)]
    return [{**row, **{name: int(row[name]) for name in whole}} for row in rows] if whole else rows


def _rows(file: Path) -> list[dict[str, Any]]:
    if datafile.format_of(file) == ".json":
        try:
            whole = datafile.whole_json(file)
        except UsageError:
            whole = None
        if isinstance(whole, dict):
            for name in _WRAPPERS:
                if isinstance(rows := whole.get(name), list) and all(isinstance(row, dict) for row in rows):
                    return rows
    return [row for _, row in tables.rows(file)]


def _digest(splits: Mapping[str, Sequence[Path]]) -> str:
    h = hashlib.sha256()
    for split in sorted(splits):
        for file in splits[split]:
            h.update(f"{split} {data.file_sha256(file)}\n".encode())
    return h.hexdigest()


def _revision(folder: Path, splits: Mapping[str, Sequence[Path]]) -> str:
    """`repository@commit` of what was fetched and is unchanged, the name of known files, else that they are unrecognised."""
    files = sorted({file for parts in splits.values() for file in parts})
    hashes = {str(file.relative_to(folder)): data.file_sha256(file) for file in files}
    noted = source(folder)
    if all(noted["files"].get(name) == sha256 for name, sha256 in hashes.items()):
        return f"{noted['repository']}@{noted['revision'][:12]} (the hub's shape)"
    known = data.known_revisions(folder.name) if folder.name in ASSETS else {}
    if unknown := [name for name, sha256 in hashes.items() if sha256 not in known]:
        own = "the hub's" if any(file.suffix == ".parquet" for file in files) else "the authors'"
        return f"unrecognised: {', '.join(unknown)} ({own} shape)"
    labels = dict.fromkeys(known[sha256] for sha256 in hashes.values())
    return f"{' + '.join(labels)} ({', '.join(hashes)}; the authors' shape)"


def source(folder: Path) -> dict[str, Any]:
    """What `fetch` noted about a folder, nothing of one that was not fetched: `repository`, `revision`, `files` (sha256 by name) and
    `missing` (files of splits that the set does not have)."""
    nothing = {"repository": "", "revision": "", "files": {}, "missing": []}
    try:
        noted = {**nothing, **json.loads((folder / SOURCE_FILE).read_text("utf-8"))}
    except (OSError, ValueError, TypeError):
        return nothing
    return noted if all(isinstance(noted[key], type(value)) for key, value in nothing.items()) else nothing
