"""From what a server sent to a Completion, or to the Failure that it is instead.

An answer is only taken when it is whole (it says why it ended, or all of it has come), counted (usage), from the model that was
asked, to all of the prompt that was sent, and as long as it was asked to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from kleval.backends.reasoning import LAST_TOKENS, TURN_END_NOTE, first_stop, split, turn_end
from kleval.backends.server_address import Server
from kleval.backends.server_counts import Doubted, PromptCounts
from kleval.backends.server_errors import failure_in_stream
from kleval.backends.server_reply import Answer
from kleval.backends.server_spelling import spells
from kleval.backends.server_wire import Dialect
from kleval.types import Completion, Failure, FinishReason, Request, Tokenizer

# The token that ends an answer is one of its tokens, so an answer that ends at once has one; but these do not count it.
COUNTS_NO_END = ("llama.cpp", "llama-cpp-python")
_REPEATS_KEY = Failure("bad_request", "the answer repeats the key it was asked with, and is not kept")
FinishKind = Literal["end", "length", "filtered", "tool", "broken"]
# Parts of words that OpenAI, Anthropic, Google, Cohere, TGI, Zhipu, DeepSeek, vLLM, SGLang and gateways use: MAX_TOKENS,
# FinishReason.MAX_OUTPUT_TOKENS, model_length; each first kind that has one.
_FINISHES: dict[FinishKind, tuple[str, ...]] = {
    "filtered": (
        *("filter", "safety", "recitation", "blocklist", "prohibited", "spii", "sensitive", "refusal", "guardrail"),
        *("toxic", "moderation", "unsafe"),
    ),
    "broken": (
        *("error", "abort", "cancel", "timeout", "timed_out", "insufficient_system_resource", "malformed", "preempted"),
        *("failed", "unavailable", "interrupted"),
    ),
    "tool": ("tool", "function"),
    "length": ("length", "max", "limit", "context_window", "truncated"),
}
NEIGHBOURS = 32  # tokens before a continuation that show where it begins
COUNTED_BESIDES = 1  # of servers that count the end though it came after the last token asked for


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer to this request must agree with.

    n_prompt: tokens of the prompt in the backend's tokenizer; exact: they are what was sent. tolerated: the share of them that
    a server may count less when they are not. decode: ids to text, where that is local; written: those of an answer, behind
    its prompt. accepts: names of the model. counts: what the server counted of other prompts.
    """

    server: Server
    dialect: Dialect
    n_prompt: int
    exact: bool
    tolerated: float
    accepts: Callable[[str], bool]
    decode: Callable[[Sequence[int]], str] | None = field(default=None)
    counts: PromptCounts | None = None
    written: Callable[[Sequence[int]], str] | None = field(default=None)


def generated(answer: Answer, request: Request, expected: Expected, seconds: float) -> Completion | Failure:
    """The outcome of a `generate` or `judge` request."""
    answer.repeats = expected.dialect.repeats
    text, reasoning = answer.text, answer.reasoning
    if request.answer_prefix and not text.strip() and answer.thoughts:
        # Its beginning was given: a server that takes what goes on from there for reasoning is wrong.
        text, reasoning = reasoning, ""
    failure = _unusable(answer, expected) or _unfinished(answer, text, reasoning, request, expected)
    if failure is not None:
        return failure
    n_prompt, n_new = answer.count("prompt_tokens") or 0, answer.count("completion_tokens") or 0
    remark = _cut(n_prompt, request, expected)
    if isinstance(remark, Failure) and (expected.counts is None or (expected.exact and n_prompt > expected.n_prompt)):
        return remark
    failure = _miscounted(n_new, answer, request, expected)
    if failure is not None:
        return failure
    reason = _finish_reason(answer, request)
    logprobs, likely, told_ids = _told(answer, n_new) if request.logprobs else ((), (), ())
    ids = tuple(answer.token_ids) if len(answer.token_ids) == n_new else told_ids if len(told_ids) == n_new else ()
    if ids and expected.written is not None and not answer.reasoning:
        text = expected.written(ids[:-1] if reason == "eos" else ids)
        if expected.server.is_told_in(text):
            return _REPEATS_KEY
    notes = [remark] if isinstance(remark, str) else []
    last = [expected.decode([i]) for i in ids[-LAST_TOKENS:]] if ids and expected.decode is not None else None
    if reason != "length" and (end := turn_end(text, last)):
        text = text.removesuffix(end)
        notes.append(TURN_END_NOTE.format(end.strip()))
    cut = first_stop(text, request.stop)
    completion = Completion(
        text if cut is None else text[:cut],
        n_prompt or expected.n_prompt,
        n_new,
        reason if cut is None else "stop",
        ids,
        seconds=seconds,
        notes=tuple(notes),
        reasoning=reasoning,
        logprobs=logprobs,
        likely=likely,
    )
    if not isinstance(remark, Failure) or expected.counts is None:
        return completion
    said = f"the server counted {n_prompt} prompt tokens and read about {expected.n_prompt}: an answer proves it"
    whole = replace(completion, prompt_tokens=expected.n_prompt, notes=(said,))
    if expected.counts.refutes(request, whole, expected.n_prompt, n_prompt):
        return whole
    return Doubted(remark.kind, remark.message, answer=whole)


