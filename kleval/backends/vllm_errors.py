"""vLLM's exceptions in kleval's kinds of failure."""

from __future__ import annotations

from kleval.types import Failure

_TOO_LONG = ("maximum model length", "maximum context length", "max_model_len", "exceeds this limit")
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def failure_of(error: BaseException) -> Failure:
    """vLLM's exceptions in kleval's kinds. By class name: they are not ValueErrors, and their module has moved."""
    if is_dead(error):
        return Failure("server", "vLLM's engine ended, killed or out of memory: run again to ask what is left")
    text, names = str(error).lower(), {c.__name__ for c in type(error).__mro__}
    if any(words in text for words in _NO_MEMORY):
        return Failure("out_of_memory", line(error))
    if names & {"VLLMClientError", "ValueError"}:
        return Failure("context_overflow" if any(words in text for words in _TOO_LONG) else "bad_request", line(error))
    if "RetryableRequestError" in names:
        return Failure("server", line(error), retryable=True)
    return Failure("internal", line(error))


def is_dead(error: BaseException) -> bool:
    return type(error).__name__ == "EngineDeadError"


def line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:600]}" if text else type(error).__name__
