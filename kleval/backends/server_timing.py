"""Timed requests to an OpenAI-compatible server: each is sent at its time, and when each piece of its answer arrives is noted.

While a round is under way nothing is parsed (server_streams): bytes are put aside with the time at which they came and read
afterwards. Connections are kept open from round to round where the server lets them be.

How the server is spoken to is found out as for evaluation (server_opening), then with one short answer what else it takes:
`ignore_eos` and `min_tokens` so that answers have the length asked for, usage with every event. Prompts go as token ids where the
server takes them and tells some of its vocabulary (/tokenize); else as words.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from kleval.backends.server_address import Server
from kleval.backends.server_arrivals import Arrivals
from kleval.backends.server_errors import MalformedAnswer, failure_in_stream, failure_of_exception, failure_of_status
from kleval.backends.server_exchange import Received
from kleval.backends.server_http import client_for, fetch
from kleval.backends.server_opening import Served, choose_dialect
from kleval.backends.server_reply import Answer
from kleval.backends.server_streams import Streams
from kleval.backends.server_tokenizer import RemoteTokenizer
from kleval.backends.server_wire import NEUTRAL, Dialect, EventReader, chat_messages, read_object
from kleval.backends.spec import BackendSpec
from kleval.backends.timing import generator, random_tokens, random_words
from kleval.types import Failure, Outcome, Request, TimedRequest, Trace, UsageError

SHORT_SECONDS = 10.0
POOL_WORDS = 400  # of which the ids are taken that prompts are made of
_HITS = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_hits")


Judge = Callable[[Answer, float], Outcome]  # what an answer comes to that took so many seconds


class Free(NamedTuple):
    """A request of evaluation that is timed: how it is spoken, its body, when it is sent, and what makes its outcome."""

    request: Request
    dialect: Dialect
    body: dict[str, Any]
    submit_seconds: float
    judge: Judge


class _Sent(NamedTuple):
    path: str
    body: bytes
    submit_seconds: float
    judge: Judge | None


class ServerTiming:
    """Rounds of timed requests to one model of a server. pool: ids that prompts are made of, None: prompts are text.

    UsageError when made: the server refuses the key, or streams nothing that can be counted.
    """

    def __init__(self, server: Server, served: Served, spec: BackendSpec) -> None:
        self._server, self._served = server, served
        seed = secrets.token_hex(8)
        pool = None if spec.api == "chat" else vocabulary(server, served, seed)
        ids = None if pool is None else pool[:8]
        self._dialect, _ = choose_dialect(server, served, spec, ids, True)
        if not self._dialect.stream:
            raise UsageError(
                f"{server.url} does not count tokens in its streams (stream_options.include_usage), so no time per token can be "
                "measured: use a server that does"
            )
        self.pool = pool if self._dialect.prompts == "ids" else None
        self._streams = Streams(server, spec.request_timeout, served.keeps_connections)
        self._seconds = spec.request_timeout
        self._asking: Any = None  # an httpx2.Client for questions between rounds
        self._extra = self._find_out(seed)

    def describe(self) -> dict[str, Any]:
        version = f" {self._served.version}" if self._served.version else ""
        options = self._extra.get("stream_options", {})
        each = options.get("continuous_usage_stats") or self._extra.get("timings_per_token")
        return {
            "backend": "openai",
            "server": self._server.url,
            "software": self._served.software,
            "prompts": {"ids": "token ids", "text": "text", "messages": "chat"}[self._dialect.prompts],
            "ignore_eos": bool(self._extra.get("ignore_eos")),
            "usage": "every event" if each else "last event",
            "environment": {"server_software": f"{self._served.software}{version}", "served_from": self._served.root},
        }

    def timed(self, requests: Sequence[TimedRequest], together: int | None = None) -> list[Trace]:
        """Answers of the length asked for. UsageError when the key is refused."""
        return self._counted([self._filled(one, self._extra) for one in requests], together)

    def free(self, requests: Sequence[Free], together: int | None = None) -> list[Trace]:
        """Answers as they would be given without being timed. UsageError when the key is refused."""
        told = {name: value for name, value in self._extra.items() if name in ("stream_options", "timings_per_token")}
        sent = []
        for one in requests:
            body = one.dialect.encode({**one.body, **told, "stream": True})
            sent.append(_Sent(one.dialect.path(one.request), body, one.submit_seconds, one.judge))
        return self._counted(sent, together)

    def _counted(self, sent: Sequence[_Sent], together: int | None) -> list[Trace]:
        """With how many tokens came from the server's cache, where it counts them for all its users alone."""
        before = self._hits()
        traces = self._send(sent, together)
        told = [trace.cached_tokens is not None for trace in traces if trace.failure is None]
        after = None if before is None or all(told) else self._hits()
        if before is None or after is None or not 0 <= after - before <= sum(t.prompt_tokens or 0 for t in traces):
            return traces  # of several servers behind one address another was asked, or it is the others' requests that were counted
        each, more = divmod(after - before, len(traces))
        return [dataclasses.replace(t, cached_tokens=each + (i < more)) for i, t in enumerate(traces)]

    def close(self) -> None:
        self._streams.close()
        if self._asking is not None:
            self._asking.close()

    def _find_out(self, seed: object) -> dict[str, Any]:
        """Fields that the server takes besides the API's own. UsageError: it answers nothing."""
        failure: Failure | None = None
        for number, extra in enumerate(_variants(self._dialect)):
            rng = generator(seed, "probe", number)
            ids = None if self.pool is None else tuple(random_tokens(self.pool, 16, rng))
            request = Request("generate", "" if ids else random_words(16, rng), max_new_tokens=2, token_ids=ids)
            failure = self._send([self._filled(TimedRequest(request), extra)])[0].failure
            if failure is None:
                return extra
            if failure.kind not in ("bad_request", "server"):
                break
        self.close()
        said = failure.message if failure else "nothing"
        raise UsageError(f"{self._server.url} does not stream an answer of {self._served.model}: {said}")

    def _filled(self, one: TimedRequest, extra: dict[str, Any]) -> _Sent:
        """A request whose answer has all the tokens that it may."""
        request, chat = one.request, self._dialect.prompts == "messages"
        n_out = request.max_new_tokens
        prompt: Any = chat_messages(request) if chat else request.prompt
        if not chat and request.token_ids is not None and self._dialect.prompts == "ids":
            prompt = list(request.token_ids)
        body = {"model": self._served.model, "messages" if chat else "prompt": prompt}
        body |= {self._dialect.budget if chat else "max_tokens": n_out, "stream": True}
        body |= extra | ({"min_tokens": n_out} if "min_tokens" in extra else {})
        path = "/chat/completions" if chat else "/completions"
        return _Sent(path, self._dialect.encode(body), one.submit_seconds, None)

    def _send(self, sent: Sequence[_Sent], together: int | None = None) -> list[Trace]:
        bodies, delays = [(one.path, one.body) for one in sent], [one.submit_seconds for one in sent]
        received = zip(sent, self._streams.ask(bodies, delays, together), strict=True)
        return [read_trace(self._server, self._served, self._seconds, got, one.judge) for one, got in received]

    def memory_told(self) -> dict[str, Any]:
        """What the server says of its caches: `metrics` (vLLM) or `props` (llama.cpp); empty where it says nothing."""
        if self._served.software == "vllm" and (text := self._page("/metrics")):
            return {"metrics": text}
        if self._served.software == "llama.cpp" and (text := self._page("/props")):
            with suppress(MalformedAnswer):
                return {"props": read_object(text.encode(), "/props")}
        return {}

    def _hits(self) -> int | None:
        """Prompt tokens that the server has taken from its prefix cache so far, for all its users; None: it does not tell."""
        text = self._page("/metrics") if self._served.software == "vllm" else None
        return None if text is None else read_hits(text)

    def _page(self, path: str) -> str | None:
        """A page beside the API; None where there is none."""
        import httpx2

        if self._asking is None:
            self._asking = client_for(self._server, SHORT_SECONDS)
        with suppress(httpx2.HTTPError):
            response = fetch(self._asking, "GET", self._server.root + path, SHORT_SECONDS)
            if response.status == 200:
                return response.text
        return None


