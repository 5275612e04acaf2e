"""RepoQA's data: repositories in five languages, ten needles each, and a description of every needle.

`repoqa-2024-06-23.json.gz` of evalplus/repoqa_release, or the same unpacked (`.json`). Its shape: language -> list of
{repo, content: path -> text, dependency: path -> paths, needles: [{name, path, start_line, end_line, start_byte,
end_byte, description}], ...}, lines and bytes counted from 0, ends exclusive. The file also holds Go, which the
official prompt builder has no comment sign for; it is left out here, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile
from kleval.tasks.data import Source
from kleval.tasks.languages import LANGUAGES
from kleval.tasks.repoqa.context import Needle, dependency_order
from kleval.tasks.tables import is_unicode, whole_number
from kleval.types import UsageError

FILE = "repoqa-2024-06-23.json.gz"
REVISION = "repoqa_release-2024-06-23"
_UNPACKED_SHA256 = "bd3f7cab47283cdeccee20daea31af587b680cf8f9db192ab4da1037730cd6e2"
_NEEDLE_FIELDS: tuple[tuple[str, type], ...] = (
    ("name", str),
    ("path", str),
    ("description", str),
    ("start_line", int),
    ("end_line", int),
    ("start_byte", int),
    ("end_byte", int),
)


@dataclass(frozen=True, slots=True)
class Repository:
    """order: its files, dependencies first."""

    language: str
    name: str
    order: tuple[str, ...]
    content: Mapping[str, str] = field(repr=False)
    needles: tuple[Needle, ...] = field(repr=False)


def find(task_id: str, data_dir: Path | None) -> Source:
    """The data's file, packed or unpacked; its revision says "unrecognised" where the content is not a known one. UsageError
    naming the command that gets it when there is none."""
    status = data.need("repoqa", FILE, f"{task_id} (official)", data_dir)
    known = REVISION if status.sha256 == _UNPACKED_SHA256 else status.revision
    revision = known or f"unrecognised {status.path.name} sha256:{status.sha256}"
    return Source((status.path,), revision, status.sha256)


@lru_cache(maxsize=1)
def read(source: Source) -> tuple[Repository, ...]:
    """Repositories with needles, in the file's order. UsageError naming the place that is not what it must be."""
    file = source.path
    try:
        parsed = datafile.whole_json(file)
    except UsageError as error:
        raise UsageError(f"{file} cannot be read as JSON ({error}); `kleval data fetch repoqa` gets it anew") from error
    if not isinstance(parsed, dict) or not any(language in parsed for language in LANGUAGES):
        raise UsageError(f"{file} does not have the shape of RepoQA's data: {{language: [repositories]}}")
    found = []
    for language, repositories in parsed.items():
        if language not in LANGUAGES:
            continue
        if not isinstance(repositories, list):
            raise UsageError(f"{file}: {language} is not a list of repositories")
        for i, repository in enumerate(repositories):
            where = f"{file}: {language} repository {i}"
            made = _repository(where, language, repository)
            if made is not None:
                found.append(made)
    if not found:
        raise UsageError(f"{file}: no repository in it has needles")
    return tuple(found)


def _repository(where: str, language: str, raw: Any) -> Repository | None:
    name = _field(where, raw, "repo", str)
    where = f"{where} ({name})"
    content = _field(where, raw, "content", dict)
    dependency = _field(where, raw, "dependency", dict)
    if not all(isinstance(text, str) and is_unicode(text) for item in content.items() for text in item):
        raise UsageError(f"{where}: content must map paths to texts")
    if not all(
        isinstance(paths, list) and all(isinstance(path, str) for path in paths) for paths in dependency.values()
    ):
        raise UsageError(f"{where}: dependency must map paths to lists of paths")
    if "needles" not in raw:
        return None  # as the official code does
    order = tuple(dependency_order(dependency))
    lost = next((path for path in order if path not in content), None)
    if lost is not None:
        raise UsageError(f"{where}: dependency names {lost!r}, which content does not have")
    needles = []
    for i, needle in enumerate(_field(where, raw, "needles", list)):
        needles.append(_needle(f"{where} needle {i}", needle, content, order))
    return Repository(language, name, order, content, tuple(needles))


def _needle(where: str, raw: Any, content: Mapping[str, str], order: tuple[str, ...]) -> Needle:
    values = {name: _field(where, raw, name, kind) for name, kind in _NEEDLE_FIELDS}
    path = values["path"]
    if path not in content or path not in order:
        raise UsageError(f"{where}: path {path!r} is not among the repository's files")
    lines = content[path].split("\n")
    size = len(content[path].encode("utf-8", "surrogatepass"))
    if not (0 <= values["start_line"] < values["end_line"] <= len(lines)):
        raise UsageError(f"{where}: lines {values['start_line']} to {values['end_line']} are not in {path}")
    if not (0 <= values["start_byte"] < values["end_byte"] <= size):
        raise UsageError(f"{where}: bytes {values['start_byte']} to {values['end_byte']} are not in {path}")
    code = "\n".join(lines[values["start_line"] : values["end_line"]])
    return Needle(values["name"], path, values["description"], values["start_byte"], values["end_byte"], code)


def _field(where: str, raw: Any, name: str, kind: type) -> Any:
    if not isinstance(raw, dict) or name not in raw:
        raise UsageError(f"{where}: field {name!r} is missing")
    if kind is int and isinstance(raw[name], float) and (number := whole_number(raw[name])) is not None:
        return number
    if not isinstance(raw[name], kind) or isinstance(raw[name], bool):
        raise UsageError(f"{where}: field {name!r} must be {kind.__name__}, is {type(raw[name]).__name__}")
    if kind is str and not is_unicode(raw[name]):
        raise UsageError(f"{where}: field {name!r} holds half of a surrogate pair, which no tokenizer reads")
    return raw[name]
