"""The task `frames/oracle`: one call, scored by exact match or by a second call to a judge.

Protocols. `exact-match`: what follows the last `the answer is`, compared without case, punctuation and articles; the
builtin edition's default, whose answers are single names and numbers. `judge`: the paper's autorater, asked of the model
that --judge-model names; the official edition's default, because official answers are phrases that can be said in many
ways and every published number is a judge's. Beside a judge's verdict exact match is reported too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kleval.tasks.answers import contains
from kleval.tasks.frames import scoring
from kleval.tasks.frames.editions import OFFICIAL_BUDGET, Builtin, Official
from kleval.tasks.frames.prompts import judge_prompt, question_prompt
from kleval.tasks.likelihood import without
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, Failure, Prompt, Request, Sample, Score

EXACT_MATCH = "exact-match"
JUDGE = "judge"
JUDGE_BUDGET = 1024


class FramesTask(SizedTask):
    version = "1"
    own_protocols = (EXACT_MATCH,)
    official_budget = OFFICIAL_BUDGET

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known = (JUDGE, EXACT_MATCH) if edition == "official" else (EXACT_MATCH, JUDGE)
        values = {"budget": OFFICIAL_BUDGET, "judge_budget": JUDGE_BUDGET}
        super().__init__("frames/oracle", edition, protocol, known, values)
        self.metric = "accuracy" if self.needs_judge else "exact_match"
        self._open = (
            partial(Builtin, self.id, self.version) if edition == "builtin" else partial(Official, self.id, data_dir)
        )

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score | Failure:
        if not outcomes:
            return (Request(kind="generate", prompt=sample.prompt, max_new_tokens=sample.max_new_tokens),)
        answer = outcomes[0].text
        if not self.needs_judge:
            return self._score(sample, answer, {})
        if not answer.strip():
            return self._score(sample, answer, {"accuracy": 0.0})
        if len(outcomes) == 1:
            text = judge_prompt(sample.meta["question"], answer, sample.references[0])
            prompt = ({"role": "user", "content": text},)
            return (Request(kind="judge", prompt=prompt, max_new_tokens=JUDGE_BUDGET),)
        verdict = scoring.decision(outcomes[1].text)
        if verdict is None:
            said = " ".join(outcomes[1].text.split())[:80]
            return Failure("judge", f"the judge's reply holds no decision: {said!r}")
        return self._score(sample, answer, {"accuracy": float(verdict)})

    def _score(self, sample: Sample, answer: str, judged: dict[str, float]) -> Score:
        extracted = scoring.extract_answer(answer)
        metrics = {
            **judged,
            "exact_match": scoring.exact_match(extracted, sample.references),
            "contains": contains(answer, sample.references),
        }
        return Score(metrics, extracted=extracted)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its articles."""
        return without(sample.prompt, question_prompt("{context}", "{question}"), "{context}")

    def _template(self) -> str:
        prompts = [question_prompt("{context}", "{question}")]
        if self.needs_judge:
            prompts.append(judge_prompt("{question}", "{predicted}", "{truth}"))
        return "\0".join(prompts)


oracle = FramesTask