def _miscounted(n_new: int, answer: Answer, request: Request, expected: Expected) -> Failure | None:
    """Why the length of an answer is not what was asked for. Services count reasoning, or leave it out, or do not limit it."""
    reasons = bool(answer.reasoning) or split(answer.text) is not None
    counts_all = not reasons or expected.dialect.software != "other"
    if finish_kind(answer.finish or "") == "length" and n_new < request.max_new_tokens and counts_all:
        return Failure(
            "context_overflow",
            f"the server stopped for length after {n_new} of {request.max_new_tokens} tokens: prompt and answer do not fit",
        )
    if n_new > request.max_new_tokens + COUNTED_BESIDES and not reasons:
        return Failure(
            "server", f"the server generated {n_new} tokens where at most {request.max_new_tokens} were asked"
        )
    return None


def likelihood(
    answer: Answer,
    request: Request,
    ids: Sequence[int],
    continuation: Sequence[int],
    expected: Expected,
    seconds: float,
) -> Completion | Failure:
    """The outcome of a `loglikelihood` request whose prompt and continuation were sent together."""
    failure = _unusable(answer, expected)
    if failure is not None:
        return failure
    n_sent = len(ids) + len(continuation)
    counted = answer.count("prompt_tokens") or (n_sent if expected.exact else 0)
    begins = counted - n_sent  # a token that the server puts before a text, or one of the tokenizer's that it does not
    if begins not in ((0,) if expected.exact else (-1, 0, 1)):
        return Failure("server", f"the server counted {counted} prompt tokens where {n_sent} were sent")
    assert answer.choice is not None
    near = ids[-NEIGHBOURS:] if expected.decode is not None else ()
    before = expected.decode(near) if expected.decode is not None else ""
    spelled = None if expected.exact else (len(near), before, request.continuation)
    first = begins + len(ids)
    if expected.dialect.software == "llama-cpp-python":
        begin = None if begins == 1 or expected.decode is None else expected.decode(ids[:1])
        place = _place_in_list(answer, begin, len(continuation))
        if place is None:
            return Failure(
                "bad_request",
                f"{expected.server.url} gives each token of a prompt the log-probability of the next place, as "
                "llama-cpp-python does where no begin token comes first: use --add-bos yes, or another server",
            )
        first = place
    scored = _prompt_logprobs(answer.choice, continuation, first) or _echoed(
        answer.choice, spelled, first, len(continuation)
    )
    if scored is None:
        return Failure(
            "bad_request",
            f"{expected.server.url} gives no log-probabilities of a prompt's tokens, which likelihoods are made of: "
            "use vLLM or SGLang as server, or another backend",
        )
    each, greedy = scored
    total = float(sum(each))
    if not math.isfinite(total):
        return Failure("server", f"the server gives {total} as log-probability of the continuation")
    return Completion(
        request.continuation,
        len(ids),
        len(continuation),
        "length",
        tuple(continuation),
        total,
        greedy,
        seconds,
        logprobs=tuple(each) if request.logprobs else (),
    )


