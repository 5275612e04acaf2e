"""Law of the text: the engine reads and ends texts as the model's tokenizer does, counts them exactly, and refuses what is too long.

Each case is right or wrong; there is no rounding in it. Texts and messages are sent as such where the engine takes them, so that what
is counted is its own tokenizer's and its own chat template's work.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from kleval.tokenization import ModelTokenizer
from kleval.types import Completion, Failure, Prompt, Request
from kleval.verify.engine import Engine, Ids, Unanswered, Untestable
from kleval.verify.laws.law import Law
from kleval.verify.plan import Plan
from kleval.verify.trial import Case, Deviation, Trial

TEXTS: dict[str, Prompt] = {
    "a plain sentence": "The quick brown fox jumps over the lazy dog.",
    "a blank before": " and then",
    "lines and blanks": "a\n\n  b\t c   \n",
    "other scripts": "Ünïcödé, 日本語, العربية, 🙂🙃",
    "digits and code": "x = 1234567 + 0.5e-3  # f(x)",
}
CHATS: dict[str, Prompt] = {
    "a question": ({"role": "user", "content": "Say yes.\n"},),
    "a conversation": (
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": "Is 7 a prime?"},
        {"role": "assistant", "content": "Yes."},
        {"role": "user", "content": " And 8?"},
    ),
}
LARGEST = 1 << 17  # tokens of a prompt that is sent only to be refused
STOPPED_TOKENS = 24
ANSWERS, ANSWER_TOKENS = 4, 60  # that are waited for to end by themselves
_COUNTED = re.compile(r"the server counted (\d+) prompt tokens")  # fewer than were sent: no refusal, it read a part


def cases(engine: Engine, plan: Plan) -> list[Case]:
    has_template = bool(engine.backend.tokenizer.chat_template_digest)
    asked = TEXTS | (CHATS if has_template else {})
    found = [Case("text", name, 16, _counted(prompt), exact=True) for name, prompt in asked.items()]
    found.append(Case("text", "a stop string", 24, stopped, exact=True))
    found.append(Case("text", "the end of an answer", 24, _ended(has_template), exact=True))
    if engine.max_ctx is not None and engine.max_ctx < LARGEST:
        found.append(Case("text", "a prompt past the limit", engine.max_ctx + 8, too_long, exact=True))
    return found


def _counted(prompt: Prompt) -> Callable[[Engine, Ids, random.Random], Deviation]:
    def measure(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
        """The engine's own count of a prompt against the tokenizer's."""
        expected = len(engine.backend.tokenizer.encode(engine.backend.tokenizer.render(prompt)))
        try:
            outcome = _answer(engine, Request("generate", prompt, max_new_tokens=1), as_text=True)
        except Unanswered as error:
            if (told := _COUNTED.match(str(error))) is None:
                raise
            return Deviation(1.0, int(told[1]), expected)
        counted = expected if outcome is None else outcome.prompt_tokens
        return Deviation(float(counted != expected), counted, expected)

    return measure


def stopped(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """A stop string out of the middle of an answer ends it there; a client may cut a text, and the engine write on all the same."""
    whole = _answer(engine, engine.request(ids, STOPPED_TOKENS))
    stop = "" if whole is None else whole.text[len(whole.text) // 2 :][:3].strip("\ufffd")
    if whole is None or not stop or "\ufffd" in stop or len(whole.text) < STOPPED_TOKENS // 2:
        raise Untestable("the engine writes no text that could be stopped in the middle")
    outcome = _answer(engine, engine.request(ids, STOPPED_TOKENS, stop=(stop,)))
    if outcome is None:
        return Deviation(0.0)
    wrote_on = outcome.finish_reason == "stop" and outcome.output_tokens >= whole.output_tokens
    return Deviation(float(stop in outcome.text or wrote_on))


def _ended(has_template: bool) -> Callable[[Engine, Ids, random.Random], Deviation]:
    def measure(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
        """An answer ends at the tokenizer's end token, which is not in its text, and goes on where there is none."""
        tokenizer, seen = engine.backend.tokenizer, False
        end: int | None = getattr(tokenizer, "eos_id", None)
        text = "" if end is None else str(getattr(tokenizer, "special", {}).get("eos_token") or "")
        for number in range(ANSWERS):
            request = engine.request(ids, ANSWER_TOKENS, temperature=1.0, seed=rng.randrange(1 << 30))
            if has_template:
                asked = tuple(CHATS.values())[number % len(CHATS)]
                request = Request("generate", asked, max_new_tokens=ANSWER_TOKENS, temperature=1.0, seed=request.seed)
            outcome = _answer(engine, request, as_text=has_template)
            if outcome is None:
                continue
            seen = seen or outcome.finish_reason == "eos"
            if (text and text in outcome.text) or end in outcome.token_ids[:-1]:
                return Deviation(1.0)
        if not seen:
            raise Unanswered(f"none of {ANSWERS} answers ended within {ANSWER_TOKENS} tokens")
        return Deviation(0.0)

    return measure


def too_long(engine: Engine, ids: Ids, rng: random.Random) -> Deviation:
    """Refused, not cut: asked past the backend's own knowledge of the limit."""
    backend, limit = engine.backend, engine.backend.max_ctx
    try:
        if hasattr(backend, "as_text"):  # a server: the limit is its own to keep
            backend.max_ctx = None
        (outcome,) = engine.provoke([engine.request(ids, 1)])
    finally:
        backend.max_ctx = limit
    refused = isinstance(outcome, Failure) and _COUNTED.match(outcome.message) is None
    return Deviation(float(not refused), len(ids), len(ids))


def _answer(engine: Engine, request: Request, as_text: bool = False) -> Completion | None:
    """None for one without a text, which ended at once. as_text: text and messages go to the engine as they are."""
    backend = engine.backend
    if as_text and hasattr(backend, "as_text"):
        backend = backend.as_text(chats=not isinstance(request.prompt, str))
    outcome = engine.answer(request, backend)
    if isinstance(outcome, Failure):
        if outcome.kind == "empty":
            return None
        raise Unanswered(outcome.message)
    return outcome


def cause(trial: Trial) -> str:
    at, expected = trial.deviation.at, trial.deviation.last
    known = {
        "a stop string": "the stop string is left in the answer, not looked for across tokens, or the engine writes on behind it",
        "the end of an answer": "the end token is left in the answer, or another one is taken for the end",
        "a prompt past the limit": "the server cuts prompts that are too long, or shifts its context, without a word",
    }
    why = "another chat template" if trial.case.name in CHATS else "another tokenizer"
    counted = (
        f"{at} tokens were counted where the model's tokenizer makes {expected}: {why}, or a begin token more or less"
    )
    return known.get(trial.case.name, counted)


def _needs(engine: Engine, plan: Plan) -> str:
    known = isinstance(engine.backend.tokenizer, ModelTokenizer)
    return "" if known else "the model's tokenizer is not known here: give it with --tokenizer hf:PATH"


LAW = Law("text", "Same text", cases, cause, _needs)
