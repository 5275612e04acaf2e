"""Error messages of servers, translated into kleval's kinds of failure.

What a prompt that is too long is called differs with every server, so a rule decides and no list of sentences: the sentences that
the tests hold it to are those of vLLM 0.32, llama-cpp-python 0.3.36, llama.cpp's own server, SGLang, TGI, TabbyAPI, LM Studio,
TensorRT-LLM and of hosted services. Elsewhere a status code decides.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from kleval.backends.server_address import Server
from kleval.types import Failure, UsageError

# A prompt that is too long, in anybody's words: something that is long, and that it is more than there may be.
_LONG_THING = re.compile(
    r"context|prompt|\binputs?\b|input_|\btokens?\b|token[_ ](?:limit|count)|messages?\b|sequence|max_(?:model|seq|input|num)"
    r"|token数|输入|上下文|提示",
    re.IGNORECASE,
)
_BEYOND = re.compile(
    r"exceed|too (?:long|large|many tokens)|(?:greater|longer|larger|more|less|fewer) than|overflow|range of .{0,20}length"
    r"|length_exceeded|maximum (?:allowed )?(?:context|input|prompt|model|sequence|token)|max(?:imum)?_?(?:model|seq)_?len"
    r"|context ?(?:window|length|size|limit)|token limit|must be <=|reduce the length|does not fit|not enough|too big"
    r"|(?:limit|max(?:imum)?) (?:is|of) \d|only (?:supports?|accepts?|takes?)|\) ?> ?\w|\d ?> ?\d"
    r"|超长|超限|超过|超出|过长",
    re.IGNORECASE,
)
_LENGTH = re.compile(r"token|length|context|too (?:long|large)|_len\b|max_\w*len|长|超限|上下文", re.IGNORECASE)
_NO_ROOM = re.compile(r"max_tokens must be at least 1, got (?:0|-\d+)", re.IGNORECASE)
_LIMIT_OF_RATE = re.compile(
    r"rate.?limit|per (?:second|minute|hour|day|month)|\b[tr]p[smd]\b|quota|too many requests|concurren|限流|频率",
    re.IGNORECASE,
)
# Limits of single fields, of requests for more answer than a model gives, and of things that are not there.
_OTHER_FIELD = re.compile(
    r"(?:stop|logit_bias|logprobs|user|seed|top_[pk]|temperature|response_format|tools?)\b.{0,40}(?:exceed|too|than|at most)"
    r"|at most \d+ completion tokens|characters|(?:cannot|could not|failed to) (?:load|read|open|find)",
    re.IGNORECASE,
)
_REFUSES = re.compile(
    r"support|unknown|unrecogni|unexpected|extra|invalid|illegal|must|only|permitted|allowed|not (?:valid|a valid)|不支持|无效",
    re.IGNORECASE,
)
# The code of a service that says no more than that (Zhipu).
_TOO_LONG_CODES = ("1261",)
_NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "exceeded your current quota")
_NO_MEMORY = ("out of memory", "cuda oom")


def failure_of_status(server: Server, status: int, body: str) -> Failure:
    """An answer that is not 200. UsageError for 401: no request will be answered with this key. A 403 after the server was opened
    is about the one prompt: services answer so where moderation or a firewall does not like it."""
    said, code = read_error(body)
    if status == 401:
        raise refused_key(server, status)
    text = f"HTTP {status}: {server.hide(said)}" if said else f"HTTP {status}"
    if status == 429:
        return Failure("rate_limit", text, retryable=not any(word in f"{code} {said}".lower() for word in _NO_QUOTA))
    if status == 413 and _LIMIT_OF_RATE.search(f"{code} {said}"):
        return Failure("rate_limit", text)
    if status == 413 or (status in (400, 422, 500) and too_long(said, code)):
        return Failure("context_overflow", text)
    if status == 408:
        return Failure("timeout", text, retryable=True)
    if status >= 500 or status in (409, 425):
        kind = "out_of_memory" if any(word in said.lower() for word in _NO_MEMORY) else "server"
        return Failure(kind, text, retryable=True)  # type: ignore[arg-type]
    if 300 <= status < 400:
        return Failure("bad_request", f"{text}: {server.url} sends on to another address: give that as --base-url")
    return Failure("bad_request", text)


def too_long(said: str, code: str = "") -> bool:
    """Whether an error says that prompt and answer do not fit into the model's context, in whatever words.

    said: its message; code: its code and type. A limit of what may be asked per time is none of it.
    """
    if _LIMIT_OF_RATE.search(f"{code} {said}"):
        return False
    if _NO_ROOM.search(said) or any(one in code.split() for one in _TOO_LONG_CODES):
        return True
    return any(
        _LONG_THING.search(text) and _BEYOND.search(text) and _LENGTH.search(text) and not _OTHER_FIELD.search(text)
        for text in (said, code)
    )


def refused_field(failure: Failure, names: Iterable[str]) -> str | None:
    """The one of these fields of a request that an error is about, None where it names none."""
    if failure.kind != "bad_request" or not _REFUSES.search(failure.message):
        return None
    return next((name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", failure.message)), None)


def failure_in_stream(server: Server, error: Any) -> Failure:
    """An error that comes in place of the rest of an answer, where only its body has a code."""
    body = json.dumps({"error": error})
    codes = [error.get(name) for name in ("code", "status_code")] if isinstance(error, Mapping) else []
    code = next((code for code in codes if code is not None), None)
    if isinstance(code, str) and code.isdigit():
        code = int(code)
    status = code if isinstance(code, int) and 400 <= code < 600 else 500
    return failure_of_status(server, 500 if status == 401 else status, body)


def failure_of_exception(server: Server, error: Exception, seconds: float) -> Failure:
    """An attempt that ended in an exception. seconds: the limit of one request."""
    import httpx2

    name = type(error).__name__
    if isinstance(error, TimeoutError | asyncio.TimeoutError | httpx2.TimeoutException):
        return Failure("timeout", f"no complete answer within {seconds:g} seconds (--request-timeout)", retryable=True)
    if isinstance(error, httpx2.TransportError | OSError):
        why = server.hide(str(error))
        return Failure("server", f"the connection broke ({name}{f': {why}' if why else ''})", retryable=True)
    if isinstance(error, MalformedAnswer):
        return Failure("server", server.hide(str(error)), retryable=True)
    return Failure("internal", f"{name}: {server.hide(str(error))}")


class MalformedAnswer(Exception):
    """What came is not what the API promises: broken JSON, half a stream."""


def refused_key(server: Server, status: int) -> UsageError:
    what = f"the key in {server.key_env}" if server.has_key else "a request without a key"
    hint = (
        "is it this server's?"
        if server.has_key
        else f"put the key into {server.key_env}, or name its variable with --api-key-env"
    )
    return UsageError(f"{server.url} refuses {what} (HTTP {status}): {hint}")


def unreachable(server: Server, error: Exception) -> UsageError:
    import httpx2

    if isinstance(error, httpx2.ConnectTimeout):
        why = "no connection within 5 seconds"
    elif isinstance(error, httpx2.TimeoutException):
        why = "it is connected but does not answer"
    else:
        why = server.hide(str(error)) or type(error).__name__
    return UsageError(
        f"no server answers at {server.url} ({why}): is it running, and are host, port and path (/v1) right?"
    )


def read_error(body: str) -> tuple[str, str]:
    """(message, code and type) of an error's body, whatever its shape: {"error": {...}}, {"detail": ...}, a text."""
    try:
        parsed = json.loads(body)
    except (ValueError, RecursionError):
        return body[:2000], ""
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else parsed
    if not isinstance(error, dict):
        return str(error)[:2000], ""
    said = next((error[k] for k in ("message", "detail", "msg", "error", "text") if error.get(k)), error)
    return str(said)[:2000], f"{error.get('code', '')} {error.get('type', '')}"


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or an HTTP date; None when it says nothing."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
    return max(0.0, seconds) if seconds == seconds and seconds != float("inf") else None
