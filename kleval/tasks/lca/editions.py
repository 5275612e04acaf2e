"""Sources of Long Code Arena questions, official and builtin, each sized to ctx."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from kleval.tasks import lexicon
from kleval.tasks.base import as_prompt
from kleval.tasks.fitting import Filled, budget_for, fill
from kleval.tasks.lca import commits, dataset, invented, prompts
from kleval.tasks.sized import ALL, BuiltinData, OfficialData, Question, digest_of
from kleval.tokenization import count_given
from kleval.types import Prompt, Tokenizer, Unfit

LIBRARY_BUDGET = 2048
COMMIT_BUDGET = 512
PROBES = 8
_STEPS = ((2048, 3), (4096, 4), (16384, 6), (131072, 8))  # ctx below this -> steps of a library script
_MOST_STEPS = 10
_FILLED = 7 / 8
_WITHOUT_CALLERS = 1024


class _Official(OfficialData):
    def __init__(self, task_id: str, file: str, data_dir: Path | None) -> None:
        self._source = dataset.find(task_id, file, data_dir)
        super().__init__(task_id, self._source.revision, self._source.sha256)

    def _question(
        self,
        index: int,
        prompt: Prompt,
        reference: str,
        budget: int,
        meta: dict[str, Any],
        tokenizer: Tokenizer,
        ctx: int,
    ) -> Question | Unfit:
        tokens = count_given(tokenizer, prompt)
        if tokens + budget > ctx:
            return self._unfit(index, tokens, budget, ctx)
        return Question(index, prompt, (reference,), tokens, budget, meta)


class OfficialLibrary(_Official):
    def __init__(self, data_dir: Path | None, bm25: bool) -> None:
        super().__init__("lca/lib", dataset.LIBRARY_FILE, data_dir)
        self._bm25 = bm25

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        for index, row in enumerate(dataset.read_library(self._source)):
            text = (
                prompts.bm25_prompt(row.instruction, row.names)
                if self._bm25
                else prompts.library_prompt(row.instruction)
            )
            meta = {"repo": row.repository, "apis": list(row.apis), "n_library_names": len(row.names)}
            prompt = as_prompt(tokenizer, text)
            yield self._question(index, prompt, row.reference, LIBRARY_BUDGET, meta, tokenizer, ctx)


class OfficialCommits(_Official):
    def __init__(self, data_dir: Path | None, simple: bool) -> None:
        super().__init__("lca/commit", dataset.COMMIT_FILE, data_dir)
        self._simple = simple

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        for index, row in enumerate(dataset.read_commits(self._source)):
            prompt = _commit_prompt(tokenizer, row.mods, self._simple)
            meta = {"repo": row.repository, "hash": row.hash, "files": len(row.mods)}
            yield self._question(index, prompt, row.message, COMMIT_BUDGET, meta, tokenizer, ctx)


def _commit_prompt(tokenizer: Tokenizer, mods: Sequence[dict[str, Any]], simple: bool) -> Prompt:
    return prompts.commit_prompt(prompts.commit_diff(mods), simple, chat=bool(tokenizer.chat_template_digest))


class _Builtin(BuiltinData):
    def __init__(self, task_id: str, task_version: str, version: str) -> None:
        words = (
            lexicon.NAMES, lexicon.PLACES, lexicon.THINGS, lexicon.ADJECTIVES, lexicon.ABSTRACTS, lexicon.VERBS,
            lexicon.PARAMETERS,
        )  # fmt: skip
        super().__init__(task_id, task_version, f"kleval {version}", digest_of(version, words))

    def _filled(
        self,
        build: Callable[[Sequence[str]], Prompt],
        pieces: Iterator[str],
        tokenizer: Tokenizer,
        ctx: int,
        budget: int,
    ) -> Filled:
        filled = fill(build, pieces, tokenizer, ctx - budget)
        if isinstance(filled, int):
            raise self._too_small(ctx, filled + budget)
        return filled


class BuiltinLibrary(_Builtin):
    def __init__(self, task_version: str) -> None:
        super().__init__("lca/lib", task_version, invented.LIBRARY_VERSION)

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[Question | Unfit]:
        n_steps, budget = self._size(tokenizer, ctx, seed)
        for index in indices:
            yield self._question(index, tokenizer, ctx, seed, n_steps, budget)

    def _assignment(self, ctx: int, seed: int, index: object, n_steps: int) -> invented.Assignment:
        return invented.assignment(self._draws(ctx, seed, index).rng, n_steps)

    def _size(self, tokenizer: Tokenizer, ctx: int, seed: int) -> tuple[int, int]:
        """Steps of a script, and the generation budget: as many of the wanted steps as leave an eighth of ctx to spare."""
        wanted = next((steps for limit, steps in _STEPS if ctx < limit), _MOST_STEPS)
        for n_steps in range(wanted, 0, -1):
            probes = [self._assignment(ctx, seed, f"probe-{i}", n_steps) for i in range(PROBES)]
            budget = budget_for(max(tokenizer.count(probe.reference) for probe in probes))
            bare = max(tokenizer.count(tokenizer.render(_library_prompt(tokenizer, probe, ()))) for probe in probes)
            if bare + budget <= ctx * _FILLED:
                return n_steps, budget
        return 1, budget

    def _question(self, index: int, tokenizer: Tokenizer, ctx: int, seed: int, n_steps: int, budget: int) -> Question:
        made = self._assignment(ctx, seed, index, n_steps)
        budget = max(budget, budget_for(tokenizer.count(made.reference)))

        def build(filler: Sequence[str]) -> Prompt:
            return _library_prompt(tokenizer, made, filler)

        filled = self._filled(build, made.filler, tokenizer, ctx, budget)
        meta = {
            "package": made.package,
            "apis": list(made.apis),
            "modules": list(made.needed),
            "library_functions": filled.n_pieces + n_steps,
        }
        return Question(index, filled.prompt, (made.reference,), filled.tokens, budget, meta)


def in_context(package: str, code: str, instruction: str) -> str:
    """kleval's own form of a library in the context: its files, then the official prompt."""
    return f"The Python library {package}:\n\n{code}\n\n{prompts.library_prompt(instruction)}"


