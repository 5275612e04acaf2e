"""RepoQA's data: repositories in five languages, ten needles each, and a description of every needle.

`repoqa-2024-06-23.json.gz` of evalplus/repoqa_release, or the same unpacked (`.json`). Its shape: language -> list of
{repo, content: path -> text, dependency: path -> paths, needles: [{name, path, start_line, end_line, start_byte,
end_byte, description}], ...}, lines and bytes counted from 0, ends exclusive. The file also holds Go, which the
official prompt builder has no comment sign for; it is left out here, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile, tables
from kleval.tasks.data import Source
from kleval.tasks.languages import LANGUAGES
from kleval.tasks.repoqa.context import Asked, Needle, dependency_order
from kleval.types import UsageError

FILE = "repoqa-2024-06-23.json.gz"


def find(task_id: str, data_dir: Path | None) -> Source:
    """The data's file, packed or unpacked; its revision says "unrecognised" where the content is not a known one. UsageError
    naming the command that gets it when there is none."""
    status = data.need("repoqa", FILE, f"{task_id} (official)", data_dir)
    revision = status.revision or f"unrecognised {status.path.name} sha256:{status.sha256}"
    return Source((status.path,), revision, status.sha256)


@lru_cache(maxsize=1)
def read(source: Source) -> tuple[Asked, ...]:
    """Needles in the file's order. UsageError naming the place that is not what it must be."""
    file = source.path
    try:
        parsed = datafile.whole_json(file)
    except UsageError as error:
        raise UsageError(f"{file} cannot be read as JSON ({error}); `kleval data fetch repoqa` gets it anew") from error
    if not isinstance(parsed, dict) or not any(language in parsed for language in LANGUAGES):
        raise UsageError(f"{file} does not have the shape of RepoQA's data: {{language: [repositories]}}")
    found = list[Asked]()
    for language in (name for name in parsed if name in LANGUAGES):
        if not isinstance(parsed[language], list):
            raise UsageError(f"{file}: {language} is not a list of repositories")
        for i, repository in enumerate(parsed[language]):
            found += _asked(f"{file}: {language} repository {i}", language, repository)
    if not found:
        raise UsageError(f"{file}: no repository in it has needles")
    return tuple(found)


def _asked(where: str, language: str, raw: Any) -> list[Asked]:
    """A repository's needles, none where it has none, which the official code passes over."""
    name = tables.text(where, raw, "repo")
    where = f"{where} ({name})"
    needles = raw.get("needles", [])
    if not isinstance(needles, list):
        raise UsageError(f"{where}: field 'needles' must be a list")
    if not needles:
        return []
    content, dependency = (_mapping(where, raw, field) for field in ("content", "dependency"))
    for path in content:
        tables.text(f"{where} content", content, path)
    order = dependency_order({path: tables.texts(f"{where} dependency", dependency, path) for path in dependency})
    lost = next((path for path in order if path not in content), None)
    if lost is not None:
        raise UsageError(f"{where}: dependency names {lost!r}, which content does not have")
    made = [_needle(f"{where} needle {i}", one, content, order) for i, one in enumerate(needles)]
    return [Asked(language, name, one, content, order, (i + 0.5) / len(made)) for i, one in enumerate(made)]


def _mapping(where: str, raw: Any, name: str) -> Mapping[str, Any]:
    found = tables.value(where, raw, name)
    if not isinstance(found, dict) or not all(map(tables.is_unicode, found)):
        raise UsageError(f"{where}: field {name!r} must map paths")
    return found


def _needle(where: str, raw: Any, content: Mapping[str, str], order: Sequence[str]) -> Needle:
    name, path, description = (tables.text(where, raw, field) for field in ("name", "path", "description"))
    if path not in order:
        raise UsageError(f"{where}: path {path!r} is not among the repository's files")
    lines = content[path].split("\n")
    start, end = _span(where, raw, "line", len(lines), path)
    start_byte, end_byte = _span(where, raw, "byte", len(content[path].encode()), path)
    return Needle(name, path, description, start_byte, end_byte, "\n".join(lines[start:end]))


def _span(where: str, raw: Any, unit: str, size: int, path: str) -> tuple[int, int]:
    start, end = (tables.integer(where, raw, f"{side}_{unit}") for side in ("start", "end"))
    if not 0 <= start < end <= size:
        raise UsageError(f"{where}: {unit}s {start} to {end} are not in {path}")
    return start, end
