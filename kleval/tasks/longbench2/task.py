"""The task `longbench2/mcq`: multiple choice in one call, or in two with chain of thought.

Protocols: `longbench-2e00731` (0-shot: one answer) and `longbench-2e00731-cot` (reasoning first; the second call does not
show the document again).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kleval.tasks.likelihood import without
from kleval.tasks.longbench2 import prompts
from kleval.tasks.longbench2.editions import (
    COT_BUDGET,
    DIFFICULTIES,
    LENGTHS,
    OFFICIAL_BUDGET,
    OFFICIAL_CTX,
    OFFICIAL_MAX_LEN,
    Builtin,
    Official,
    reference,
)
from kleval.tasks.longbench2.scoring import extract
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Prompt, Request, Sample, Score

PROTOCOL = "longbench-2e00731"
COT = "longbench-2e00731-cot"
OFFICIAL_TEMPERATURE = 0.1
_VALUES = {
    "difficulties": ", ".join(DIFFICULTIES),
    "lengths": ", ".join(LENGTHS),
    "temperature": OFFICIAL_TEMPERATURE,
    "max_len": OFFICIAL_MAX_LEN,
    "official_ctx": OFFICIAL_CTX,
    "cot_budget": COT_BUDGET,
    "answer": reference("A"),
}


class LongBench2Task(SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = "accuracy"

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        super().__init__("longbench2/mcq", edition, protocol, (PROTOCOL, COT), _VALUES)
        self._cot = self.protocol == COT
        self._temperature = 0.0 if edition == "builtin" else OFFICIAL_TEMPERATURE
        self.official_budget = f"{COT_BUDGET}, then {OFFICIAL_BUDGET}" if self._cot else str(OFFICIAL_BUDGET)
        self._open = (
            partial(Builtin, self.id, self.version, self._cot)
            if edition == "builtin"
            else partial(Official, self.id, data_dir, self._cot)
        )

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        if not outcomes:
            return (self._request(sample, sample.prompt, sample.max_new_tokens),)
        # An empty reasoning ends it, as in the official script, which then writes no row.
        if self._cot and len(outcomes) == 1 and outcomes[0].text != "":
            text = prompts.with_reasoning(sample.meta["answer_prompt"], outcomes[0].text)
            prompt: Prompt = text if isinstance(sample.prompt, str) else ({"role": "user", "content": text},)
            return (self._request(sample, prompt, sample.meta["answer_budget"]),)
        return self.score(sample, outcomes[-1])

    def score(self, sample: Sample, answer: Completion) -> Score:
        """accuracy: an empty answer is wrong. `accuracy of non-empty`: not scored there, as the official script has it."""
        meta = sample.meta
        empty = answer.text == ""
        letter = extract(answer.text)
        right = float(letter == meta["answer"])
        metrics = {
            "accuracy": right,
            f"accuracy {meta['difficulty']}": right,
            f"accuracy {meta['length']}": right,
            "accuracy of non-empty": math.nan if empty else right,
            "empty": float(empty),
        }
        return Score(metrics, extracted=letter)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its document; the choices stay."""
        return without(sample.prompt, prompts.COT if self._cot else prompts.ZERO_SHOT, "$DOC$")

    def _template(self) -> str:
        return prompts.COT + prompts.COT_ANSWER if self._cot else prompts.ZERO_SHOT

    def _request(self, sample: Sample, prompt: Prompt, budget: int) -> Request:
        return Request("generate", prompt, max_new_tokens=budget, stop=sample.stop, temperature=self._temperature)


mcq = LongBench2Task
