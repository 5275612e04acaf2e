"""Chat templates: jinja2 in its sandbox, with the helpers that Hugging Face's templates count on.

`raise_exception(message)`, `strftime_now(format)` (the date of `dates`: prompts are the same on every day), the filter `tojson`
without HTML escapes, loop controls, and `{% generation %}`. A template is tried when it is opened: a probe text in each role must be in
what it writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from kleval.tokenization.dates import ARGUMENT, DATE, DAY
from kleval.types import Message, Prompt, Tokenizer, UsageError


def join_prompt(prompt: Prompt, answer_prefix: str) -> str:
    """Prompt and answer prefix without a chat template; messages are their contents joined by newlines."""
    text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
    return text + answer_prefix


class Rendered(str):
    """A prompt as the model sees it, that begins with a token which the tokenizer adds and no template wrote.

    begin: that token's text. It is encoded apart: some tokenizers cut the first word of a text otherwise behind a special token.
    """

    begin = ""

    @classmethod
    def of(cls, begin: str, text: str) -> str:
        if not begin or text.startswith(begin):
            return text
        made = cls(begin + text)
        made.begin = begin
        return made


def split_begin(rendered: str) -> tuple[str, str]:
    """The begin token that the tokenizer added ("" where it added none), and the text behind it."""
    begin: str = getattr(rendered, "begin", "")
    return begin, str(rendered)[len(begin) :]


def count_given(tokenizer: Tokenizer, prompt: Prompt, answer_prefix: str = "") -> int:
    """Tokens of a prompt whose bytes an official protocol fixes, without the begin token that its scripts do not count.

    The harness takes that token out of the generation budget where ctx has no room left for it.
    """
    return tokenizer.count(split_begin(tokenizer.render(prompt, answer_prefix))[1])


def find_template(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The chat template of a tokenizer: the file chat_template.jinja, else the field of tokenizer_config.json."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        try:
            return file.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise UsageError(f"{file} cannot be read as text: {error}") from error
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
        template = named.get("default")
    if not isinstance(template, str):
        return None
    try:
        template.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"the chat template in {folder / 'tokenizer_config.json'} is no text: {error}") from error
    return template


class TemplateError(ValueError):
    """A chat template that cannot render some messages."""


class ChatTemplate:
    """A chat template that was tried: what goes in comes out.

    text: the template. special: bos_token, eos_token and the like by name. args: further variables (`enable_thinking`).
    parts: whether content goes in as a list of parts, because a text does not come out. merges_system: whether the system's text
    goes before the first user message, because the template takes no such role or drops it.
    It is tried at its first use. UsageError where a user's message comes out in neither form.
    """

    def __init__(self, text: str, special: Mapping[str, str], args: Mapping[str, Any] | None = None) -> None:
        self.text, self.args = text, dict(args or {})
        self._special = dict(special)
        self._in_parts: dict[str, bool] = {}  # by role that was tried
        self._lost_roles: dict[str, str] = {}

    @cached_property
    def parts(self) -> bool:
        if why := self._try("user", _probe("user", 1)):
            raise UsageError(why)
        return self._in_parts["user"]

    @cached_property
    def merges_system(self) -> bool:
        return bool(self._try("system", _probe("system", 2), _probe("user", 1)))

    @property
    def digest(self) -> str:
        """sha256 (hex) of the template, of the arguments where there are some, and of the date where it prints one."""
        made_of = self.text + (f"\0{json.dumps(self.args, sort_keys=True)}" if self.args else "")
        made_of += f"\0{DATE}" if self.dated else ""
        return hashlib.sha256(made_of.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def dated(self) -> bool:
        """Whether it prints the day's date, unless it is told another."""
        return "strftime_now" in self.text and ARGUMENT not in self.args

    def deviations(self, prompt: Prompt) -> tuple[str, ...]:
        """What a prompt is rendered otherwise than it stands."""
        if isinstance(prompt, str):
            return ()
        found = ["contents are lists of parts: the chat template leaves out plain texts"] if self.parts else []
        if self.merges_system and any(m["role"] == "system" for m in prompt):
            found.append("the system's text is before the first user message: the chat template takes no system role")
        return tuple(found)

    def render(self, messages: Sequence[Message]) -> str:
        """Messages as the model sees them, up to where its answer begins.

        TemplateError when the template refuses, loses a role's text, or does what the sandbox forbids. The sandbox keeps a template
        away from the machine and its ranges below 100,000; how long nested loops take it does not limit.
        """
        if self.merges_system:
            messages = _merged(messages)
        for role in dict.fromkeys(m["role"] for m in messages if m["role"] not in ("user", "system")):
            if role not in self._lost_roles:
                self._lost_roles[role] = self._try(role, _probe("user", 1), _probe(role, 3), _probe("user", 4))
            if why := self._lost_roles[role]:
                raise TemplateError(why)
        return self._render(messages)

    def _try(self, role: str, *messages: Message) -> str:
        """Find out whether a role's content goes in as a text or, like the user's or not, as parts. Why in neither form, "" when it
        does."""
        usual = role != "user" and self.parts
        whys = []
        for self._in_parts[role] in (usual, not usual):
            whys.append(self._lost(messages))
            if not whys[-1]:
                return ""
        return whys[0]

    def _lost(self, messages: tuple[Message, ...]) -> str:
        """Why messages do not come out as they go in, "" when they do. What is written as a list of Python's is not that."""
        try:
            rendered = self._render(messages)
        except TemplateError as error:
            return str(error)
        missing = [m["role"] for m in messages if m["content"] not in rendered or f"text': '{m['content']}" in rendered]
        return f"the tokenizer's chat template leaves out what the {missing[0]} says" if missing else ""

    def _render(self, messages: Sequence[Message]) -> str:
        import jinja2

        failures = (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            ArithmeticError,
            LookupError,
            RecursionError,
            MemoryError,
        )
        given: list[dict[str, Any]] = [
            {**m, "content": [{"type": "text", "text": m["content"]}]} if self._in_parts.get(m["role"]) else dict(m)
            for m in messages
        ]
        try:
            values = {"tools": None, "documents": None, **self._special, **self.args}
            text: str = _compile(self.text).render(messages=given, add_generation_prompt=True, **values)
            return text
        except failures as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise TemplateError(f"the tokenizer's chat template cannot render this prompt: {said}") from error


_PROBE = "kleval probe"


def _probe(role: str, number: int) -> Message:
    return {"role": role, "content": f"{_PROBE} {number}"}


def _merged(messages: Sequence[Message]) -> list[Message]:
    """The system's texts before the first user message, as vLLM's users and lm-eval do by hand for such templates."""
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    others = [m for m in messages if m["role"] != "system"]
    if not system:
        return others
    first = next((i for i, m in enumerate(others) if m["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": system}, *others]
    content = f"{system}\n\n{others[first]['content']}"
    return [*others[:first], {"role": "user", "content": content}, *others[first + 1 :]]


@lru_cache(maxsize=1)
def _generation() -> Any:
    """The extension for transformers' `{% generation %}`, which marks the assistant's text for training: here its content alone."""
    import jinja2.ext
    from jinja2 import nodes

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> list[nodes.Node]:
            next(parser.stream)
            body: list[nodes.Node] = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return body

    return Generation


@lru_cache(maxsize=8)
def _compile(template: str) -> Any:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    # The result is a prompt, not HTML: escaping would change what the model sees.
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=["jinja2.ext.loopcontrols", _generation()]
    )
    env.globals["raise_exception"] = refuse
    env.globals["strftime_now"] = DAY.strftime
    env.filters["tojson"] = to_json
    return env.from_string(template)
