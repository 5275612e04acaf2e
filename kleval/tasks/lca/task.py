"""The tasks `lca/lib` and `lca/commit`: one call each.

Protocols of lca/lib: `lca-5b1b564` (the official prompt, which shows nothing of the library), `lca-5b1b564-bm25` (with
the 20 names nearest to the instruction), both for the official edition; `kleval-library-1` (the library's code before
the official prompt) for the builtin one. Of lca/commit: `lca-5b1b564` (the detailed prompt), `lca-5b1b564-simple`.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kleval.tasks.base import OneCall
from kleval.tasks.lca import editions, prompts, scoring
from kleval.tasks.likelihood import without
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Prompt, Sample, Score

PROTOCOL = "lca-5b1b564"
BM25 = "lca-5b1b564-bm25"
SIMPLE = "lca-5b1b564-simple"
IN_CONTEXT = "kleval-library-1"


class LibraryTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL, IN_CONTEXT)
    metric = "api_recall"
    official_budget = editions.LIBRARY_BUDGET

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known = (IN_CONTEXT,) if edition == "builtin" else (PROTOCOL, BM25)
        super().__init__("lca/lib", edition, protocol, known, {"budget": editions.LIBRARY_BUDGET})
        self._open = (
            partial(editions.builtin_library, self.version)
            if edition == "builtin"
            else partial(editions.official_library, data_dir, self.protocol == BM25)
        )

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


class CommitTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL, IN_CONTEXT)
    metric = "chrf"
    official_budget = editions.COMMIT_BUDGET

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        super().__init__("lca/commit", edition, protocol, (PROTOCOL, SIMPLE), {"budget": editions.COMMIT_BUDGET})
        self._simple = self.protocol == SIMPLE
        self._open = (
            partial(editions.builtin_commits, self.version, self._simple)
            if edition == "builtin"
            else partial(editions.official_commits, data_dir, self._simple)
        )

    def score(self, sample: Sample, answer: Completion) -> Score:
        return Score(scoring.pair_scores(answer.text, sample.references[0]), extracted=answer.text.strip())

    def question_alone(self, sample: Sample) -> Prompt:
        """The instructions, without the diff."""
        return without(sample.prompt, prompts.commit_text("{diff}", self._simple), "{diff}")

    def _template(self) -> str:
        return f"{prompts.PROMPTS['system']}\n{prompts.commit_text('{diff}', self._simple)}"


lib = LibraryTask
commit = CommitTask
