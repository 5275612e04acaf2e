"""Sources of Long Code Arena questions, each sized to ctx: the official rows, and what kleval invents.

No hash of the published files is known here, so that a download cannot be checked against one: every row's fields are
checked instead, and the file's own hash is the data digest of every result.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path

from kleval.tasks import data, lexicon, tables
from kleval.tasks.fitting import budget_for, fill
from kleval.tasks.lca import commits, library, prompts
from kleval.tasks.plain_editions import Asked, Rows, as_it_is
from kleval.tasks.sized import ALL, BuiltinData, Question, digest_of
from kleval.types import Tokenizer, Unfit, UsageError

LIBRARY_FILE = "lca-library-based-code-generation.parquet"
COMMIT_FILE = "lca-commit-message-generation.parquet"
LIBRARY_BUDGET, COMMIT_BUDGET = 2048, 512
PROBES = 8
_CHANGES = (*prompts.PROMPTS["headings"], prompts.UNKNOWN)
_STEPS = ((2048, 3), (4096, 4), (16384, 6), (131072, 8))  # ctx below this -> steps of a library script
_MOST_STEPS = 10
_FILLED = 7 / 8
_WITHOUT_CALLERS = 1024
_WORDS = (
    lexicon.NAMES, lexicon.PLACES, lexicon.THINGS, lexicon.ADJECTIVES, lexicon.ABSTRACTS, lexicon.VERBS, lexicon.PARAMETERS,
)  # fmt: skip


def official_library(data_dir: Path | None, bm25: bool) -> Rows:
    return _rows("lca/lib", LIBRARY_FILE, data_dir, partial(_instructions, bm25), LIBRARY_BUDGET)


def official_commits(data_dir: Path | None, simple: bool) -> Rows:
    return _rows("lca/commit", COMMIT_FILE, data_dir, partial(_commits, simple), COMMIT_BUDGET)


def _rows(task_id: str, file: str, data_dir: Path | None, read: Callable[[Path], Iterable[Asked]], budget: int) -> Rows:
    found = data.need("lca", file, f"{task_id} (official)", data_dir)
    source = data.Source((found.path,), f"unpinned {found.path.name} sha256:{found.sha256[:16]}", found.sha256)
    rows = cache(lambda: tuple(read(found.path)))
    return Rows(task_id, source, lambda ctx: rows(), budget)


def _instructions(bm25: bool, path: Path) -> Iterator[Asked]:
    for where, row in tables.rows(path):
        instruction, reference = (tables.text(where, row, name) for name in ("instruction", "clean_reference"))
        apis, names = (tables.texts(where, row, name) for name in ("unique_apis", "project_defined_elements"))
        text = prompts.bm25_prompt(instruction, names) if bm25 else prompts.library_prompt(instruction)
        repository = str(row.get("repo_full_name") or row.get("repo_name") or "")
        meta = {"repo": repository, "apis": list(apis), "n_library_names": len(names)}
        yield Asked(as_it_is(text), (reference,), meta)


def _commits(simple: bool, path: Path) -> Iterator[Asked]:
    for where, row in tables.rows(path):
        mods = tables.value(where, row, "mods")
        if not isinstance(mods, list):
            raise UsageError(f"{where}: field 'mods' must be a list")
        for i, mod in enumerate(mods):
            _check(f"{where} mod {i}", mod)
        repository, name, message = (tables.text(where, row, field) for field in ("repo", "hash", "message"))
        text = prompts.commit_text(prompts.commit_diff(mods), simple)
        yield commits.Diff(as_it_is(text), (message,), {"repo": repository, "hash": name, "files": len(mods)})


def _check(where: str, mod: object) -> None:
    """UsageError where it is no file of a commit."""
    if (kind := tables.text(where, mod, "change_type")) not in _CHANGES:
        raise UsageError(f"{where}: change_type {kind!r} is none of {', '.join(_CHANGES)}")
    tables.text(where, mod, "diff")
    for name in ("old_path", "new_path"):
        found = tables.value(where, mod, name)
        if not isinstance(found, str | None) or not tables.is_unicode(found or ""):
            raise UsageError(f"{where}: field {name!r} must be a text or null")


class Builtin(BuiltinData):
    """make: a question out of random numbers of its own, of a size. sizes: of ctx, the wanted one first; the first is taken that
    leaves an eighth of ctx to spare, else the last. counted: what of meta the pieces that fill it are added to."""

    def __init__(
        self,
        task_id: str,
        task_version: str,
        version: str,
        make: Callable[[random.Random, int], Asked],
        sizes: Callable[[int], Sequence[int]],
        n_probes: int,
        counted: str,
    ) -> None:
        super().__init__(task_id, task_version, f"kleval {version}", digest_of(version, _WORDS))
        self._make, self._sizes, self._n_probes, self._counted = make, sizes, n_probes, counted

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[Question | Unfit]:
        for size in self._sizes(ctx):
            probes = [self._make(self._draws(ctx, seed, f"probe-{i}").rng, size) for i in range(self._n_probes)]
            budget = budget_for(max(tokenizer.count(probe.references[0]) for probe in probes))
            bare = max(tokenizer.count(tokenizer.render(probe.prompt(tokenizer))) for probe in probes)
            if bare + budget <= ctx * _FILLED:
                break
        for index in indices:
            asked = self._make(self._draws(ctx, seed, index).rng, size)
            own = max(budget, budget_for(tokenizer.count(asked.references[0])))
            filled = fill(partial(asked.prompt, tokenizer), asked.pieces, tokenizer, ctx - own)
            if isinstance(filled, int):
                raise self._too_small(ctx, filled + own)
            meta = {**asked.meta, self._counted: asked.meta[self._counted] + filled.n_pieces}
            yield Question(index, filled.prompt, asked.references, filled.tokens, own, meta)


def builtin_library(task_version: str) -> Builtin:
    def sizes(ctx: int) -> Sequence[int]:
        return range(next((steps for limit, steps in _STEPS if ctx < limit), _MOST_STEPS), 0, -1)

    make, counted = library.assignment, "library_functions"
    return Builtin("lca/lib", task_version, library.VERSION, make, sizes, PROBES, counted)


def builtin_commits(task_version: str, simple: bool) -> Builtin:
    def make(rng: random.Random, with_callers: int) -> Asked:
        return commits.commit(rng, bool(with_callers), simple)

    def sizes(ctx: int) -> Sequence[int]:
        return (ctx > _WITHOUT_CALLERS,)

    return Builtin("lca/commit", task_version, commits.VERSION, make, sizes, 4 * PROBES, "files")
