"""The tasks `mrcr/2needle`, `mrcr/4needle` and `mrcr/8needle`: one call each, messages sent as messages.

Protocols: `openai` (the grader of openai/mrcr's data card) and `google-v2` (the metric of Google DeepMind's MRCR v2 on the
same conversations; that project's own data are another set).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks.base import OneCall
from kleval.tasks.mrcr import bins, grading
from kleval.tasks.mrcr.conversations import BANK
from kleval.tasks.mrcr.editions import OFFICIAL_BUDGET, Builtin, Official
from kleval.tasks.registry import OWN
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Prompt, Sample, Score

PROTOCOL = "openai"
GOOGLE = "google-v2"


class MrcrTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = "match"
    official_budget = f"{OFFICIAL_BUDGET}, more where the answer takes more"

    def __init__(self, n_needles: int, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        values = {"n_needles": n_needles, "longest": grading.LONGEST_CHARS, "first_bin": bins.NAMES[0]}
        super().__init__(f"mrcr/{n_needles}needle", edition, protocol, (PROTOCOL, GOOGLE), values)
        self._open = (
            partial(Official, self.id, n_needles, data_dir)
            if edition == "official"
            else partial(Builtin, self.id, self.version, n_needles, data_dir if edition == OWN else None)
        )
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

    def question_alone(self, sample: Sample) -> Prompt:
        """The last message."""
        return sample.prompt[-1:]

    def _template(self) -> str:
        return str(BANK["question"]).format(prefix="{hash}", nth="{n-th}", kind="{kind}", topic="{topic}")

    def _facts(self) -> Mapping[str, Any]:
        return {
            "bins": f"tokens of {bins.ENCODING} where its vocabulary is at hand, else the model's own; a row's"
            " bin_tokenizer says which"
        }


needles_2, needles_4, needles_8 = (partial(MrcrTask, n) for n in (2, 4, 8))
