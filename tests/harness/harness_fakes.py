"""A tokenizer, a backend and tasks with nothing behind them: deterministic, and faulty where a test says so."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from kleval.harness import RunSpec, run
from kleval.store import RunStore
from kleval.types import Completion, ContextTooSmall, Failure, Outcome, Prompt, Request, Sample, Score

Fault = Callable[[Request], Failure | Exception | None]


@dataclass
class WordTokenizer:
    """A token per word; ids by hash, so that equal words have equal ids everywhere."""

    name: str = "fake-words"
    digest: str = "d" * 64
    chat_template_digest: str = ""

    def encode(self, text: str) -> list[int]:
        return [int(hashlib.sha256(word.encode()).hexdigest()[:6], 16) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))

    def count(self, text: str) -> int:
        return len(text.split())

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        text = prompt if isinstance(prompt, str) else " ".join(m["content"] for m in prompt)
        return f"{text} {answer_prefix}"


@dataclass
class EchoBackend:
    """Answers with a hash of what it was asked; `sampled` answers depend on the seed too. Records every batch."""

    model: str = "fake@one"
    name: str = "echo"
    tokenizer: WordTokenizer = field(default_factory=WordTokenizer)
    max_ctx: int | None = None
    fault: Fault = lambda request: None
    shuffle: random.Random | None = None
    batch: int = 4
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=lambda: {"dtype": "float32"})
    padding: str = ""
    batches: list[list[Request]] = field(default_factory=list)
    closed: int = 0

    def describe(self) -> dict[str, Any]:
        return dict(self.settings)

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        self.batches.append(list(requests))
        order = list(range(len(requests)))
        if self.shuffle is not None:
            self.shuffle.shuffle(order)
        for start in range(0, len(order), self.batch):
            if self.seconds:
                time.sleep(self.seconds)
            for position in order[start : start + self.batch]:
                wrong = self.fault(requests[position])
                if isinstance(wrong, Exception):
                    raise wrong
                yield position, wrong or self.answer(requests[position])

    def answer(self, request: Request) -> Completion:
        assert request.token_ids is not None
        seed = request.seed if request.temperature else 0
        key = f"{request.kind}|{request.token_ids}|{request.continuation}|{seed}"
        value = hashlib.sha256(key.encode()).hexdigest()
        logprob = -int(value[:4], 16) / 1000 if request.kind == "loglikelihood" else None
        text = f"{value[:8]}{self.padding}"
        return Completion(text, len(request.token_ids), 2, logprob_sum=logprob, greedy=None, seconds=0.001)

    def close(self) -> None:
        self.closed += 1


@dataclass
class Paid(EchoBackend):
    """One that costs money to ask."""

    paid: bool = True


@dataclass
class OneCall:
    """The usual form: one request, right when the answer's hash is even."""

    id: str = "fake/one"
    version: str = "1"
    metric: str = "accuracy"
    edition: str = "builtin"
    protocol: str = "fake-1"
    data_revision: str = "r1"
    data_digest: str = "e" * 64
    minimum_tokens: int = 8
    n_available: int = 1000
    made: list[tuple[int, int]] = field(default_factory=list)

    def samples(self, tokenizer: WordTokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample]:
        if ctx < self.minimum_tokens:
            raise ContextTooSmall(f"{self.id} needs {self.minimum_tokens} tokens", self.minimum_tokens)
        for index in range(min(n, self.n_available)):
            self.made.append((ctx, index))
            length = ctx - 4 - index % 3
            prompt = " ".join(f"w{seed}-{index}-{i}" for i in range(length - 1))
            yield Sample(
                id=f"{self.id}:{self.version}:{self.edition}:{ctx}:{seed}:{index}",
                task=self.id,
                ctx=ctx,
                index=index,
                prompt=prompt,
                references=(f"r{index}",),
                max_new_tokens=4,
                prompt_tokens=length,
                answer_prefix="so:",
                meta={"depth": index / 10},
            )

    def request(self, sample: Sample) -> Request:
        return Request("generate", sample.prompt, sample.answer_prefix, max_new_tokens=sample.max_new_tokens)

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        return self.score(outcomes[0].text) if outcomes else [self.request(sample)]

    def score(self, text: str) -> Score:
        value = int(text[:8], 16)
        return Score({self.metric: float(value % 2), "soft": value % 5 / 4}, extracted=text[:4])


