"""Engine under test: a backend asked for log-probabilities of tokens it is given and of tokens it writes, all greedily.

What it can do is found out with three short requests: `scores` (log-probabilities of a prompt's tokens), `tells` (log-probabilities of
the tokens it writes), `writes_ids` (which tokens those are); laws say which of these they need. Failures are values: one that says
that numbers are not finite is a reading like any other, and the worst; after MOST_LOST others in succession the engine counts as dead.
"""

from __future__ import annotations

import contextlib
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kleval.backends.timing import ordinary_ids, random_words
from kleval.types import Backend, Completion, Failure, Outcome, Request

MOST_LOST = 3
PROBES = 4  # short prompts, of which one must be answered by more than its end
POOL_WORDS = 800
WRITTEN = 8  # tokens that are written where few say enough
LIKELY = 5  # tokens at each place of an answer, the most that some servers tell
STEPS = tuple(2.0**-k for k in range(2, 10))  # of bfloat16 from logits of 32 down to 0.25
NARROW = 1e-3  # nats that float32 does not round
NEAR, EXACT = 20.0, 2e-5  # nats
MOST_DECIMALS = 2  # that some servers leave of log-probabilities: more are finer than any limit
_NOT_FINITE = ("not finite", "nan as log", "inf as log")
_ALIVE = (
    "bad_request",
    "context_overflow",
    "internal",
    "empty",
    "reasoning_cut",
    "out_of_memory",
)  # failures that are answers

Ids = tuple[int, ...]


class Dead(Exception):
    """The engine gives no answers any more."""


class OutOfTime(Exception):
    """The time of a law is over."""


class Unanswered(Exception):
    """One request has no answer, and the trial no deviation."""


class Untestable(Unanswered):
    """Answered, and yet the case says nothing on this model."""


@dataclass(frozen=True, slots=True)
class Reading:
    """logprobs: of each token. tokens: that were written, empty where only text came. likely: the most likely ones at each place of
    what was written. ended: by the engine itself. finite: False where the engine's numbers are not."""

    logprobs: tuple[float, ...] = ()
    tokens: Ids = ()
    likely: tuple[Mapping[int | str, float], ...] = ()
    text: str = ""
    ended: bool = False
    finite: bool = True

    def after(self, n: int) -> Reading:
        """Without the first n tokens."""
        return replace(self, logprobs=self.logprobs[n:], tokens=self.tokens[n:], likely=self.likely[n:])