def _told(
    answer: Answer, n_new: int
) -> tuple[tuple[float, ...], tuple[Mapping[int | str, float], ...], tuple[int, ...]]:
    """Log-probabilities of an answer's tokens, the most likely ones of each place and the tokens' ids, in either form of the API; empty
    where they are not told. The token that ends an answer may be counted and not be told."""
    told = (answer.choice or {}).get("logprobs")
    if not isinstance(told, Mapping):
        return (), (), ()
    content = told.get("content")
    if isinstance(content, list):
        each = [entry.get("logprob") for entry in content]
        ids = [entry.get("id") for entry in content]
        tops = [
            {one.get("id", one.get("token")): float(one["logprob"]) for one in entry.get("top_logprobs") or ()}
            for entry in content
        ]
    else:
        each, ids = told.get("token_logprobs") or [], []
        tops = [dict(place or {}) for place in told.get("top_logprobs") or ()]
    if not n_new - 1 <= len(each) <= n_new or not all(isinstance(one, int | float) for one in each):
        return (), (), ()
    known = tuple(ids) if ids and all(isinstance(one, int) for one in ids) else ()
    return tuple(map(float, each)), tuple(tops) if len(tops) == len(each) else (), known


def _unusable(answer: Answer, expected: Expected) -> Failure | None:
    if answer.error is not None:
        return failure_in_stream(expected.server, answer.error)
    if answer.choice is None:
        return Failure("server", "an answer without choices", retryable=True)
    if expected.server.is_told_in(answer.text) or expected.server.is_told_in(answer.reasoning):
        return _REPEATS_KEY
    if answer.model is not None and not expected.accepts(answer.model):
        name = expected.server.hide(answer.model)
        return Failure("server", f"asked for {expected.dialect.model}, answered as {name}")
    if (answer.finish is not None or answer.ended) and (
        answer.count("prompt_tokens") is None or answer.count("completion_tokens") is None
    ):
        return Failure("server", "an answer without usage: its tokens cannot be counted", retryable=True)
    return None


def _unfinished(answer: Answer, text: str, reasoning: str, request: Request, expected: Expected) -> Failure | None:
    """Why what came is no answer, judged by how it ended. Cut reasoning is for the harness to judge."""
    finish = answer.finish
    if finish is None and answer.ended and answer.count("completion_tokens") is not None:
        finish = ""  # a whole answer that does not say why it ended
    if finish is None:
        return Failure("server", "half an answer: it broke off without saying why it ended", retryable=True)
    kind = finish_kind(finish)
    if kind == "filtered":
        return Failure("bad_request", "the server's content filter withheld the answer")
    if kind == "tool":
        return Failure("empty", "the model called a tool instead of answering")
    if kind == "broken":
        return Failure("server", f"the answer ended with {expected.server.hide(finish)[:40]!r}", retryable=True)
    if reasoning and not text:
        ended = kind == "end" and not request.stop
        said = f"{answer.count('completion_tokens')} tokens of reasoning and no answer: it ended there"
        return Failure("empty", said) if ended else None
    if not text and not answer.has_text:
        return Failure("empty", "the answer's content is null", retryable=True)
    if not text and answer.count("completion_tokens") == 0 and expected.dialect.software not in COUNTS_NO_END:
        return Failure("empty", "an answer without a single token", retryable=True)
    return None


def finish_kind(finish: str) -> FinishKind:
    """What a finish reason means. One that nobody here knows (`end_turn`, `eos`, `COMPLETE`) is an end like any other: a whole answer
    with its usage is never thrown away."""
    word = finish.casefold().replace("-", "_")
    return next((kind for kind, parts in _FINISHES.items() if any(part in word for part in parts)), "end")


