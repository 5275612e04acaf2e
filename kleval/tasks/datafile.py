"""A data file as it lies on disk: gzip or not, with a byte-order mark or without, or the pointer that Git LFS left in its place.

A file is known to be gzip, UTF-16 or a pointer by how it begins, not by its name. The forms of a file are the formats that
rows are read from (`tables`), packed or not: any of them may stand in for the one that is named.
"""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from pathlib import Path
from typing import IO, Any, TextIO, cast

from kleval.types import UsageError

FORMATS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
PACKED = ".gz"
READ_ERRORS = (OSError, EOFError, zlib.error, UnicodeError)

_GZIP = b"\x1f\x8b"
_POINTERS = ((b"version https://git-lfs.github.com/spec/", "Git LFS"), (b"/annex/objects/", "git-annex"))
_POINTER_BYTES = 1024
_OTHERS = (".arrow",)
_OF = re.compile(r"-of-(\d+)")


def format_of(path: Path) -> str:
    """The ending that says how rows are read, `.gz` aside."""
    return path.with_name(path.name.removesuffix(PACKED)).suffix


def packed_or_not(path: Path) -> Path | None:
    """The file, else the same unpacked, else the same packed; None where none of them is there."""
    name = path.name.removesuffix(PACKED)
    forms = (path, path.with_name(name), path.with_name(name + PACKED))
    return next((form for form in forms if form.is_file()), None)


def existing(path: Path) -> Path | None:
    """The same, else the same in another format."""
    stem = path.name.removesuffix(PACKED)
    for suffix in (*FORMATS, *_OTHERS):
        stem = stem.removesuffix(suffix)
    forms = (path, *(path.with_name(stem + suffix) for suffix in FORMATS))
    return next((found for form in forms if (found := packed_or_not(form))), None)


def parts(stem: Path) -> tuple[Path, ...]:
    """`STEM` in any format, else its parts `STEM-00000-of-00002` in one format; empty where there is neither, or not every part."""
    if (alone := existing(stem)) is not None:
        return (alone,)
    for suffix in FORMATS:
        found = sorted(stem.parent.glob(f"{stem.name}-*-of-*{suffix}")) or sorted(
            stem.parent.glob(f"{stem.name}-*-of-*{suffix}{PACKED}")
        )
        if found and (whole := _OF.search(found[0].name)) and len(found) == int(whole[1]):
            return tuple(found)
    return ()


def pointer(path: Path) -> str:
    """Which program left a pointer in the file's place; empty where it is the file. OSError when it cannot be read."""
    if path.stat().st_size > _POINTER_BYTES:
        return ""
    with path.open("rb") as file:
        head = file.read(_POINTER_BYTES)
    return next((name for begins, name in _POINTERS if head.startswith(begins)), "")


def refuse_pointer(path: Path) -> None:
    """UsageError where only a pointer lies there."""
    try:
        name = pointer(path)
    except OSError as error:
        raise unreadable(path, error) from error
    if name:
        get = "git lfs pull" if name == "Git LFS" else "git annex get"
        raise UsageError(f"{path} is a {name} pointer, not the file: `{get}` in its repository fetches it")


def opened(path: Path, newline: str | None = None) -> TextIO:
    """The text, unpacked, without a byte-order mark. UsageError when it cannot be opened or is a pointer."""
    refuse_pointer(path)
    try:
        raw = _unpacked(path)
        wide = raw.peek(2).startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return io.TextIOWrapper(raw, encoding="utf-16" if wide else "utf-8-sig", newline=newline)
    except READ_ERRORS as error:
        raise unreadable(path, error) from error


def _unpacked(path: Path) -> io.BufferedReader:
    file = path.open("rb")
    if file.peek(2)[:2] != _GZIP:
        return file
    packed = gzip.GzipFile(fileobj=cast(IO[bytes], file))
    return io.BufferedReader(cast(io.RawIOBase, packed))


def content(path: Path) -> bytes:
    """All of it, unpacked, without a byte-order mark of UTF-8. UsageError as for `opened`."""
    refuse_pointer(path)
    try:
        with _unpacked(path) as file:
            return file.read().removeprefix(codecs.BOM_UTF8)
    except READ_ERRORS as error:
        raise unreadable(path, error) from error


def whole_json(path: Path) -> Any:
    """The one JSON value of the file. UsageError naming the file when it is none."""
    try:
        with opened(path) as file:
            return json.load(file)
    except READ_ERRORS as error:
        raise unreadable(path, error) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not JSON that can be read: {one_line(error)}") from error


def unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(f"{path} cannot be read: {one_line(error)}")


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
