"""Documents of the user's: a text file, a folder of them, or rows with a `text` (JSON lines, JSON, CSV, TSV, Parquet)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from kleval.tasks import datafile, tables
from kleval.tasks.prose import split_sentences
from kleval.types import UsageError

TEXT_FIELDS = ("text", "content")
PIECE_CHARS = 400


@dataclass(frozen=True, slots=True)
class Document:
    name: str
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Documents:
    """documents: in the order of their names, or rows. digest: sha256 (hex) over names and texts."""

    name: str
    documents: tuple[Document, ...] = field(repr=False)

    def sentences(self) -> list[str]:
        """Of all documents, each in pieces of PIECE_CHARS at most: a table, or code, has no sentences."""
        found = [line for one in self.documents for line in split_sentences(one.text)]
        return [part for line in found for part in _pieces(" ".join(line.split()))]

    @property
    def digest(self) -> str:
        h = hashlib.sha256()
        for one in self.documents:
            for part in (one.name.encode(), one.text.encode()):
                h.update(len(part).to_bytes(8, "big") + part)
        return h.hexdigest()


def _pieces(line: str) -> Iterator[str]:
    while len(line) > PIECE_CHARS:
        at = line.rfind(" ", 1, PIECE_CHARS)
        at = PIECE_CHARS if at < 0 else at
        yield line[:at]
        line = line[at:].lstrip()
    if line:
        yield line


@lru_cache(maxsize=4)
def read(path: Path) -> Documents:
    """UsageError for a place that is not there, or holds no text."""
    path = path.expanduser()
    if path.is_dir():
        files = sorted(one for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
        found = [one for file in files for one in _of_file(file, file.relative_to(path).as_posix(), strict=False)]
    elif path.is_file():
        found = list(_of_file(path, path.name))
    else:
        raise UsageError(f"there is no file or folder {path}")
    kept = tuple(one for one in found if one.text.strip())
    if not kept:
        raise UsageError(f"{path} holds no text")
    return Documents(path.resolve().name, kept)


def _of_file(file: Path, name: str, strict: bool = True) -> Iterator[Document]:
    """strict: a file that is no text is an error, else it is passed over."""
    if datafile.format_of(file) in datafile.FORMATS:
        for index, (where, row) in enumerate(tables.rows(file)):
            key = next((key for key in TEXT_FIELDS if key in row), None)
            if key is None:
                raise UsageError(f"{where} has no field text: it has {', '.join(row)}")
            yield Document(f"{name}#{index}", tables.text(where, row, key))
        return
    try:
        text = datafile.content(file).decode()
        if "\0" in text:
            raise UnicodeError("it holds zero bytes")
    except UnicodeError as error:
        if strict:
            raise UsageError(f"{file} is no text in UTF-8: {datafile.one_line(error)}") from error
        return
    yield Document(name, text)
