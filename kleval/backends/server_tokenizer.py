"""The tokenizer of a served model: its files where they are here, else the server's own, over HTTP.

vLLM and SGLang have POST /tokenize and /detokenize beside /v1. Sending ids needs ids that are the served model's: a tokenizer
from files is compared with the server's on a probe text where the server has one.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleval.backends.server_address import Server
from kleval.backends.server_errors import read_error
from kleval.tokenization import Rendered, has_tokenizer, join_prompt, load_tokenizer, read_tokenizer, split_begin
from kleval.types import Message, Prompt, Tokenizer, UsageError

PROBE = "The quick brown fox, 12345 times: “naïve” 東京 🦊\n\n\tdef f(x):  return x  # ok\n"
_CHAT_PROBE = ({"role": "system", "content": "a"}, {"role": "user", "content": "b"})
_USER_PROBE = ({"role": "user", "content": "b"},)
_CACHE_CHARACTERS = 64_000_000
LONGEST_REPLY = 64 << 20  # bytes
LONGEST_WAIT = 7 * 86400.0  # seconds: sockets take no more than 24 days, and no infinity


class _Refused(UsageError):
    """The server is there and will not do it."""


class RemoteTokenizer:
    """kleval.types.Tokenizer through a server's /tokenize; what it was asked before it answers itself.

    digest: of the model's name and what the server makes of a probe. Messages are rendered by the server's chat template
    where the model has one. eos_id is unknown. Encoding a text is a request: long texts are slow to measure this way.
    """

    eos_id: int | None = None
    digest = ""
    chat_template_digest = ""

    def __init__(self, server: Server, model: str, timeout: float = 60.0) -> None:
        self.name = f"server:{model}"
        self._server, self._model, self._timeout = server, model, timeout
        self._client: Any = None
        self._ids: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._characters = 0
        self.begin_ids: list[int] = []
        self.begin = self.own_begin = ""
        self.begin_rule = "none"
        self._template_args: dict[str, Any] = {}

    @classmethod
    def opened(cls, server: Server, model: str) -> RemoteTokenizer:
        """With its digests. UsageError when the server does not tokenize."""
        found = cls(server, model)
        found.begin_ids, found.begin = found._begin()
        found.own_begin, found.begin_rule = found.begin, "the server's /tokenize" if found.begin else "none"
        known = [model, found.encode(PROBE), *([found.begin_ids] if found.begin_ids else [])]
        found.digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()
        found.template_args({})
        return found

    def begin_with(self, mode: str) -> None:
        """As `kleval.tokenization.ModelTokenizer`. UsageError where `yes` finds none that the server adds."""
        if mode == "yes" and not self.begin:
            raise UsageError(f"{self._server.url} puts no begin token before a text: leave out --add-bos yes")
        if mode == "no" and self.begin:
            self.begin, self.digest = "", hashlib.sha256(f"{self.digest} {mode}".encode()).hexdigest()
        if mode != "auto":
            self.begin_rule = f"--add-bos {mode}"

    def template_args(self, args: Mapping[str, Any]) -> None:
        """Give the server's chat template further variables."""
        self._template_args = dict(args)
        rendered = self._template(_CHAT_PROBE) or self._template(_USER_PROBE)
        self.chat_template_digest = hashlib.sha256(rendered.encode()).hexdigest() if rendered else ""

    def _begin(self) -> tuple[list[int], str]:
        """The tokens that the server puts before a text of its own accord, and how they are written; none where it tells of none."""
        plain, whole = (self._ask("/tokenize", prompt="a", add_special_tokens=add)["tokens"] for add in (False, True))
        n = len(whole) - len(plain)
        if n <= 0 or whole[n:] != plain:
            return [], ""
        return list(whole[:n]), self.decode(whole[:n]) or "<bos>"

    def encode(self, text: str) -> list[int]:
        begin, text = split_begin(text)
        return [*(self.begin_ids if begin else ()), *self._encode(text)]

    def _encode(self, text: str) -> list[int]:
        if text not in self._ids:
            answer = self._ask("/tokenize", prompt=text, add_special_tokens=False)
            self._ids[text] = tuple(answer["tokens"])
            self._characters += len(text)
            while self._characters > _CACHE_CHARACTERS and len(self._ids) > 1:
                self._characters -= len(self._ids.popitem(last=False)[0])
        self._ids.move_to_end(text)
        return list(self._ids[text])

    def decode(self, ids: Sequence[int]) -> str:
        if not ids:
            return ""
        answer = self._ask("/detokenize", tokens=list(ids))
        return str(answer["prompt"] if "prompt" in answer else answer["text"])

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        if isinstance(prompt, str) or not self.chat_template_digest:
            return Rendered.of(self.begin, join_prompt(prompt, answer_prefix))
        rendered = self._template(prompt)
        if rendered is None:
            raise UsageError(f"the chat template of {self._model} on {self._server.url} cannot render this prompt")
        return rendered + answer_prefix

    def _template(self, messages: Sequence[Message]) -> str | None:
        """Messages as the server's template writes them; None when it has none or refuses. The text must give the same ids."""
        try:
            answer = self._ask(
                "/tokenize", messages=[dict(m) for m in messages], add_generation_prompt=True, add_special_tokens=False,
                **({"chat_template_kwargs": self._template_args} if self._template_args else {}),
            )  # fmt: skip
        except _Refused:
            return None
        text = self.decode(answer["tokens"])
        if self.encode(text) != list(answer["tokens"]):
            raise UsageError(
                f"the chat template of {self._model} on {self._server.url} cannot be used as text: give its tokenizer with "
                "--tokenizer hf:PATH"
            )
        return text

    def _ask(self, path: str, **body: Any) -> dict[str, Any]:
        """UsageError when the server does not answer as it should."""
        import httpx2

        if self._client is None:
            self._client = client_for(self._server, self._timeout)
        url = self._server.root + path
        content = json.dumps({"model": self._model, **body}).encode("ascii")
        response: Reply | None = None
        said = ""
        for _ in range(2):  # a connection that has been idle for long may be closed when it is used again
            try:
                response = fetch(self._client, "POST", url, self._timeout, content)
                break
            except httpx2.HTTPError as error:
                said = self._server.hide(f"{type(error).__name__}: {error}")
        if response is not None and response.status == 200:
            try:
                answer = response.json()
                wanted = {"tokens"} if path == "/tokenize" else {"prompt", "text"}
                if isinstance(answer, dict) and any(answer.get(key) is not None for key in wanted):
                    return answer
            except ValueError:
                pass
            said = "an answer of another form"
        elif response is not None:
            said = f"HTTP {response.status} {self._server.hide(read_error(response.text)[0])}"
        refused = response is not None and 400 <= response.status < 500
        kind = _Refused if refused else UsageError
        raise kind(f"{url} does not tokenize ({said}): name the model's tokenizer with --tokenizer hf:PATH")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None, "_ids": OrderedDict(), "_characters": 0}


