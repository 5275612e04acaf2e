"""The tasks `mrcr/2needle`, `mrcr/4needle` and `mrcr/8needle`: one call each, messages sent as messages.

Protocols: `openai` (the grader of openai/mrcr's data card) and `google-v2` (the metric of Google DeepMind's MRCR v2 on the
same conversations; that project's own data are another set).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks.base import OneCall
from kleval.tasks.mrcr import bins, grading
from kleval.tasks.mrcr.editions import OFFICIAL_BUDGET, Builtin, Official, Question
from kleval.tasks.registry import check_protocol
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Sample, Score

VERSION = "1"
PROTOCOL = "openai"
GOOGLE = "google-v2"
_SOURCE = "openai/mrcr on the Hugging Face hub (MIT), grader as on its data card"
_QUESTION = (
    "Prepend {hash} to the {n-th} (1 indexed) {kind} about {topic}. Do not include any other text in your response."
)


class MrcrTask(OneCall, SizedTask):
    version = VERSION
    own_protocols = (PROTOCOL,)

    def __init__(self, n_needles: int, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        self.id = f"mrcr/{n_needles}needle"
        self.metric = "match"
        self.edition = edition
        self.protocol = check_protocol(self.id, protocol, (PROTOCOL, GOOGLE))
        self.description = f"repeat one of the {n_needles} answers to one and the same request in a conversation"
        self._open = (
            partial(Builtin, self.id, VERSION, n_needles)
            if edition == "builtin"
            else partial(Official, self.id, n_needles, data_dir)
        )
        self.deviations = _deviations(edition, self.protocol)
        # Bins are counted with it where it is there.
        self.also_reads = bins.ENCODING if edition == "official" and bins.vocabulary() is not None else ""

    def score(self, sample: Sample, answer: Completion) -> Score:
        """match: the similarity. prefix: whether the random string was there, where the protocol wants it."""
        prefix, reference = sample.meta["prefix"], sample.references[0]
        if self.protocol == PROTOCOL:
            match = grading.openai_grade(answer.text, reference, prefix)
            there = answer.text.startswith(prefix)
        else:
            match = grading.google_grade(answer.text, reference, len(prefix))
            there = prefix in answer.text
        metrics = {"match": match, "prefix": float(there)}
        if "bin" in sample.meta:
            metrics[f"match {sample.meta['bin']}"] = match
        return Score(metrics, extracted={"prefix": there})

    def card(self) -> dict[str, Any]:
        """What the task is and where it comes from; JSON values."""
        official = self.edition == "official"
        return {
            **self.facts(_SOURCE),
            "prompt_sha256": hashlib.sha256(_QUESTION.encode()).hexdigest(),
            "metric": _METRICS[self.protocol] + ("; by official bin" if official else ""),
            "max_new_tokens": f"{OFFICIAL_BUDGET}, more where the answer takes more"
            if official
            else "longest reference x 1.5 + 16",
            "limits": (
                "no official temperature or budget; rows in the data's order as far as they fit into ctx, so that a"
                f" result at a ctx mixes all bins below it: see `match {bins.NAMES[0]}` and so on"
                if official
                else "texts of up to about 1,500 characters, shorter where ctx is short"
            ),
            "bins": f"tokens of {bins.ENCODING} where its vocabulary is at hand, else the model's own; a row's"
            " bin_tokenizer says which",
            "deviations": list(self.deviations),
            "defects": list(_DEFECTS),
            "unknown": "the Kimi Linear paper names openai/mrcr, before its correction of 2025-12-05, and does not say"
            " which needle counts and bins its number averages",
        }

    def _sample(self, question: Question, ctx: int, seed: int) -> Sample:
        return Sample(
            id=self.sample_id(question.index, ctx, seed),
            task=self.id,
            ctx=ctx,
            index=question.index,
            prompt=question.messages,
            references=(question.reference,),
            max_new_tokens=question.budget,
            prompt_tokens=question.tokens,
            meta=question.meta,
        )


Maker = Callable[[str, str | None, Path | None], MrcrTask]
needles_2: Maker = partial(MrcrTask, 2)
needles_4: Maker = partial(MrcrTask, 4)
needles_8: Maker = partial(MrcrTask, 8)

_METRICS = {
    PROTOCOL: "match: 0 unless the answer begins with the random string, else difflib's ratio (autojunk on) of the rest"
    " with the text asked for",
    GOOGLE: "match: difflib's ratio (autojunk on) of the text asked for with what follows the last occurrence of the"
    " random string, 0 without one",
}
_DEFECTS = (
    "the data before 2025-12-05 have too many equal requests in about 10 % of the rows and a wrong answer in about 5 %;"
    " both revisions are read and every result names the one it is of",
    "a single blank before the random string makes a perfect answer 0 (openai). Kept",
    "difflib's autojunk ignores frequent characters of texts longer than 200 characters: the ratio of similar long texts"
    " is far below what it is without. Kept",
    "google-v2 takes the random string anywhere in the answer, though its request says first: text before it costs"
    " nothing, and an answer that contains it twice is judged by what follows the second. Kept",
)


def _deviations(edition: str, protocol: str) -> tuple[str, ...]:
    found = [
        f"of an answer longer than {grading.LONGEST_CHARS:,} characters, and than twice what is asked for, only that much is"
        " matched; its whole length counts",
        "a tokenizer without a chat template gets the messages' contents, one after another, without roles",
    ]
    if edition == "builtin":
        found.append("the conversations are written from templates; the official ones are by a large language model")
        found.append("requests other than the asked one may repeat too")
    else:
        found.append("rows longer than ctx are passed over and counted; the official data are used bin by bin")
    if protocol == GOOGLE:
        found.append(
            "the conversations are those of the protocol openai, with random strings of 10 characters; Google's own have"
            " 12, two examples and a style in each request"
        )
    return tuple(found)
