"""The task `repoqa/snf` (Search Needle Function): one call, scored by which needle the answer is most like.

Protocols. `repoqa-ae876de`: the official prompt and scorer, the code budget being what ctx leaves.
`repoqa-ae876de-16384`: the official default code budget whatever ctx is (official edition only).
`repoqa-ae876de-ignore-comments`: as the first, comments taken out of answer and needles before they are compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast

from kleval.tasks.base import OneCall
from kleval.tasks.languages import LANGUAGES
from kleval.tasks.likelihood import without
from kleval.tasks.repoqa import scoring
from kleval.tasks.repoqa.questions import OFFICIAL_BUDGET, Builtin, Edition, Official, prompt_text
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Prompt, Sample, Score

PROTOCOL = "repoqa-ae876de"
FIXED_SIZE = "repoqa-ae876de-16384"
IGNORE_COMMENTS = "repoqa-ae876de-ignore-comments"
CODE_CONTEXT_SIZE = 16384


class RepoQaTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = f"pass@{scoring.HEADLINE}"
    official_budget = OFFICIAL_BUDGET

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known = (PROTOCOL, IGNORE_COMMENTS) if edition == "builtin" else (PROTOCOL, FIXED_SIZE, IGNORE_COMMENTS)
        values = {"threshold": scoring.HEADLINE, "budget": OFFICIAL_BUDGET, "code_context_size": CODE_CONTEXT_SIZE}
        super().__init__("repoqa/snf", edition, protocol, known, values)
        self._open = (
            partial(Builtin, self.id, self.version)
            if edition == "builtin"
            else partial(Official, self.id, data_dir, CODE_CONTEXT_SIZE if self.protocol == FIXED_SIZE else None)
        )

    def score(self, sample: Sample, answer: Completion) -> Score:
        meta = sample.meta
        language = meta["language"]
        verdict = scoring.judge(
            answer.text,
            meta["name"],
            cast(Edition, self._made).candidates(meta),
            language,
            ignore_comments=self.protocol == IGNORE_COMMENTS,
        )
        metrics = {f"pass@{t}": float(verdict.passes(t)) for t in scoring.THRESHOLDS}
        # A BLEU of a copy may come out an ulp above 1.
        metrics["similarity"] = min(1.0, verdict.similarity) if verdict.found else 0.0
        if self.edition == "official":
            metrics[f"{self.metric} {language}"] = metrics[self.metric]
        return Score(metrics, extracted={"best": verdict.best, "similarity": verdict.similarity})

    def question_alone(self, sample: Sample) -> Prompt:
        """Without the code: the function's description and the instruction."""
        return without(sample.prompt, self._template(), "{code}")

    def _template(self) -> str:
        return prompt_text("{code}", "{description}")

    def _facts(self) -> Mapping[str, Any]:
        return {"languages": list(LANGUAGES) if self.edition == "official" else ["python"]}


snf = RepoQaTask