def read_trace(server: Server, served: Served, seconds: float, got: Received, judge: Judge | None = None) -> Trace:
    """What one request came to. seconds: how long it was allowed to take. judge: of a free one. UsageError when the key is refused."""
    if got.status not in (0, 200):
        text = b"".join(piece for _, piece in got.pieces).decode("utf-8", "replace")
        return Trace(got.submitted, failure=failure_of_status(server, got.status, text))
    arrivals, reader, error = Arrivals(), EventReader(), got.error
    answer = arrivals.answer
    try:
        for (moment, piece), late in zip(got.pieces, got.late, strict=True):
            for event in reader.feed(piece):
                arrivals.take(event, moment, late)
    except MalformedAnswer as malformed:
        error = error or malformed
    failure, found = None, arrivals.found()
    if answer.error is not None:
        failure = failure_in_stream(server, answer.error)
    elif error is not None:
        failure = failure_of_exception(server, error, seconds)
    elif answer.model is not None and not served.accepts(answer.model):
        name = server.hide(answer.model)
        failure = Failure("server", f"the server answered as {name} where {served.model} was asked")
    elif not reader.ended and answer.finish is None:
        failure = Failure("server", f"the stream ended in the middle, after {len(found)} pieces")
    outcome: Outcome | None = failure
    if judge is not None and failure is None:
        answer.ended = reader.ended
        outcome = judge(answer, (found[-1].seconds if found else got.submitted) - got.submitted)
        failure = outcome if isinstance(outcome, Failure) else None
    n_out = answer.count("completion_tokens")
    if n_out is not None and len(found) <= n_out - answer.unseen_tokens:
        n_out -= answer.unseen_tokens  # they never arrived
    return Trace(
        got.submitted,
        found,
        n_out,
        answer.count("prompt_tokens"),
        answer.cached_tokens,
        failure=failure,
        late_seconds=max(got.submitted - got.due, 0.0),
        connect_seconds=got.connect_seconds,
        outcome=outcome,
    )