def client_for(server: Server, read_seconds: float) -> Any:
    """An httpx2.Client for a few short questions. UsageError where the environment names a proxy that cannot be used."""
    import httpx2

    try:
        return httpx2.Client(
            headers=list(server.headers),
            params=list(server.params) or None,
            timeout=httpx2.Timeout(min(read_seconds, LONGEST_WAIT), connect=5.0),
            trust_env=not server.is_local,
        )
    except (ImportError, ValueError, httpx2.InvalidURL) as error:
        why = "a SOCKS proxy needs: pip install socksio" if isinstance(error, ImportError) else "it is no address"
        raise UsageError(
            f"the proxy in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY cannot be used ({why}): correct it, or name the server's host "
            "in NO_PROXY"
        ) from None


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent, whole and unpacked."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """ValueError for what is not JSON."""
        try:
            return json.loads(self.content)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error


def fetch(client: Any, method: str, url: str, seconds: float, content: bytes | None = None) -> Reply:
    """One question. httpx2.ReadTimeout after `seconds`, whatever comes meanwhile: httpx2's own limits begin anew with every byte,
    be it of a header. httpx2.HTTPError for an answer that would fill the memory."""
    import httpx2

    box: queue.SimpleQueue[Reply | Exception] = queue.SimpleQueue()
    stop = time.monotonic() + seconds

    def ask() -> None:
        try:
            box.put(_fetch(client, method, url, stop, content))
        except Exception as error:
            box.put(error)

    threading.Thread(target=ask, name="kleval-question", daemon=True).start()
    try:
        got = box.get(timeout=min(seconds, LONGEST_WAIT))
    except queue.Empty:
        raise httpx2.ReadTimeout("no end of the answer") from None
    if isinstance(got, Exception):
        raise got
    return got


def _fetch(client: Any, method: str, url: str, stop: float, content: bytes | None) -> Reply:
    """fetch, in a thread that ends itself some time after nobody waits for it any more."""
    import httpx2

    size, pieces = 0, []
    headers = {} if content is None else {"Content-Type": "application/json"}
    with client.stream(method, url, content=content, headers=headers) as response:
        for piece in response.iter_bytes():
            pieces.append(piece)
            size += len(piece)
            if size > LONGEST_REPLY:
                raise httpx2.ReadError(f"an answer of more than {LONGEST_REPLY >> 20} MiB")
            if time.monotonic() > stop:
                raise httpx2.ReadTimeout("no end of the answer")
    return Reply(response.status_code, response.headers, b"".join(pieces))


def counts_only(spec: str | None) -> bool:
    """Whether a tokenizer measures lengths but is not a model's: `words`, `tiktoken:NAME`."""
    return spec is not None and not spec.startswith("hf:")


