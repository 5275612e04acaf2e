"""Law of the text: the engine reads and ends texts as the model's tokenizer does, counts them exactly, and refuses what is too long.

Each case is right or wrong; there is no rounding in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from kleval.tokenization import ModelTokenizer
from kleval.types import Completion, Failure, Request
from kleval.verify.engine import Engine, Ids, Unanswered
from kleval.verify.laws.law import Law
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Deviation, Trial

TEXTS = {
    "a plain sentence": "The quick brown fox jumps over the lazy dog.",
    "a blank before": " and then",
    "lines and blanks": "a\n\n  b\t c   \n",
    "other scripts": "Ünïcödé, 日本語, العربية, 🙂🙃",
    "digits and code": "x = 1234567 + 0.5e-3  # f(x)",
}
LARGEST = 1 << 17  # tokens of a prompt that is sent only to be refused


def cases(engine: Engine, plan: Plan) -> list[Case]:
    found = [Case("text", name, 16, _counted(text), exact=True) for name, text in TEXTS.items()]
    found.append(Case("text", "a stop string", 24, stopped, exact=True))
    if engine.max_ctx is not None and engine.max_ctx < LARGEST:
        found.append(Case("text", "a prompt past the limit", engine.max_ctx + 8, too_long, exact=True))
    return found


def _counted(text: str) -> Callable[[Engine, Ids, random.Random], Deviation]:
    def measure(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
        """The engine's own count of a text, sent as text where it can be, against the tokenizer's."""
        backend = engine.backend.as_text() if hasattr(engine.backend, "as_text") else engine.backend
        request = Request("generate", text, max_new_tokens=1)
        outcome = dict(backend.run([request]))[0]
        expected = len(engine.backend.tokenizer.encode(engine.backend.tokenizer.render(text)))
        if isinstance(outcome, Failure):
            if outcome.kind == "empty":
                return Deviation(0.0)
            raise Unanswered(outcome.message)
        return Deviation(float(outcome.prompt_tokens != expected), outcome.prompt_tokens, expected)

    return measure


def stopped(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """A stop string out of the middle of an answer ends it there."""
    (whole,) = engine.write([ids], 24)
    stop = whole.text[len(whole.text) // 2 :][:3].strip("\ufffd")
    if not stop or "\ufffd" in stop:
        return Deviation(0.0)
    request = Request(
        "generate", "" if engine.sends_ids else engine.backend.tokenizer.decode(ids), max_new_tokens=24, stop=(stop,)
    )
    if engine.sends_ids:
        request = Request("generate", "", max_new_tokens=24, stop=(stop,), token_ids=ids)
    (outcome,) = engine.provoke([request])
    if isinstance(outcome, Failure):
        if outcome.kind == "empty" and whole.text.startswith(stop):
            return Deviation(0.0)
        raise Unanswered(outcome.message)
    return Deviation(float(stop in outcome.text))


def too_long(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """Refused, not cut: asked past the backend's own knowledge of the limit."""
    backend, limit = engine.backend, engine.backend.max_ctx
    unbounded = hasattr(backend, "as_text")  # a server: the limit is its own to keep
    try:
        if unbounded:
            backend.max_ctx = None
        request = Request("generate", "" if engine.sends_ids else backend.tokenizer.decode(ids), max_new_tokens=1)
        if engine.sends_ids:
            request = Request("generate", "", max_new_tokens=1, token_ids=ids)
        (outcome,) = engine.provoke([request])
    finally:
        backend.max_ctx = limit
    return Deviation(float(isinstance(outcome, Completion)), len(ids), len(ids))


def cause(trial: Trial) -> str:
    if trial.case.name == "a stop string":
        return "the stop string is left in the answer, or not looked for across tokens"
    if trial.case.name == "a prompt past the limit":
        return "the server cuts prompts that are too long, or shifts its context, without a word"
    at, expected = trial.deviation.at, trial.deviation.last
    return f"{at} tokens were counted where the model's tokenizer makes {expected}: another tokenizer, or a begin token more or less"


def _needs(engine: Engine, plan: Plan) -> str:
    known = isinstance(engine.backend.tokenizer, ModelTokenizer)
    return "" if known else "the model's tokenizer is not known here: give it with --tokenizer hf:PATH"


LAW = Law("text", "Same text", cases, cause, _needs)