@dataclass
class TwoStep(OneCall):
    """Thinks first, then answers from its own thoughts: the second request depends on the first answer."""

    id: str = "fake/two"

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        if not outcomes:
            return [self.request(sample)]
        if len(outcomes) == 1:
            return [Request("generate", f"{outcomes[0].text} therefore", max_new_tokens=2)]
        return self.score(outcomes[1].text)


@dataclass
class Choice(OneCall):
    """Four likelihoods in one step; the score depends on which is which."""

    id: str = "fake/choice"

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        if not outcomes:
            ask = [Request("loglikelihood", sample.prompt, sample.answer_prefix, f"option {c}") for c in "abcd"]
            return ask
        sums = [o.logprob_sum or 0.0 for o in outcomes]
        best = sums.index(max(sums))
        return Score({self.metric: float(best == sample.index % 4)}, extracted="abcd"[best])


def collect(events: list[Any]) -> Callable[[Any], None]:
    return events.append


def spec(out: Any, **changes: Any) -> RunSpec:
    given: dict[str, Any] = {
        "models": ("one",),
        "tasks": ("fake/one",),
        "ctxs": (16, 32),
        "limit": 5,
        "out": out,
        "retry_seconds": 0.0,
    }
    return RunSpec(**{**given, **changes})


def loader(*tasks: OneCall) -> Callable[[str], OneCall]:
    table = {task.id: task for task in tasks}
    return lambda task_id: table[task_id]


def comparable(store: Any) -> list[dict[str, Any]]:
    """Rows without what may differ between two runs of one command: times and attempts."""
    import dataclasses

    rows = []
    for row in store.rows():
        record = dataclasses.asdict(row)
        del record["finished"], record["seconds"]
        for outcome in record["outcomes"]:
            outcome.pop("seconds", None)
            outcome.pop("attempts", None)
        rows.append(record)
    return rows


TASKS = (OneCall(), TwoStep(), Choice())
ALL = tuple(task.id for task in TASKS)


def go(out, backend=None, tasks=TASKS, events=None, **changes):
    changes.setdefault("tasks", tuple(task.id for task in tasks))
    backend = backend or EchoBackend()
    on_event = (lambda event: None) if events is None else events.append
    return run(spec(out, **changes), lambda name: backend, loader(*tasks), on_event)


def rows(out):
    return list(RunStore.open(out).rows())


def failing(share, seed=0, **kind):
    """A fault that hits a fixed share of the prompts, whatever the order."""
    kind = {"kind": "server", "message": "broken", **kind}

    def fault(request):
        rng = random.Random(f"{seed}{request.prompt}{request.continuation}")
        return Failure(**kind) if rng.random() < share else None

    return fault


def open_echo(seconds: float, model: str, device: str) -> EchoBackend:
    """One of several replicas, in a process of its own. seconds: for each batch."""
    return EchoBackend(f"fake@{model}", seconds=seconds)


def deadly(words: Sequence[str], request: Request) -> None:
    if any(word in str(request.prompt).split() for word in words):
        os._exit(7)


def open_deadly(words: Sequence[str], model: str, device: str) -> EchoBackend:
    """One whose process ends where a prompt has one of the words."""
    return EchoBackend(f"fake@{model}", fault=partial(deadly, words))


def open_named(model: str, device: str) -> EchoBackend:
    """One that says on which device it is."""
    return EchoBackend(f"fake@{model}", settings={"dtype": "float32", "device": device})


@dataclass
class Waiting(EchoBackend):
    """Slow until so many of its kind have been asked, which each says in a folder."""

    folder: Path = Path()
    n: int = 0

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        (self.folder / str(os.getpid())).touch()
        if len(list(self.folder.iterdir())) < self.n:
            time.sleep(0.5)
        yield from super().run(requests)


def open_waiting(folder: Path, n: int, model: str, device: str) -> EchoBackend:
    return Waiting(f"fake@{model}", folder=folder, n=n)
