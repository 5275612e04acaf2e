"""The tasks `lca/lib` and `lca/commit`: one call each.

Protocols of lca/lib: `lca-5b1b564` (the official prompt, which shows nothing of the library), `lca-5b1b564-bm25` (with
the 20 names nearest to the instruction), both for the official edition; `kleval-library-1` (the library's code before
the official prompt) for the builtin one. Of lca/commit: `lca-5b1b564` (the detailed prompt), `lca-5b1b564-simple`.

No hash of the published files is known here, so that a download cannot be checked against one: every row's fields are
checked instead, and the file's own hash is the data digest of every result.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any

from kleval.tasks import data, lexicon, tables
from kleval.tasks.base import OneCall
from kleval.tasks.fitting import fill
from kleval.tasks.lca import commits, library, prompts, scoring
from kleval.tasks.likelihood import without
from kleval.tasks.plain_editions import Asked, MadeToSize, Rows, as_it_is
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Prompt, Sample, Score, Tokenizer, UsageError

PROTOCOL = "lca-5b1b564"
BM25 = "lca-5b1b564-bm25"
SIMPLE = "lca-5b1b564-simple"
IN_CONTEXT = "kleval-library-1"
_CHANGES = (*prompts.PROMPTS["headings"], prompts.UNKNOWN)
_STEPS = ((2048, 3), (4096, 4), (16384, 6), (131072, 8))  # ctx below this -> steps of a library script
_MOST_STEPS = 10
_FILLED = 7 / 8
_WITHOUT_CALLERS = 1024
_WORDS = (
    lexicon.NAMES, lexicon.PLACES, lexicon.THINGS, lexicon.ADJECTIVES, lexicon.ABSTRACTS, lexicon.VERBS, lexicon.PARAMETERS,
)  # fmt: skip


class LcaTask(OneCall, SizedTask):
    """What both tasks are. file: of the official rows. generator: version of what makes the builtin ones; n_probes: how many budgets
    are of."""

    version = "1"
    own_protocols = (PROTOCOL, IN_CONTEXT)
    file: str
    generator: str
    n_probes: int
    official_budget: int

    def __init__(
        self, task_id: str, known: Sequence[str], edition: str, protocol: str | None, data_dir: Path | None
    ) -> None:
        super().__init__(task_id, edition, protocol, known, {"budget": self.official_budget})
        self._open = self._builtin if edition == "builtin" else partial(self._official, data_dir)

    def _official(self, data_dir: Path | None) -> Rows:
        found = data.need("lca", self.file, f"{self.id} (official)", data_dir)
        source = data.Source((found.path,), f"unpinned {found.path.name} sha256:{found.sha256[:16]}", found.sha256)
        return Rows(self.id, source, lambda ctx: starmap(self._row, tables.rows(found.path)), self.official_budget)

    @abstractmethod
    def _row(self, where: str, row: dict[str, Any]) -> Asked:
        """An official row. UsageError where it is not what it must be."""

    def _builtin(self) -> MadeToSize:
        how = partial(MadeToSize, sizes=self._sizes, n_probes=self.n_probes, share=_FILLED, fill=fill)
        return how(self.id, self.version, self._make, self.generator, _WORDS)

    @abstractmethod
    def _make(self, rng: random.Random, size: int) -> Asked:
        """A builtin question."""

    @abstractmethod
    def _sizes(self, tokenizer: Tokenizer, ctx: int) -> Sequence[int]:
        """Of a question at that ctx, the wanted one first."""


class LibraryTask(LcaTask):
    metric = "api_recall"
    file = "lca-library-based-code-generation.parquet"
    generator, n_probes = library.VERSION, 8
    official_budget = 2048

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known = (IN_CONTEXT,) if edition == "builtin" else (PROTOCOL, BM25)
        super().__init__("lca/lib", known, edition, protocol, data_dir)

    def _row(self, where: str, row: dict[str, Any]) -> Asked:
        instruction, reference = (tables.text(where, row, name) for name in ("instruction", "clean_reference"))
        apis, names = (tables.texts(where, row, name) for name in ("unique_apis", "project_defined_elements"))
        bm25 = self.protocol == BM25
        text = prompts.bm25_prompt(instruction, names) if bm25 else prompts.library_prompt(instruction)
        repository = str(row.get("repo_full_name") or row.get("repo_name") or "")
        meta = {"repo": repository, "apis": list(apis), "n_library_names": len(names)}
        return Asked(as_it_is(text), (reference,), meta)

    def _make(self, rng: random.Random, size: int) -> Asked:
        return library.assignment(rng, size)

    def _sizes(self, tokenizer: Tokenizer, ctx: int) -> Sequence[int]:
        return range(next((steps for limit, steps in _STEPS if ctx < limit), _MOST_STEPS), 0, -1)

    def score(self, sample: Sample, answer: Completion) -> Score:
        code, apis = scoring.extract_code(answer.text), sample.meta["apis"]
        metrics = {"api_recall": scoring.api_recall(code, apis), "chrf": scoring.chrf(code, sample.references[0])}
        return Score(metrics, extracted=sorted(scoring.called_names(code) & set(apis)))

    def question_alone(self, sample: Sample) -> Prompt:
        """The instruction, without the library. ValueError for the official prompt, which shows nothing of it."""
        if self.protocol == PROTOCOL:
            raise ValueError("its official prompt has no context")
        if self.protocol == BM25:
            return without(sample.prompt, prompts.PROMPTS["help"] + "{names}", "{names}", demonstrated=True)
        return without(sample.prompt, self._template(), "{code}")

    def _template(self) -> str:
        if self.edition == "official":
            return prompts.library_prompt("{instruction}")
        return prompts.in_context("{package}", "{code}", "{instruction}")


class CommitTask(LcaTask):
    metric = "chrf"
    file = "lca-commit-message-generation.parquet"
    generator, n_probes = commits.VERSION, 32
    official_budget = 512

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        super().__init__("lca/commit", (PROTOCOL, SIMPLE), edition, protocol, data_dir)
        self._simple = self.protocol == SIMPLE

    def _row(self, where: str, row: dict[str, Any]) -> Asked:
        mods = tables.value(where, row, "mods")
        if not isinstance(mods, list):
            raise UsageError(f"{where}: field 'mods' must be a list")
        for i, mod in enumerate(mods):
            _check(f"{where} mod {i}", mod)
        repository, name, message = (tables.text(where, row, field) for field in ("repo", "hash", "message"))
        text = prompts.commit_text(prompts.commit_diff(mods), self._simple)
        return commits.Diff(as_it_is(text), (message,), {"repo": repository, "hash": name, "files": len(mods)})

    def _make(self, rng: random.Random, size: int) -> Asked:
        return commits.commit(rng, bool(size), self._simple)

    def _sizes(self, tokenizer: Tokenizer, ctx: int) -> Sequence[int]:
        """Whether callers follow the change."""
        return (ctx > _WITHOUT_CALLERS,)

    def score(self, sample: Sample, answer: Completion) -> Score:
        return Score(scoring.pair_scores(answer.text, sample.references[0]), extracted=answer.text.strip())

    def question_alone(self, sample: Sample) -> Prompt:
        """The instructions, without the diff."""
        return without(sample.prompt, prompts.commit_text("{diff}", self._simple), "{diff}")

    def _template(self) -> str:
        return f"{prompts.PROMPTS['system']}\n{prompts.commit_text('{diff}', self._simple)}"


def _check(where: str, mod: object) -> None:
    """UsageError where it is no file of a commit."""
    if (kind := tables.text(where, mod, "change_type")) not in _CHANGES:
        raise UsageError(f"{where}: change_type {kind!r} is none of {', '.join(_CHANGES)}")
    tables.text(where, mod, "diff")
    for name in ("old_path", "new_path"):
        found = tables.value(where, mod, name)
        if not isinstance(found, str | None) or not tables.is_unicode(found or ""):
            raise UsageError(f"{where}: field {name!r} must be a text or null")


lib = LibraryTask
commit = CommitTask