def find_tokenizer(spec: str | None, names: Sequence[str], server: Server, model: str, chat: bool) -> Tokenizer:
    """The tokenizer of the served model: as spec names it, from the folders or cached hub ids among names, or the server's.

    One that only counts is used where there is no other, and for the chat endpoint, which is sent no tokens.
    UsageError when there is none.
    """
    if spec is not None and (chat or not counts_only(spec)):
        return load_tokenizer(spec)
    for name in names:
        folder = _folder(name)
        if folder is not None:
            return read_tokenizer(folder, name=name)
    try:
        return RemoteTokenizer.opened(server, model)
    except UsageError as error:
        if spec is not None:
            return load_tokenizer(spec)
        raise UsageError(
            f"the tokenizer of {model} is not here and {server.url} does not tokenize: add --tokenizer hf:PATH "
            "(the model's), or tiktoken:NAME or words to measure lengths with"
        ) from error


def compare(tokenizer: Tokenizer, server: Server, model: str) -> str:
    """`equal` when the server makes the same ids of a probe text, `unknown` when it does not tell. UsageError: others."""
    if isinstance(tokenizer, RemoteTokenizer):
        return "equal"
    try:
        theirs = RemoteTokenizer(server, model).encode(PROBE)
    except UsageError:
        return "unknown"
    if theirs != tokenizer.encode(PROBE):
        raise UsageError(
            f"the tokenizer {tokenizer.name} is not that of {model} on {server.url}, they cut a text into different tokens: "
            "give the served model's with --tokenizer hf:PATH"
        )
    return "equal"


def _folder(name: str) -> Path | None:
    """A model folder here, or a hub id in the local cache, that holds a tokenizer; nothing is downloaded."""
    from kleval.models.checkpoint.hub import is_hub_id

    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder if has_tokenizer(folder) else None
    if not is_hub_id(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = name.partition("@")
    for file in ("tokenizer.json", "tiktoken.model"):
        found = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(found, str):
            return Path(found).parent
    return None
