"""Finding out how a server is spoken to, before anything is asked of it: who it is, what it serves, which endpoint answers.

One question to /models, and one token generated per way that is tried: token ids, then text, then chat. Everything that would
fail each request (no server, no such model, a wrong key, a server that counts nothing) is a UsageError here.
"""

from __future__ import annotations

import difflib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from kleval.backends.server_address import Server
from kleval.backends.server_errors import MalformedAnswer, read_error, refused_key, retry_after, unreachable
from kleval.backends.server_http import Reply, client_for, fetch
from kleval.backends.server_reply import Answer, repeat_all_before
from kleval.backends.server_wire import Dialect, EventReader, Prompts, Software, read_object, stream_options
from kleval.backends.spec import BackendSpec, json_or_text
from kleval.types import UsageError

LOOK_SECONDS = 15.0
BUSY_SECONDS = 60.0
PROBE_TOKENS = 16  # some hosted models refuse a chat of fewer
_DATED = re.compile(r"[-:@]?(?:\d{4}-?\d{2}-?\d{2}|\d{4}|latest)?")
_OWNERS: dict[str, Software] = {"vllm": "vllm", "sglang": "sglang", "llamacpp": "llama.cpp"}


@dataclass(frozen=True, slots=True)
class Served:
    """A model as a server lists it. root: where its weights come from. names: what it may call itself in answers."""

    model: str
    software: Software = "other"
    version: str | None = None
    root: str | None = None
    max_ctx: int | None = None
    names: frozenset[str] = field(default_factory=frozenset)

    @property
    def keeps_connections(self) -> bool:
        """llama.cpp closes one after every streamed answer, whatever its header says: a next request on it would be lost."""
        return self.software != "llama.cpp"

    def accepts(self, name: str) -> bool:
        """Whether an answer under this name is the model's: one of its names, or one with the date of a version added."""
        return any(_same(name, known) for known in self.names | {self.model})


def _same(name: str, known: str) -> bool:
    if "/" not in name or "/" not in known:  # services put a vendor before the name, and leave it out
        name, known = name.rpartition("/")[2], known.rpartition("/")[2]
    return name.startswith(known) and _DATED.fullmatch(name[len(known) :]) is not None


def look(server: Server, model: str, called: str | None = None) -> tuple[Server, Served]:
    """Who answers and whether it serves the model, which may be `called` something else in its list and its answers. The server may
    come back with /v1 added to its address.

    UsageError: unreachable, refused, or the model is not among those that it lists.
    """
    import httpx2

    with client_for(server, LOOK_SECONDS) as client:
        try:
            response = fetch(client, "GET", server.url + "/models", LOOK_SECONDS)
            if response.status == 404 and not server.url.endswith("/v1"):
                with_v1 = replace(server, url=server.url + "/v1")
                second = fetch(client, "GET", with_v1.url + "/models", LOOK_SECONDS)
                if second.status != 404:
                    server, response = with_v1, second
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise unreachable(server, error) from None
        if response.status in (401, 403):
            raise refused_key(server, response.status)
        if 300 <= response.status < 400:
            raise UsageError(f"{server.url} sends on to another address: give that as --base-url")
        entries = _entries(response)
        served = _served(server, model, called, entries) if entries else Served(model)
        version = None
        if served.software == "vllm":
            with suppress(httpx2.HTTPError, ValueError, AttributeError):
                told = fetch(client, "GET", server.root + "/version", LOOK_SECONDS).json().get("version")
                version = server.hide(told) if isinstance(told, str) else None
    names = served.names | {model} | ({called} if called else set())
    return server, replace(served, version=version, names=frozenset(names))


def _entries(response: Reply) -> list[Mapping[str, Any]]:
    """What /models lists; nothing where a server has no such list, or one of another form."""
    try:
        data = response.json().get("data") if response.status == 200 else None
    except (ValueError, AttributeError):
        return []
    return (
        [e for e in data if isinstance(e, dict) and isinstance(e.get("id"), str) and e["id"]]
        if isinstance(data, list)
        else []
    )


def _served(server: Server, model: str, called: str | None, entries: Sequence[Mapping[str, Any]]) -> Served:
    listed = [(name, e) for name in (model, called) if name for e in entries if e["id"] == name or name in _aliases(e)]
    if not listed:
        names = [e["id"] for e in entries]
        near = difflib.get_close_matches(model, names, 5, 0.4)
        shown = near or names[:8]
        more = f" and {len(names) - len(shown)} others" if len(names) > len(shown) else ""
        said = server.without_secrets(" ".join(", ".join(shown).split()))[:500]
        raise UsageError(f"{server.url} does not serve {model}: --model is one of {said}{more}")
    name, found = listed[0]
    root = server.without_secrets(found["root"]) if isinstance(found.get("root"), str) else None
    same = [e["id"] for e in entries if root is not None and e.get("root") == found["root"]]
    own = frozenset([found["id"], *same, *_aliases(found), *([root] if root else [])])
    software = _OWNERS.get(str(found.get("owned_by")), "other")
    if found.get("owned_by") == "me" and "permissions" in found:
        software = "llama-cpp-python"
    return Served(name, software, None, root, _limit(found), own)


def _aliases(entry: Mapping[str, Any]) -> list[str]:
    names = entry.get("aliases")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _limit(entry: Mapping[str, Any]) -> int | None:
    """The longest prompt + answer, under the name that each kind of server gives it."""
    meta = entry.get("meta")
    places = [(entry, name) for name in ("max_model_len", "context_length", "context_window", "max_context_length")]
    if isinstance(meta, dict):
        places.append((meta, "n_ctx"))
    return next((v for at, name in places if isinstance(v := at.get(name), int) and v > 0), None)


