"""The task `frames/oracle`: one call, scored by exact match or by a second call to a judge.

Protocols. `exact-match`: what follows the last `the answer is`, compared without case, punctuation and articles; the
builtin edition's default, whose answers are single names and numbers. `judge`: the paper's autorater, asked of the model
that --judge-model names; the official edition's default, because official answers are phrases that can be said in many
ways and every published number is a judge's. Beside a judge's verdict exact match is reported too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from kleval.tasks.answers import contains
from kleval.tasks.base import JUDGE_BUDGET, Judged
from kleval.tasks.frames import official
from kleval.tasks.frames.hops import Builtin
from kleval.tasks.frames.official import judge_prompt, question_prompt
from kleval.tasks.likelihood import without
from kleval.tasks.sized import SizedTask
from kleval.types import Prompt, Sample, Score

EXACT_MATCH = "exact-match"
JUDGE = "judge"


class FramesTask(Judged, SizedTask):
    version = "1"
    reply_says = "decision"
    own_protocols = (EXACT_MATCH,)
    official_budget = official.BUDGET

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known = (JUDGE, EXACT_MATCH) if edition == "official" else (EXACT_MATCH, JUDGE)
        values = {"budget": official.BUDGET, "judge_budget": JUDGE_BUDGET}
        super().__init__("frames/oracle", edition, protocol, known, values)
        self.metric = "accuracy" if self.needs_judge else "exact_match"
        made = partial(Builtin, self.id, self.version)
        self._open = made if edition == "builtin" else partial(official.rows, self.id, data_dir)

    def _judge_prompt(self, sample: Sample, answer: str) -> Prompt:
        text = judge_prompt(sample.meta["question"], answer, sample.references[0])
        return ({"role": "user", "content": text},)

    def _verdict(self, reply: str) -> bool | None:
        return official.decision(reply)

    def _score(self, sample: Sample, answer: str, right: bool | None) -> Score:
        extracted = official.extract_answer(answer)
        judged = {} if right is None else {"accuracy": float(right)}
        matched = {"exact_match": official.exact_match(extracted, sample.references)}
        return Score({**judged, **matched, "contains": contains(answer, sample.references)}, extracted=extracted)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its articles."""
        return without(sample.prompt, question_prompt("{context}", "{question}"), "{context}")

    def _template(self) -> str:
        prompts = [question_prompt("{context}", "{question}")]
        if self.needs_judge:
            prompts.append(judge_prompt("{question}", "{predicted}", "{truth}"))
        return "\0".join(prompts)


oracle = FramesTask
