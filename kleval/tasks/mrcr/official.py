"""openai/mrcr: rows {prompt, answer, random_string_to_prepend, n_needles, desired_msg_index, total_messages, n_chars}.

Two revisions are about. f4c69fa (2025-12-05) has `{n}needle/{n}needle_{0,1}.parquet` and a column `date_added`: about 10 %
of the earlier rows had more answers to the request than they should, 5 % a wrong one, and were replaced. 204b0d4 and
before have `{n}needle.parquet` without that column; no hash of theirs is known, so that they are told by it. Scores on
the two are not comparable. Any other format of the same rows is read too; where both revisions lie in a
folder, the newer one counts.

There is no official generation budget: 2,000 tokens (HELM's; the longest answer has 3,889 characters), and more for an
answer that takes more in the model's tokens.

Official lengths: eight bins of all messages and the answer, in tokens of o200k_base; where that vocabulary is not on this machine the
model's own tokens are counted instead, and nothing is downloaded for it. Only ports of the data card have code for the borders, and
they disagree; here the data card counts: the first bin holds both of its ends, the others their upper one.

Metrics: both are difflib's similarity of the answer with the text that was asked for. Its autojunk stays on and the order of its
arguments as each source has it: both change the ratio of prose longer than 200 characters (0.38 with autojunk off where the official
value is 0.16). Other implementations of the same ratio are not equivalent.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path
from typing import Any

from kleval.files import family_facts
from kleval.tasks import data, datafile, tables
from kleval.tasks.data import Source
from kleval.tasks.plain_editions import Asked, Rows, as_it_is, contents
from kleval.tasks.sized import Question
from kleval.types import Message, Tokenizer, Unfit, UsageError

REVISION = "openai/mrcr f4c69fa (2025-12-05)"
BUDGET, BESIDE = 2000, 16  # tokens of an answer, and those beside one that takes more
_ROLES = ("system", "user", "assistant")
ENCODING = "o200k_base"
EDGES = tuple(4096 << i for i in range(9))
NAMES: tuple[str, ...] = tuple(family_facts("mrcr")["bins"])
OUTSIDE = "outside"
_ADDRESS = f"https://openaipublic.blob.core.windows.net/encodings/{ENCODING}.tiktoken"
GOOGLE_HASH_CHARS = 12
LONGEST_CHARS = 20_000


class Official(Rows):
    """Each row with the official bin that it lies in."""

    def __init__(self, task_id: str, n_needles: int, data_dir: Path | None) -> None:
        source = find(task_id, n_needles, data_dir)
        super().__init__(task_id, source, lambda ctx: read(source, n_needles), BUDGET, BESIDE)

    def _question(self, index: int, asked: Asked, tokenizer: Tokenizer, ctx: int) -> Question | Unfit:
        made = super()._question(index, asked, tokenizer, ctx)
        if isinstance(made, Unfit):
            return made
        used = counter() or tokenizer
        length = sum(map(used.count, (*contents(made.prompt), *made.references)))
        binned = {"bin": bin_of(length), "bin_tokens": length, "bin_tokenizer": used.name}
        return replace(made, meta={**made.meta, **binned})


def find(task_id: str, n_needles: int, data_dir: Path | None) -> Source:
    """The files of that many needles. UsageError naming the command that gets them when there are none."""
    folder = data.data_folder("mrcr", data_dir)
    name = f"{n_needles}needle"
    halves = (f"{name}_0", f"{name}_1")
    for stems in ([f"{name}/{half}" for half in halves], halves, [name], [f"{name}/{name}"]):
        paths = tuple(path for stem in stems if (path := datafile.existing(folder / stem)) is not None)
        if len(paths) == len(stems):
            return _source(paths)
    lacking = next(half for half in halves if datafile.existing(folder / f"{name}/{half}") is None)
    raise data.missing(f"{task_id} (official)", f"{name}/{lacking}.parquet", "mrcr", folder, data_dir)


def _source(paths: tuple[Path, ...]) -> Source:
    hashes = [data.file_sha256(path) for path in paths]
    digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
    if set(hashes) <= set(data.known_revisions("mrcr")):
        return Source(paths, REVISION, digest)
    _, first = next(tables.rows(paths[0]))
    which = "since 2025-12-05 (date_added)" if "date_added" in first else "before 2025-12-05 (no date_added)"
    return Source(paths, f"openai/mrcr {which}, unpinned, sha256:{digest[:16]}", digest)


def read(source: Source, n_needles: int) -> Iterator[Asked]:
    """Rows in the data's order, one at a time. UsageError naming file and row of what is not what it must be."""
    return (_row(where, row, n_needles) for path in source.paths for where, row in tables.rows(path))


