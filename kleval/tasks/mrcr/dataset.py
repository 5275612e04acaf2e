"""openai/mrcr: rows {prompt, answer, random_string_to_prepend, n_needles, desired_msg_index, total_messages, n_chars}.

Two revisions are about. f4c69fa (2025-12-05) has `{n}needle/{n}needle_{0,1}.parquet` and a column `date_added`: about 10 %
of the earlier rows had more answers to the request than they should, 5 % a wrong one, and were replaced. 204b0d4 and
before have `{n}needle.parquet` without that column; no hash of theirs is known, so that they are told by it. Scores on
the two are not comparable. Any other format of the same rows is read too; where both revisions lie in a
folder, the newer one counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile, tables
from kleval.tasks.data import Source
from kleval.types import Message, UsageError

REVISION = "openai/mrcr f4c69fa (2025-12-05)"
_ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Row:
    """answer: with the prefix before it. facts: JSON values for the sample's meta."""

    messages: tuple[Message, ...] = field(repr=False)
    answer: str = field(repr=False)
    prefix: str
    facts: dict[str, Any]


def find(task_id: str, n_needles: int, data_dir: Path | None) -> Source:
    """The files of that many needles. UsageError naming the command that gets them when there are none."""
    folder = data.data_folder("mrcr", data_dir)
    name = f"{n_needles}needle"
    halves = (f"{name}_0", f"{name}_1")
    for stems in ((f"{name}/{halves[0]}", f"{name}/{halves[1]}"), halves, (name,), (f"{name}/{name}",)):
        paths = tuple(path for stem in stems if (path := datafile.existing(folder / stem)) is not None)
        if len(paths) == len(stems):
            return _source(paths)
    missing = [f"{name}/{half}.parquet" for half in halves if datafile.existing(folder / f"{name}/{half}") is None]
    data.need("mrcr", missing[0], f"{task_id} (official)", data_dir)
    raise AssertionError("unreachable: data.need found a file that is not there")


def _source(paths: tuple[Path, ...]) -> Source:
    hashes = [data.file_sha256(path) for path in paths]
    digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
    if set(hashes) <= set(data.known_revisions("mrcr")):
        return Source(paths, REVISION, digest)
    _, first = next(tables.rows(paths[0]))
    which = "since 2025-12-05 (date_added)" if "date_added" in first else "before 2025-12-05 (no date_added)"
    return Source(paths, f"openai/mrcr {which}, unpinned, sha256:{digest[:16]}", digest)


def read(source: Source, n_needles: int) -> Iterator[Row]:
    """Rows in the data's order, one at a time. UsageError naming file and row of what is not what it must be."""
    for path in source.paths:
        for where, row in tables.rows(path):
            yield _row(where, row, n_needles)


def _row(where: str, row: dict[str, Any], n_needles: int) -> Row:
    messages = _messages(where, tables.value(where, row, "prompt"))
    answer = tables.text(where, row, "answer")
    prefix = tables.text(where, row, "random_string_to_prepend")
    if not prefix:
        raise UsageError(f"{where}: field 'random_string_to_prepend' must not be empty")
    found = tables.integer(where, row, "n_needles")
    if found != n_needles:
        raise UsageError(f"{where}: field 'n_needles' must be {n_needles}, is {found}")
    facts: dict[str, Any] = {name: tables.integer(where, row, name) for name in ("desired_msg_index", "total_messages")}
    facts["n_chars"] = sum(len(message["content"]) for message in messages)
    if row.get("date_added") is not None:
        facts["date_added"] = str(row["date_added"])
    return Row(messages, answer, prefix, facts)


def _messages(where: str, prompt: Any) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        try:
            prompt = json.loads(prompt)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{where}: field 'prompt' is not JSON: {datafile.one_line(error)}") from error
    if not isinstance(prompt, list) or not prompt:
        raise UsageError(f"{where}: field 'prompt' must be a list of messages")
    messages = []
    for i, message in enumerate(prompt):
        inside = f"{where} message {i}"
        role, content = tables.text(inside, message, "role"), tables.text(inside, message, "content")
        if role not in _ROLES:
            raise UsageError(f"{inside}: role {role!r} is none of {', '.join(_ROLES)}")
        messages.append({"role": role, "content": content})
    return tuple(messages)
