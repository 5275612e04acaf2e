"""The task `repoqa/snf` (Search Needle Function): one call, scored by which needle the answer is most like.

Protocols. `repoqa-ae876de`: the official prompt and scorer, the code budget being what ctx leaves.
`repoqa-ae876de-16384`: the official default code budget whatever ctx is (official edition only).
`repoqa-ae876de-ignore-comments`: as the first, comments taken out of answer and needles before they are compared.
"""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, cast

from kleval.tasks.base import OneCall
from kleval.tasks.languages import LANGUAGES
from kleval.tasks.registry import check_protocol
from kleval.tasks.repoqa import scoring
from kleval.tasks.repoqa.questions import OFFICIAL_BUDGET, Builtin, Edition, Official, Question, prompt_text
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Sample, Score

VERSION = "1"
PROTOCOL = "repoqa-ae876de"
FIXED_SIZE = "repoqa-ae876de-16384"
IGNORE_COMMENTS = "repoqa-ae876de-ignore-comments"
CODE_CONTEXT_SIZE = 16384
_SOURCE = "evalplus/repoqa @ ae876de (Apache-2.0), arXiv 2406.06025; data evalplus/repoqa_release 2024-06-23"


class RepoQaTask(OneCall, SizedTask):
    version = VERSION
    own_protocols = (PROTOCOL,)

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        self.id = "repoqa/snf"
        self.metric = f"pass@{scoring.HEADLINE}"
        self.edition = edition
        known = (PROTOCOL, IGNORE_COMMENTS) if edition == "builtin" else (PROTOCOL, FIXED_SIZE, IGNORE_COMMENTS)
        self.protocol = check_protocol(self.id, protocol, known)
        self.description = "repeat the function that a description describes, out of a repository's code"
        self._open = (
            partial(Builtin, self.id, VERSION)
            if edition == "builtin"
            else partial(Official, self.id, data_dir, CODE_CONTEXT_SIZE if self.protocol == FIXED_SIZE else None)
        )
        self.deviations = _DEVIATIONS + (_BUILTIN_DEVIATIONS if edition == "builtin" else ())

    def score(self, sample: Sample, answer: Completion) -> Score:
        meta = dict(sample.meta)
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

    def card(self) -> dict[str, Any]:
        """What the task is and where it comes from; JSON values."""
        official = self.edition == "official"
        return {
            **self.facts(_SOURCE),
            "prompt_sha256": hashlib.sha256(prompt_text("{code}", "{description}").encode()).hexdigest(),
            "metric": (
                f"{self.metric}: the needle most like the answer is the one asked for, and BLEU with it is at least"
                f" {scoring.HEADLINE}; also at 0.0 to 1.0 in tenths, and the similarity (0 where another needle is"
                " more like)" + ("; by language" if official else "")
            ),
            "max_new_tokens": OFFICIAL_BUDGET if official else "longest reference x 1.5 + 16",
            "limits": (
                f"temperature 0, {OFFICIAL_BUDGET} new tokens; code budget: "
                + (f"{CODE_CONTEXT_SIZE} tokens" if self.protocol == FIXED_SIZE else "what ctx leaves")
                if official
                else "needle and description at most an eighth of ctx each; code budget: what ctx leaves"
            ),
            "languages": list(LANGUAGES) if official else ["python"],
            "deviations": list(self.deviations),
            "defects": list(_DEFECTS),
            "unknown": "the Kimi Linear paper states neither its code budget nor its threshold",
        }

    def _sample(self, question: Question, ctx: int, seed: int) -> Sample:
        return Sample(
            id=self.sample_id(question.index, ctx, seed),
            task=self.id,
            ctx=ctx,
            index=question.index,
            prompt=question.prompt,
            references=(question.code,),
            max_new_tokens=question.budget,
            prompt_tokens=question.tokens,
            meta=question.meta,
        )


snf = RepoQaTask

_DEVIATIONS = (
    "code is counted in tokens of the model under test; the official script counts with CodeLlama-7b-Instruct's",
    "the code budget is what ctx leaves, corrected by the whole prompt's count; the official default is 16,384, which"
    f" {FIXED_SIZE} keeps",
    "no stop string: the official one is whatever a chat template puts behind an answer, and a chat model's own end"
    " token does the same",
    "tree-sitter >= 0.25 with current grammars: the same functions in all outputs that the official code was run on;"
    " without comments, code that does not parse may be repaired differently (1 of 106 outputs)",
    "of an answer longer than 32,768 bytes, functions and comments are looked for in the first 32,768",
)
_BUILTIN_DEVIATIONS = (
    "the repository is this Python's standard library without docstrings; the descriptions are the docstrings (official"
    " descriptions were written by a model)",
    "one language; files come in an order of their own per sample, not by dependency",
    "the nine other needles are functions of the same context as far as it has them; the official ones are the"
    " repository's, in the context or not",
    "a needle is cut out from the beginning of its line",
)
_DEFECTS = (
    "byte offsets taken as character offsets: characters outside ASCII before a needle shift what is cut out. Fixed;"
    " rows where it matters say official_offset_defect",
    "an indented needle leaves its indentation as a line of its own. Kept (official edition)",
    "the code may exceed its budget when the needle is wanted near the beginning. Kept, and ctx is never exceeded: the"
    " budget is lowered until all fits",
    "only the needles of the repository are compared with, told apart by name: a copy of a similar function that is no"
    " needle may pass. Kept",
    "a code fence whose tag is no word (c++) is not recognised and the whole answer is compared. Kept",
    "the data hold a sixth language, Go, which the official prompt builder cannot handle. Left out, as in the paper",
)
