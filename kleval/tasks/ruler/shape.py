"""Official files in JSON, and whether they have the official shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from kleval.tasks import datafile
from kleval.tasks.tables import is_unicode
from kleval.types import UsageError

T = TypeVar("T")


def official_json(file: Path, read: Callable[[Any], T]) -> T:
    """What `read` makes of an official file. UsageError where it raises one of the errors that another shape leads to."""
    try:
        return read(datafile.whole_json(file))
    except (UsageError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file} does not have the shape of the official file ({error!r})") from error


def checked(texts: Iterable[Any], what: str = "it") -> list[str]:
    """The texts. ValueError where there are none, one is something else, or holds half of a surrogate pair."""
    found = list(texts)
    if not all(isinstance(text, str) and is_unicode(text) for text in found) or not "".join(found).strip():
        raise ValueError(f"{what} lacks a text")
    return found