@dataclass(slots=True)
class Engine:
    """asked: tokens that were sent or written. deadline: of time.monotonic, past which it is not asked any more. steps: of its
    logits, at each place that it told likely tokens of. decimals: of the log-probabilities that it tells, MOST_DECIMALS + 1 for more.
    rounding: the largest of its legal deviations, once they are known."""

    backend: Backend
    deadline: float = math.inf
    asked: int = 0
    lost: int = 0
    steps: list[float] = field(default_factory=list)
    decimals: int = 0
    rounding: float = 0.0
    scores: bool = False
    tells: bool = False
    writes_ids: bool = False
    sends_ids: bool = True
    begin: Ids = ()
    pool: Sequence[int] = field(default_factory=tuple)
    why_not: str = ""
    reference: Engine | None = None

    @classmethod
    def of(cls, backend: Backend) -> Engine:
        """With what it can do found out. Dead where it answers nothing."""
        engine = cls(backend)
        told = backend.describe()
        engine.sends_ids = told.get("prompts_sent_as", "token ids") == "token ids"
        engine.pool = _pool(backend)
        begin = backend.tokenizer.encode("") if engine.sends_ids else []
        engine.begin = tuple(begin) if len(begin) == 1 else ()
        ids = engine.prompt(8, "random", random.Random("ability"))
        if engine.sends_ids:
            scored = engine._outcomes([_likelihood(ids)])[0]
            whole = isinstance(scored, Completion) and len(scored.logprobs) == len(ids) - 1
            engine.scores = whole or _is_not_finite(scored)
            engine.why_not = scored.message if isinstance(scored, Failure) else ""
        for more in range(PROBES):
            (written,) = engine._outcomes([engine.request(ids, 4)])
            if not (isinstance(written, Failure) and written.kind == "empty"):
                break
            ids = engine.prompt(8, "random", random.Random(more))
        if isinstance(written, Failure):
            raise Dead(written.message)
        engine.tells = bool(written.logprobs)
        engine.writes_ids = bool(written.token_ids) and engine.sends_ids
        engine.lost = 0
        return engine

    @property
    def max_ctx(self) -> int | None:
        return self.backend.max_ctx

    @property
    def step(self) -> float:
        """Of its logits, in the middle, or of the log-probabilities that it tells; 0 where neither are rounded."""
        told = 10.0**-self.decimals if 0 < self.decimals <= MOST_DECIMALS else 0.0
        return max(told, sorted(self.steps)[len(self.steps) // 2] if self.steps else 0.0)

    @property
    def dtype(self) -> str:
        return str(self.backend.describe().get("dtype", "unknown"))

    @property
    def is_narrow(self) -> bool:
        """Whether it computes in fewer than 32 bits, as it says or, where it does not, as its rounding shows."""
        return (
            self.step > 0 or self.rounding > NARROW
            if self.dtype == "unknown"
            else self.dtype in ("bfloat16", "float16")
        )

    def prompt(self, n: int, kind: str, rng: random.Random) -> Ids:
        """n tokens, the begin token included: `random` ones, `repeated` (a short pattern: keys that are alike) or `mixed`."""
        n_own = max(1, n - len(self.begin))
        if kind == "repeated":
            pattern = rng.choices(self.pool, k=rng.choice((1, 2, 3, 5)))
            own = (pattern * (n_own // len(pattern) + 1))[:n_own]
            for at in range(0, n_own, 37):  # all alike would say nothing of order
                own[at] = rng.choice(self.pool)
        else:
            own = rng.choices(self.pool, k=n_own)
        return (*self.begin, *own)

    def score(self, prompts: Sequence[Ids]) -> list[Reading]:
        """Log-probabilities of each prompt's tokens but the first, asked in one call."""
        return self._readings([_likelihood(ids) for ids in prompts])

    def write(self, prompts: Sequence[Ids], n: int = WRITTEN) -> list[Reading]:
        """n tokens after each prompt, the most likely ones, asked in one call."""
        return self._readings([self.request(ids, n) for ids in prompts])

    def read(self, prompts: Sequence[Ids]) -> list[Reading]:
        """Scores of the prompts, or where it gives none a few tokens after each."""
        return self.score(prompts) if self.scores else self.write(prompts)

    def draw(self, ids: Ids, n: int, seed: int) -> Reading:
        """n tokens drawn at temperature 1: the most likely ones soon repeat each other, with probabilities of 1 that nothing moves."""
        return self._readings([self.request(ids, n, temperature=1.0, seed=seed)])[0]

    def drop(self, prompts: Sequence[Ids], n: int) -> None:
        """Ask and be gone: the caller leaves before answers are whole."""
        self._check_time()
        requests = [self.request(ids, n) for ids in prompts]
        short = self.request(prompts[0][:2], 1)
        answers = self.backend.run([short, *requests])
        next(answers, None)
        if (close := getattr(answers, "close", None)) is not None:
            close()

    def provoke(self, requests: Sequence[Request]) -> list[Outcome]:
        """Requests whose answers do not matter: failures are welcome."""
        self._check_time()
        return [outcome for _, outcome in self._run(list(requests))]

    def answer(self, request: Request, backend: Backend | None = None) -> Outcome:
        """Of one request of a law's own. backend: the same engine asked in another way."""
        self._check_time()
        return self._outcomes([request], backend)[0]

    def request(self, ids: Ids, n: int, **more: Any) -> Request:
        """n tokens after a prompt, sent as ids or as text. more: fields of a Request."""
        text = "" if self.sends_ids else self.backend.tokenizer.decode(ids)
        return Request(
            "generate", text, max_new_tokens=n, token_ids=ids if self.sends_ids else None, logprobs=LIKELY, **more
        )

    def _readings(self, requests: Sequence[Request]) -> list[Reading]:
        self._check_time()
        found = []
        for outcome in self._outcomes(requests):
            if isinstance(outcome, Completion):
                ended = outcome.finish_reason == "eos"
                found.append(Reading(outcome.logprobs, outcome.token_ids, outcome.likely, outcome.text, ended))
                self.steps += [step_of(tuple(place.values())) for place in outcome.likely]
                self.decimals = max(self.decimals, decimals_of(outcome.logprobs))
            elif _is_not_finite(outcome):
                found.append(Reading(finite=False))
            elif outcome.kind == "empty":
                found.append(Reading(ended=True))
            else:
                raise Unanswered(outcome.message)
        return found

    def check_alive(self) -> None:
        """Dead where it still gives no answers, if it gave none when it was last asked."""
        while self.lost:
            self._check_time()
            self._outcomes([self.request(self.prompt(4, "random", random.Random(0)), 1)])

    def _outcomes(self, requests: Sequence[Request], backend: Backend | None = None) -> list[Outcome]:
        """In order. Dead after MOST_LOST calls without any answer."""
        found: dict[int, Outcome] = dict(self._run(requests, backend))
        outcomes = [found.get(n, Failure("server", "no answer")) for n in range(len(requests))]
        failed = [
            one for one in outcomes if isinstance(one, Failure) and one.kind not in _ALIVE and not _is_not_finite(one)
        ]
        self.lost = self.lost + 1 if len(failed) == len(outcomes) else 0
        if self.lost >= MOST_LOST:
            raise Dead(failed[0].message)
        return outcomes

    def _run(self, requests: Sequence[Request], backend: Backend | None = None) -> Iterator[tuple[int, Outcome]]:
        self.asked += sum(len(r.token_ids or ()) + len(r.continuation_ids or ()) + r.max_new_tokens for r in requests)
        yield from (backend or self.backend).run(requests)

    def _check_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise OutOfTime


def step_of(logprobs: Sequence[float]) -> float:
    """The power of two of which all that these likely ones differ by are multiples: the step of a narrow dtype at their logits, of
    which one rounding more or less moves each. 0 where there is none."""
    apart = [max(logprobs) - p for p in logprobs if p > max(logprobs) - NEAR] if len(logprobs) >= LIKELY else []
    if len(apart) < LIKELY:
        return 0.0
    return next((s for s in STEPS if max(abs(d / s - round(d / s)) * s for d in apart) < EXACT), 0.0)


def decimals_of(logprobs: Sequence[float]) -> int:
    """How many decimals tell these numbers exactly, at least 1 and MOST_DECIMALS + 1 where it takes more; 0 of no numbers."""
    for n in range(1, MOST_DECIMALS + 1):
        if all(abs(p - round(p, n)) < EXACT for p in logprobs if math.isfinite(p)):
            return n if logprobs else 0
    return MOST_DECIMALS + 1


def _is_not_finite(outcome: Outcome) -> bool:
    return isinstance(outcome, Failure) and any(word in outcome.message.lower() for word in _NOT_FINITE)


def _likelihood(ids: Ids) -> Request:
    return Request("loglikelihood", "", token_ids=ids[:1], continuation_ids=ids[1:], logprobs=1)


def _pool(backend: Any) -> Sequence[int]:
    """Ids of ordinary tokens: of random words where text is sent, else of the vocabulary."""
    if backend.describe().get("prompts_sent_as", "token ids") == "token ids" and hasattr(backend, "vocabulary"):
        with contextlib.suppress(Exception):
            if found := backend.vocabulary():
                return list(found)
    words = random_words(POOL_WORDS, random.Random("pool"))
    ids = sorted(set(backend.tokenizer.encode(words)))
    return ids if len(ids) > 1 else list(ordinary_ids(1 << 12))