def vocabulary(server: Server, served: Served, seed: object) -> list[int] | None:
    """Ids that occur in ordinary text, from the server's tokenizer; None where it has none."""
    text = random_words(POOL_WORDS, generator(seed, "vocabulary"))
    with suppress(UsageError):
        return sorted(set(RemoteTokenizer.speaking(server, served.model, SHORT_SECONDS).encode(text)))
    return None


def read_hits(metrics: str) -> int | None:
    """The sum of vLLM's prefix cache hits, in tokens, over all its engines; None where there is no such line."""
    found = [
        line.rsplit(" ", 1)[-1] for line in metrics.splitlines() if line.split("{", 1)[0].split(" ", 1)[0] in _HITS
    ]
    try:
        return int(sum(map(float, found))) if found else None
    except (ValueError, OverflowError):
        return None


def _variants(dialect: Dialect) -> Iterator[dict[str, Any]]:
    """Fields besides the API's own, the most wanted first."""
    usage: dict[str, Any] = {"stream_options": {"include_usage": True}}
    each = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    greedy: dict[str, Any] = {"temperature": 0.0}
    if dialect.software in ("vllm", "sglang"):
        yield greedy | NEUTRAL[dialect.software] | each | {"ignore_eos": True, "min_tokens": 0}
    if dialect.software == "llama.cpp":
        yield greedy | usage | {"ignore_eos": True, "timings_per_token": True}
    yield greedy | usage | {"ignore_eos": True}
    yield greedy | usage
    yield usage