def _cut(n_prompt: int, request: Request, expected: Expected) -> Failure | str | None:
    """Whether the server read another prompt than the one that was sent, or a remark. A count of 0 (all cached, or not counted)
    says nothing."""
    sent = expected.n_prompt
    if n_prompt == 0:
        return None
    if expected.exact and n_prompt != sent:
        return Failure("server", f"the server counted {n_prompt} prompt tokens where {sent} were sent")
    if not expected.exact and n_prompt < sent * (1 - expected.tolerated):
        if expected.counts is not None:
            expected.counts.was_cut(sent, n_prompt, request.prompt)
        return Failure(
            "context_overflow",
            f"the server counted {n_prompt} prompt tokens of about {sent}: it cut the prompt, or --tokenizer is another model's",
        )
    return None if expected.exact or expected.counts is None else expected.counts.judge(sent, n_prompt, request.prompt)


def _finish_reason(answer: Answer, request: Request) -> FinishReason:
    """Servers say `stop` for both ends; vLLM and SGLang say which, as the stop string or the token. Where nothing is said it is by
    its length."""
    full = answer.finish is None and (answer.count("completion_tokens") or 0) >= request.max_new_tokens
    if full or finish_kind(answer.finish or "") == "length":
        return "length"
    if not request.stop or answer.finish == "eos_token":
        return "eos"
    return "stop" if isinstance(answer.stopped_by, str) or not answer.tells_stop else "eos"


def _prompt_logprobs(choice: Any, continuation: Sequence[int], first: int) -> tuple[list[float], bool] | None:
    """vLLM: one table per prompt token, of its id and perhaps others, each with logprob and rank."""
    tables = choice.get("prompt_logprobs")
    if not isinstance(tables, list) or len(tables) != first + len(continuation):
        return None
    try:
        chosen = [table[str(token)] for table, token in zip(tables[first:], continuation, strict=True)]
        return [float(entry["logprob"]) for entry in chosen], all(entry["rank"] == 1 for entry in chosen)
    except (KeyError, TypeError):
        return None


def _echoed(choice: Any, spelled: tuple[int, str, str] | None, first: int, n: int) -> tuple[list[float], bool] | None:
    """The older form: log-probabilities of the prompt, echoed. spelled: the number of some tokens before, what they must spell, and
    what the n must; None when they are known. Where the server writes nothing readable for any of the n, those before them must be
    the prompt's last."""
    logprobs = choice.get("logprobs")
    try:
        values = logprobs["token_logprobs"][first : first + n]
        if len(values) != n or any(not isinstance(value, int | float) for value in values):
            return None
        if spelled is not None:
            tokens, (near, before, text) = logprobs["tokens"], spelled
            hidden = not any(token.strip("\ufffd ") for token in tokens[first : first + n])
            known = hidden and before and spells(tokens[max(0, first - near) : first], before)
            if not (known or spells(tokens[first : first + n], text)):
                return None
        best = [max(table.values()) for table in logprobs["top_logprobs"][first : first + n]]
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    return list(map(float, values)), len(best) == n and all(v >= b for v, b in zip(values, best, strict=False))


def _place_in_list(answer: Answer, begin: str | None, n: int) -> int | None:
    """Where the n tokens of a continuation stand in llama-cpp-python's list, which leaves out begin tokens wherever they are.

    It pairs the tokens after a leading begin token with the rows of log-probabilities from the first on, and so gives each its own; of
    a prompt without one it does the same, and each is given that of the next place: None. begin: how the first of the tokens that
    were sent is spelled, which is then missing from the list; None where the server itself put one before them.
    """
    logprobs = answer.choice.get("logprobs") if answer.choice else None
    tokens = logprobs.get("tokens") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not tokens:
        return 0  # no log-probabilities at all
    if begin is not None and (not str(tokens[0]).strip() or spells([str(tokens[0])], begin)):
        return None
    return max(0, len(tokens) - n - (answer.count("completion_tokens") or 0))


def tolerated_share(tokenizer: Tokenizer) -> float:
    """How much less than this tokenizer a server may count of a prompt that was sent as text, before it must have cut it.

    A tokenizer of the model itself is off by what a template adds or strips; one that only counts may be far off. No model takes much
    less than a token for a word.
    """
    from kleval.tokenization import ModelTokenizer, WordTokenizer

    if isinstance(tokenizer, WordTokenizer):
        return 0.6
    return 0.05 if isinstance(tokenizer, ModelTokenizer) else 0.5
