"""Task of one code benchmark: ask, once or several times, then run the programs that were written and count those that passed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kleval.sandbox import SandboxFault
from kleval.tasks.base import InOrder, request_of
from kleval.tasks.cards import Card, head
from kleval.tasks.fitting import budget_for
from kleval.types import Completion, Failure, Prompt, Request, Sample, Score, Tokenizer, Unfit, UsageError

VERSION = "1"
LM_EVAL = "lm-eval-0.4.13"
OWN = "kleval-1"


@dataclass(frozen=True, slots=True)
class Problem:
    """name: in its data. plain, chat: the prompt as text and as messages; prefix: what the answer is made to begin with.
    data: what the score is made from. solution: an answer that passes, where one is known.
    """

    name: str
    plain: str
    chat: tuple[Mapping[str, str], ...]
    data: Mapping[str, Any]
    solution: str = ""
    prefix: str = ""


Reading = tuple[dict[str, float], Any]  # metric -> value, and what was read out of the answers
Grade = Callable[[Problem, Sequence[str]], Reading]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """How one is asked and scored. grade: a problem and the answers to it -> metrics, what was read. no_plain: why the problems
    have no plain prompt. chat_stop: what ends an answer to messages, where that is not `stop`. deviations: beside the card's.
    """

    max_new_tokens: int
    stop: tuple[str, ...]
    grade: Grade
    shots: int = 0
    temperature: float = 0.0
    top_p: float = 1.0
    repeats: int = 1
    no_plain: str = ""
    chat_stop: tuple[str, ...] | None = None
    deviations: tuple[str, ...] = ()


class CodeTask(InOrder):
    """One benchmark in one edition. Its answers are programs: `needs_code_execution` makes the harness ask for permission."""

    grows = False
    metric = "pass@1"

    def __init__(
        self,
        task_id: str,
        benchmark: Benchmark,
        problems: Sequence[Problem],
        *,
        edition: str,
        protocol: str,
        revision: str,
        digest: str,
    ) -> None:
        self.id, self.version = task_id, VERSION
        self.edition, self.protocol = edition, protocol
        self.data_revision, self.data_digest = revision, digest
        self._card = Card("code", (task_id.partition("/")[2],), edition, protocol)
        self.needs_code_execution = self._card.needs("code execution")
        self.needs_continued_text = self._card.needs("continued text")
        self.deviations = (*benchmark.deviations, *self._card.texts("deviations"))
        self.description = f"{self._card.text('title')}, {benchmark.shots}-shot; runs the model's code in a sandbox"
        self.problems = tuple(problems)
        self.benchmark = benchmark

    def _samples(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Sample | Unfit]:
        chat = bool(tokenizer.chat_template_digest)
        if not chat and self.benchmark.no_plain:
            raise UsageError(f"{self.id}: {self.benchmark.no_plain}")
        stop = self.benchmark.stop
        if chat and self.benchmark.chat_stop is not None:
            stop = self.benchmark.chat_stop
        budget = self._budget(tokenizer)
        for index, problem in enumerate(self.problems):
            prompt: Prompt = problem.chat if chat else problem.plain
            tokens = tokenizer.count(tokenizer.render(prompt, problem.prefix))
            if tokens + budget > ctx:
                why = f"{self.id} problem {problem.name} needs {tokens} + {budget} tokens"
                yield Unfit(index, why, tokens + budget)
                continue
            yield Sample(
                id=f"{self.id}@{self.edition}-{self.version}/{self.protocol}/{ctx}/s{seed}/i{index}",
                task=self.id,
                ctx=ctx,
                index=index,
                prompt=prompt,
                references=(problem.solution,) if problem.solution else (),
                max_new_tokens=budget,
                prompt_tokens=tokens,
                answer_prefix=problem.prefix,
                stop=stop,
                meta={"problem": problem.name},
            )

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score | Failure:
        if not outcomes:
            return (request_of(sample, self.benchmark.temperature, self.benchmark.top_p),) * self.benchmark.repeats
        try:
            return Score(*self.benchmark.grade(self.problems[sample.index], [outcome.text for outcome in outcomes]))
        except SandboxFault as fault:
            return Failure("internal", str(fault))

    def card(self) -> dict[str, Any]:
        """What the task is and where it comes from; JSON values."""
        card, first = self._card, self.problems[0]
        official = self.edition == "official"
        return {
            **head(self, card.text("source")),
            "prompt_sha256": hashlib.sha256((first.plain or str(first.chat)).encode("utf-8", "replace")).hexdigest(),
            "metric": card.text("metric"),
            "max_new_tokens": self.benchmark.max_new_tokens if official else "longest solution x 1.5 + 16",
            "limits": f"{self._sampling()}; {len(self.problems):,} problems; {card.text('limits')}; nothing is cut",
            "shots": self.benchmark.shots,
            "repeats": self.benchmark.repeats,
            "deviations": list(self.deviations),
            "defects": list(card.texts("defects")),
            "needs_code_execution": self.needs_code_execution,
        }

    def _sampling(self) -> str:
        if not self.benchmark.temperature:
            return "greedy"
        return f"temperature {self.benchmark.temperature:g}, top_p {self.benchmark.top_p:g}"

    def _budget(self, tokenizer: Tokenizer) -> int:
        if self.edition == "official":
            return self.benchmark.max_new_tokens
        return budget_for(max(tokenizer.count(problem.solution) for problem in self.problems))


def user(text: str) -> tuple[Mapping[str, str], ...]:
    return ({"role": "user", "content": text},)


def pass_at_k(n: int, passed: int, k: int) -> float:
    """The chance that k of n answers, drawn without putting back, hold one of the `passed` (arXiv 2107.03374, eq. 1)."""
    if n - passed < k:
        return 1.0
    missed = 1.0
    for i in range(n - passed + 1, n + 1):
        missed *= 1.0 - k / i
    return 1.0 - missed
