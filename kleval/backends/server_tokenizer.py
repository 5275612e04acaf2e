"""A server's own tokenizer, over HTTP.

vLLM and SGLang have POST /tokenize and /detokenize beside /v1; so has llama.cpp's server, with fields of other names; and
llama-cpp-python's has /extras/tokenize.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kleval.backends.server_address import Server
from kleval.backends.server_errors import read_error
from kleval.backends.server_http import Reply, client_for, fetch
from kleval.tokenization import (
    PROBE,
    Rendered,
    check_growth,
    dates,
    join_prompt,
    split_begin,
)
from kleval.types import Message, Prompt, UsageError

_CHAT_PROBE = ({"role": "system", "content": "a"}, {"role": "user", "content": "b"})
_USER_PROBE = ({"role": "user", "content": "b"},)
_STAND_IN = "<|im_start|>"
_CACHE_CHARACTERS = 64_000_000
_LEAST_KNOWN, _KNOWN = 20, 200  # characters of a message, that show where it begins in a rendered prompt


@dataclass(frozen=True, slots=True)
class _Form:
    """How one kind of server tokenizes. text: the field that holds it. special: the field that asks for special tokens, "" where they
    are always added. template: the path that renders messages, "" where `path` takes them, None where nothing does."""

    path: str
    text: str
    special: str
    template: str | None

    def body(self, text: str, special: bool = False) -> dict[str, Any]:
        return {self.text: text, **({self.special: special} if self.special else {})}


_FORMS = (
    _Form("/tokenize", "prompt", "add_special_tokens", ""),  # vLLM, SGLang
    _Form("/tokenize", "content", "add_special", "/apply-template"),  # llama.cpp's own server
    _Form("/extras/tokenize", "input", "", None),  # llama-cpp-python's
)
_TEXTS = ("prompt", "text", "content")  # where a text stands in what /detokenize and /apply-template answer


class _Refused(UsageError):
    """The server is there and will not do it."""


class RemoteTokenizer:
    """kleval.types.Tokenizer through a server's /tokenize; what it was asked before it answers itself.

    digest: of the model's name and what the server makes of a probe. Messages are rendered by the server's chat template
    where the model has one: for one that has none llama.cpp writes ChatML, whose marks are then no tokens of the model's, and its
    messages are joined as text. prints_date: whether the template writes the day's date, in place of which prompts that are rendered
    here have that of `kleval.tokenization.dates`. eos_id is unknown. Encoding a text is a request: long texts are slow to measure
    this way.
    """

    eos_id: int | None = None
    digest = ""
    chat_template_digest = ""

    def __init__(self, server: Server, model: str, form: _Form, timeout: float = 60.0) -> None:
        self.name = f"server:{model}"
        self._server, self._model, self._form, self._timeout = server, model, form, timeout
        self._client: Any = None
        self._ids: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._characters = 0
        self.begin_ids: list[int] = []
        self.begin = self.own_begin = ""
        self.begin_rule = "none"
        self._always_begin = False
        self._template_args: dict[str, Any] = {}
        self.prints_date = self._dates = False

    @classmethod
    def speaking(cls, server: Server, model: str, timeout: float = 60.0) -> RemoteTokenizer:
        """In the form that the server answers in. UsageError when it does not tokenize."""
        errors: list[UsageError] = []
        for form in _FORMS:
            found = cls(server, model, form, timeout)
            try:
                found.begin_ids, found.begin = found._begin()
                check_growth(found)
                return found
            except UsageError as error:
                errors.append(error)
        answered = [error for error in errors if not isinstance(error, _Refused)]
        raise (answered or errors)[0]

    @classmethod
    def opened(cls, server: Server, model: str) -> RemoteTokenizer:
        """With its digests. UsageError when the server does not tokenize."""
        found = cls.speaking(server, model)
        found.own_begin, found.begin_rule = found.begin, f"the server's {found._form.path}" if found.begin else "none"
        known = [model, found.encode(PROBE), *([found.begin_ids] if found.begin_ids else [])]
        found.digest = hashlib.sha256(json.dumps(known).encode()).hexdigest()
        found.template_args({})
        return found

    def begin_with(self, mode: str) -> None:
        """As `kleval.tokenization.ModelTokenizer`. UsageError where `yes` finds none that the server adds."""
        if mode == "yes" and not self.begin:
            raise UsageError(f"{self._server.url} puts no begin token before a text: leave out --add-bos yes")
        self._always_begin = mode == "yes"
        if mode == "no":
            self.begin = ""
        if mode != "auto":
            self.begin_rule = f"--add-bos {mode}"
            self.digest = hashlib.sha256(f"{self.digest} {mode}".encode()).hexdigest()

    def template_args(self, args: Mapping[str, Any]) -> None:
        """Give the server's chat template further variables."""
        self._template_args = dict(args)
        rendered = self._template(_CHAT_PROBE) or self._template(_USER_PROBE) or ""
        if _STAND_IN in rendered and len(self._encode(_STAND_IN)) > 1:
            rendered = ""
        self.prints_date = dates.with_date(rendered) != rendered
        self._dates = self.prints_date and dates.ARGUMENT not in args
        written = dates.with_date(rendered) if self._dates else rendered
        self.chat_template_digest = hashlib.sha256(written.encode()).hexdigest() if rendered else ""

    @property
    def template_deviations(self) -> tuple[str, ...]:
        """As `kleval.tokenization.ModelTokenizer`."""
        return (dates.SAID,) if self._dates else ()

    def _begin(self) -> tuple[list[int], str]:
        """The tokens that the server puts before a text of its own accord, and how they are written; none where it tells of none."""
        if self._form.special:
            plain, whole = (self._tokens(self._form.body("a", special)) for special in (False, True))
            n = len(whole) - len(plain)
            begin = whole[:n] if n > 0 and whole[n:] == plain else []
        else:
            begin = self._tokens(self._form.body(""))
        return begin, (self.decode(begin) or "<bos>") if begin else ""

    def encode(self, text: str) -> list[int]:
        begin, text = split_begin(text)
        return [*(self.begin_ids if begin else ()), *self._encode(text)]

    def _encode(self, text: str) -> list[int]:
        if text not in self._ids:
            ids = self._tokens(self._form.body(text))
            if not self._form.special and ids[: len(self.begin_ids)] == self.begin_ids:
                ids = ids[len(self.begin_ids) :]
            self._ids[text] = tuple(ids)
            self._characters += len(text)
            while self._characters > _CACHE_CHARACTERS and len(self._ids) > 1:
                self._characters -= len(self._ids.popitem(last=False)[0])
        self._ids.move_to_end(text)
        return list(self._ids[text])

    def decode(self, ids: Sequence[int]) -> str:
        return self._text(self._form.path.replace("tokenize", "detokenize"), tokens=list(ids)) if ids else ""

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        if isinstance(prompt, str) or not self.chat_template_digest:
            return Rendered.of(self.begin, join_prompt(prompt, answer_prefix))
        rendered = self._template(prompt)
        if rendered is None:
            raise UsageError(f"the chat template of {self._model} on {self._server.url} cannot render this prompt")
        if self._dates:
            rendered = dates.with_date(rendered, _first_message(rendered, prompt))
        return Rendered.of(self.begin if self._always_begin else "", rendered + answer_prefix)

    def _template(self, messages: Sequence[Message]) -> str | None:
        """Messages as the server's template writes them; None when it has none or refuses. The text must give the same ids."""
        body: dict[str, Any] = {"messages": [dict(m) for m in messages], "add_generation_prompt": True}
        body |= {"chat_template_kwargs": self._template_args} if self._template_args else {}
        try:
            if self._form.template is None:
                return None
            if self._form.template:
                return self._text(self._form.template, **body)
            ids = self._tokens(body | {self._form.special: False})
        except _Refused:
            return None
        text = self.decode(ids)
        if self.encode(text) != ids:
            raise UsageError(
                f"the chat template of {self._model} on {self._server.url} cannot be used as text: give its tokenizer with "
                "--tokenizer hf:PATH"
            )
        return text

    def _tokens(self, body: dict[str, Any]) -> list[int]:
        ids = self._ask(self._form.path, ("tokens",), body)
        if not isinstance(ids, list) or not all(type(token) is int for token in ids):
            raise self._unusable(self._form.path, "an answer of another form")
        return ids

    def _text(self, path: str, **body: Any) -> str:
        return str(self._ask(path, _TEXTS, body))

    def _unusable(self, path: str, said: str, kind: type[UsageError] = UsageError) -> UsageError:
        url = self._server.root + path
        return kind(f"{url} does not tokenize ({said}): name the model's tokenizer with --tokenizer hf:PATH")

    def _ask(self, path: str, names: Sequence[str], body: dict[str, Any]) -> Any:
        """The first of the named fields that the answer has. UsageError when the server does not answer as it should."""
        import httpx2

        if self._client is None:
            self._client = client_for(self._server, self._timeout)
        content = json.dumps({"model": self._model, **body}).encode("ascii")
        response: Reply | None = None
        said = ""
        for _ in range(2):  # a connection that has been idle for long may be closed when it is used again
            try:
                response = fetch(self._client, "POST", self._server.root + path, self._timeout, content)
                break
            except httpx2.HTTPError as error:
                said = self._server.hide(f"{type(error).__name__}: {error}")
        if response is not None and response.status == 200:
            try:
                answer = response.json()
                for name in names:
                    if isinstance(answer, dict) and answer.get(name) is not None:
                        return answer[name]
            except ValueError:
                pass
            said = "an answer of another form"
        elif response is not None:
            said = f"HTTP {response.status} {self._server.hide(read_error(response.text)[0])}"
        refused = response is not None and 400 <= response.status < 500
        raise self._unusable(path, said, _Refused if refused else UsageError)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None, "_ids": OrderedDict(), "_characters": 0}


def _first_message(rendered: str, messages: Sequence[Message]) -> int:
    """Where the first message begins that is long enough to be known; the longest where all are short. 0 where none is found."""
    contents = [m["content"].strip()[:_KNOWN] for m in messages]
    known = [one for one in contents if len(one) >= _LEAST_KNOWN] or [max(contents, key=len)]
    return min((at for one in known if (at := rendered.find(one)) >= 0), default=0)
