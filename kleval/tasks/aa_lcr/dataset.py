"""ArtificialAnalysis/AA-LCR: a table of 100 questions, and the documents of each in an archive or, unpacked, in a folder `lcr`.

Documents stand in the order of the table's `data_source_filenames`. A document that is not there is an error: other harnesses ask
without it. Names in the archive are UTF-8, whether they are marked so or not.
"""

from __future__ import annotations

import hashlib
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kleval.tasks import data, tables
from kleval.tasks.data import Source
from kleval.types import UsageError

TABLE, ARCHIVE = "AA-LCR_Dataset.csv", "extracted_text/AA-LCR_extracted-text.zip"


@dataclass(frozen=True, slots=True)
class Row:
    id: str
    category: str
    documents: tuple[str, ...] = field(repr=False)
    question: str
    answer: str


def find(task_id: str, data_dir: Path | None) -> Source:
    """The table, and the archive or the folder of the documents. UsageError naming what gets them."""
    known = ((TABLE, "AA-LCR"), (ARCHIVE, "documents"))
    table, texts = (data.find("aa_lcr", (file,), f"{task_id} (official)", data_dir, named) for file, named in known)
    where = texts.path
    if where.suffix != ".zip":
        where = next(folder for folder in where.parents if folder.name == "lcr")
        texts = data.source_of(sorted(where.rglob("*.txt")), "documents")
    told = f", {texts.revision}" if texts.revision.startswith("documents") else ""
    digest = hashlib.sha256(f"{table.sha256}\n{texts.sha256}".encode()).hexdigest()
    return Source((table.path, where), f"{table.revision}{told}", digest)


def read(source: Source) -> Iterator[Row]:
    table, where = source.paths
    texts = _texts(where)
    for place, row in tables.rows(table):
        yield _row(place, row, texts, where)


def _row(place: str, row: dict[str, Any], texts: dict[str, Any], where: Path) -> Row:
    folder = "/".join(tables.text(place, row, name).strip() for name in ("document_category", "document_set_id"))
    found = []
    for file in tables.text(place, row, "data_source_filenames").split(";"):
        name = _key(f"{folder}/{file.strip()}")
        if name not in texts:
            raise UsageError(f"{place} needs the document {name}, which is not in {where}")
        found.append(_text(texts[name]))
    question, answer = (tables.text(place, row, name).strip() for name in ("question", "answer"))
    if not answer:
        raise UsageError(f"{place}: field 'answer' is empty")
    return Row(str(row.get("question_id", "")), folder.partition("/")[0], tuple(found), question, answer)


def _texts(where: Path) -> dict[str, Any]:
    """Document (category/set/file) -> where it is read from."""
    try:
        if where.is_dir():
            found: dict[str, Any] = {file.relative_to(where).as_posix(): file for file in where.rglob("*")}
        else:
            packed = zipfile.ZipFile(where, metadata_encoding="utf-8")
            found = {name.partition("lcr/")[2]: zipfile.Path(packed, name) for name in packed.namelist()}
    except (OSError, UnicodeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{where} cannot be read: {error}") from error
    return {_key(name): place for name, place in found.items()}


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _text(place: Any) -> str:
    try:
        return str(place.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{place} cannot be read: {error}") from error