def _library_prompt(tokenizer: Tokenizer, made: invented.Assignment, filler: Sequence[str]) -> Prompt:
    return as_prompt(tokenizer, in_context(made.package, made.text(filler), made.instruction))


class BuiltinCommits(_Builtin):
    def __init__(self, task_version: str, simple: bool) -> None:
        super().__init__("lca/commit", task_version, commits.COMMITS_VERSION)
        self._simple = simple

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[Question | Unfit]:
        probes = [self._commit(ctx, seed, f"probe-{i}") for i in range(4 * PROBES)]
        budget = budget_for(max(tokenizer.count(probe.message) for probe in probes))
        for index in indices:
            yield self._question(index, tokenizer, ctx, seed, budget)

    def _commit(self, ctx: int, seed: int, index: object) -> commits.Commit:
        return commits.commit(self._draws(ctx, seed, index).rng, ctx > _WITHOUT_CALLERS)

    def _question(self, index: int, tokenizer: Tokenizer, ctx: int, seed: int, budget: int) -> Question:
        made = self._commit(ctx, seed, index)
        budget = max(budget, budget_for(tokenizer.count(made.message)))

        def build(records: Sequence[str]) -> Prompt:
            return _commit_prompt(tokenizer, made.all_mods(records), self._simple)

        filled = self._filled(build, made.records, tokenizer, ctx, budget)
        meta = {
            "repo": made.project,
            "kind": made.kind,
            "files": len(made.mods) + filled.n_pieces,
            "files_of_the_change": len(made.mods),
        }
        return Question(index, filled.prompt, (made.message,), filled.tokens, budget, meta)