def _row(where: str, row: dict[str, Any], n_needles: int) -> Asked:
    messages = _messages(where, tables.value(where, row, "prompt"))
    answer, prefix = (tables.text(where, row, name) for name in ("answer", "random_string_to_prepend"))
    if not prefix:
        raise UsageError(f"{where}: field 'random_string_to_prepend' must not be empty")
    numbers = {name: tables.integer(where, row, name) for name in ("n_needles", "desired_msg_index", "total_messages")}
    if numbers["n_needles"] != n_needles:
        raise UsageError(f"{where}: field 'n_needles' must be {n_needles}, is {numbers['n_needles']}")
    meta = {"prefix": prefix, **numbers, "n_chars": sum(len(message["content"]) for message in messages)}
    if row.get("date_added") is not None:
        meta["date_added"] = str(row["date_added"])
    return Asked(as_it_is(messages), (answer,), meta)


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


def bin_of(tokens: int) -> str:
    """Name of the bin, OUTSIDE where there is none."""
    if not EDGES[0] <= tokens <= EDGES[-1]:
        return OUTSIDE
    return NAMES[max(0, bisect_left(EDGES, tokens) - 1)]


def counter() -> Tokenizer | None:
    """o200k_base when its vocabulary is in tiktoken's cache, else None."""
    file = vocabulary()
    return _load(file) if file is not None else None


def vocabulary() -> Path | None:
    """The file of it in tiktoken's cache, when it is there."""
    given = (os.environ[name] for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR") if name in os.environ)
    folder = next(given, Path(tempfile.gettempdir()) / "data-gym-cache")
    # tiktoken names a cached file by the sha1 of its address; an empty name of a folder is no cache.
    file = Path(folder) / hashlib.sha1(_ADDRESS.encode(), usedforsecurity=False).hexdigest()
    return file if folder and file.is_file() else None


@lru_cache(maxsize=1)
def _load(file: Path) -> Tokenizer | None:
    from kleval.tokenization import load_tokenizer

    try:
        return load_tokenizer(f"tiktoken:{ENCODING}")
    except UsageError:
        return None


def openai_grade(response: str, answer: str, prefix: str) -> float:
    """In [0, 1]. 0 unless the response begins with the prefix, to the character; a leading blank is enough for 0.

    Source: data card of openai/mrcr. Deviation: of a response longer than LONGEST_CHARS, and than twice the answer, only that
    much is matched, so that the time is bounded; its whole length counts.
    """
    if not response.startswith(prefix):
        return 0.0
    found, wanted = response.removeprefix(prefix), answer.removeprefix(prefix)
    return _ratio(found[: _limit(wanted)], wanted, len(found) + len(wanted))


def google_grade(prediction: str, target: str, hash_chars: int = GOOGLE_HASH_CHARS) -> float:
    """In [0, 1]. What follows the last occurrence of the target's hash, wherever that is; white space around texts aside. 0
    where the target is shorter than a hash.

    Source: mrcr_v2_metric of eval_hub. Deviation: as for openai_grade.
    """
    prediction, target = prediction.strip(), target.strip()
    mark, wanted = target[:hash_chars], target[hash_chars:].strip()
    if len(mark) < hash_chars:
        return 0.0
    at = prediction.rfind(mark)
    if at < 0:
        return 0.0
    found = prediction[at + len(mark) :].strip()
    return _ratio(wanted, found[: _limit(wanted)], len(found) + len(wanted))


def _limit(wanted: str) -> int:
    return max(LONGEST_CHARS, 2 * len(wanted))


def _ratio(first: str, second: str, total_chars: int) -> float:
    matched = sum(block.size for block in SequenceMatcher(None, first, second).get_matching_blocks())
    return 2.0 * matched / total_chars if total_chars else 1.0