def choose_dialect(
    server: Server, served: Served, spec: BackendSpec, ids: Sequence[int] | None, has_template: bool
) -> tuple[Dialect, str]:
    """How prompts are sent, and the name that the model answers under. ids: some tokens of the model, None when unknown.

    spec.api: `completions` and `chat` are as the user said; `auto` takes the first that answers of ids, text and chat.
    has_template: whether messages can be rendered here; else they go to the chat endpoint, if the user allows it.
    UsageError when no way gives an answer with its tokens counted.
    """
    api, seconds = spec.api, spec.request_timeout
    fields = {name: json_or_text(text) for name, text in spec.request_fields.items()}
    ways: list[Prompts] = ["messages"] if api == "chat" else [*(["ids"] if ids else []), "text"]  # type: ignore[list-item]
    if api == "auto":
        ways.append("messages")
    said = ""
    with client_for(server, seconds) as client:
        for way in ways:
            dialect = Dialect(
                served.model,
                served.software,
                way,
                fields=fields,
                without=tuple(spec.without_fields),
                template_args=spec.template_args,
                adds_begin=not (spec.add_bos == "no" and served.software == "vllm"),
            )
            for attempt in _variants(dialect):
                answer, said_now = _try(client, server, attempt, ids, seconds)
                said = said_now or said
                if answer is None and said_now.startswith("HTTP 5"):
                    break  # another variant would not help
                if answer is None:
                    continue
                name = answer.model or served.model
                if not served.accepts(name):
                    raise UsageError(
                        f"{server.url} answers as {server.hide(name)} where {served.model} was asked: if that is the same "
                        f"model under another name, add --served-name {server.hide(name)}"
                    )
                chats = api == "auto" and way != "messages" and not has_template
                repeats = repeat_all_before(answer.texts) or repeat_all_before(answer.messages)
                return replace(attempt, chats=chats, repeats=repeats), server.without_secrets(name)
    endpoint = "/chat/completions" if ways == ["messages"] else "/completions"
    raise UsageError(f"{server.url}{endpoint} does not answer for {served.model}: {said}")


def _variants(dialect: Dialect) -> Iterator[Dialect]:
    """With and without streaming, and for chat under the newer name of the token limit."""
    yield dialect
    yield replace(dialect, stream=False)
    if dialect.prompts == "messages":
        yield replace(dialect, budget="max_completion_tokens")
        yield replace(dialect, budget="max_completion_tokens", stream=False)


def _try(
    client: Any, server: Server, dialect: Dialect, ids: Sequence[int] | None, seconds: float
) -> tuple[Answer | None, str]:
    """An answer of one way of asking; or None and what the server said."""
    chat = dialect.prompts == "messages"
    prompt: Any = list(ids or ()) if dialect.prompts == "ids" else "Hello"
    if chat:
        prompt = [{"role": "user", "content": "Hello"}]
    body = {"model": dialect.model, "messages" if chat else "prompt": prompt}
    body[dialect.budget if chat else "max_tokens"] = PROBE_TOKENS if chat else 1
    content = dialect.encode(body | stream_options(dialect.stream))
    status, raw = _post(client, server, "/chat/completions" if chat else "/completions", content, seconds)
    text = raw.decode("utf-8", "replace")
    if status in (401, 403):
        raise refused_key(server, status)
    if status != 200:
        return None, f"HTTP {status} {server.hide(read_error(text)[0])}"
    try:
        answer = Answer()
        for piece in _pieces(raw, dialect.stream):
            answer.feed(piece)
    except MalformedAnswer as error:
        return None, server.hide(str(error))
    if answer.error is not None or answer.choice is None:
        return None, server.hide(read_error(text)[0])
    n_prompt = answer.count("prompt_tokens")
    if n_prompt is None or answer.count("completion_tokens") is None:
        return None, "its answers do not tell how many tokens they have (usage)"
    if dialect.prompts == "ids" and n_prompt != len(ids or ()):
        return None, f"it counted {n_prompt} tokens where {len(ids or ())} were sent"
    return answer, ""


def _pieces(raw: bytes, stream: bool) -> Iterator[dict[str, Any]]:
    if not stream:
        yield read_object(raw, "the answer")
        return
    reader = EventReader()
    yield from reader.feed(raw)
    yield from reader.finish()


def _post(client: Any, server: Server, path: str, content: bytes, seconds: float) -> tuple[int, bytes]:
    """Status and body; a busy or stumbling server is asked again for a while. UsageError when it stays so, or is gone."""
    import httpx2

    stop, wait, stumbles = time.monotonic() + BUSY_SECONDS, 0.5, 0
    while True:
        again: float | None = None
        try:
            response = fetch(client, "POST", server.url + path, seconds, content)
            status, raw = response.status, response.content
            if status == 429:
                again = retry_after(response.headers.get("retry-after")) or wait
        except httpx2.TimeoutException as error:
            raise unreachable(server, error) from None
        except (httpx2.HTTPError, OSError) as error:
            if stumbles == 2:
                raise unreachable(server, error) from None
            status, raw = 0, b""
        if status in (0, 500, 502, 503, 504) and stumbles < 2:
            stumbles += 1
            again = wait
        if again is None:
            return status, raw
        if time.monotonic() + again > stop:
            said = server.hide(read_error(raw.decode("utf-8", "replace"))[0])
            raise UsageError(f"{server.url} takes no requests now (HTTP {status}: {said}): try again later")
        time.sleep(again)
        wait = min(8.0, wait * 2)
