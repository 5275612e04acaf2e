"""Base of the tokenizers of model folders: `tokenizer_config.json`, special tokens, begin token, chat template.

The begin token of a plain prompt follows the tokenizer's own rule: what the post-processor of tokenizer.json puts first, as in
`transformers` 5; else `bos_token` where the config says `add_bos_token`, as in `transformers` 4 (5 then puts none). Messages
that a chat template renders get none beyond what the template writes, as transformers and vLLM do it. `begin_with` overrides the rule.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from kleval.tokenization.chat import ChatTemplate, Rendered, join_prompt
from kleval.tokenization.dates import SAID
from kleval.types import Prompt, UsageError

CONFIG_FILE = "tokenizer_config.json"
MAP_FILE = "special_tokens_map.json"
AddBos = Literal["auto", "yes", "no"]
ADD_BOS: tuple[str, ...] = get_args(AddBos)
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


class ModelTokenizer(ABC):
    """kleval.types.Tokenizer of one model. Special tokens in a text are encoded as such: chat templates write them.

    eos_id: the token that ends an answer, None when none is known. vocab_size: ids are below it.
    begin: the text that a plain prompt begins with, "" for none; `render` writes it, once. begin_rule: where that comes from.
    own_begin: what the tokenizer's own rule puts there, and so a server that is sent text.
    digest: of the files; with a begin token also of that, since it changes what every plain prompt is.
    """

    def __init__(self, name: str, digest: str, config: Mapping[str, Any], template: str | None) -> None:
        self.name = name
        self.digest = self.files_digest = digest
        self.eos_id: int | None = None
        self.vocab_size = 0
        self.special = {k: text for k in _NAMED if (text := token_text(config.get(k)))}
        self.begin = self.own_begin = ""
        self.begin_rule = "none"
        self._always_begin = False
        self._config = dict(config)
        self.use_template(template)

    def begin_with(self, mode: str) -> None:
        """Follow the tokenizer's own rule (`auto`), or put its begin token before every prompt (`yes`) or none (`no`).

        UsageError where `yes` finds no `bos_token`.
        """
        own = self._own_begin()
        found, rule = own if own[0] or self._config.get("add_bos_token") is not True else (
            self.special.get("bos_token", ""), "add_bos_token"
        )  # fmt: skip
        self.own_begin = found
        if mode == "no":
            found, rule = "", "--add-bos no"
        elif mode == "yes":
            found, rule = found or self.special.get("bos_token", ""), "--add-bos yes"
            if not found:
                raise UsageError(f"{self.name} names no bos_token: leave out --add-bos yes")
        elif mode != "auto":
            raise UsageError(f"--add-bos is one of {', '.join(ADD_BOS)}, not {mode!r}")
        self.begin, self.begin_rule, self._always_begin = (
            found,
            rule if found or mode == "no" else "none",
            mode == "yes",
        )
        said = f"{found} before messages too" if self._always_begin else found
        self.digest = hashlib.sha256(f"{self.files_digest} {said}".encode()).hexdigest() if said else self.files_digest

    def use_template(self, text: str | None, args: Mapping[str, Any] | None = None) -> None:
        """Render messages with this chat template (None: joined by newlines) and these arguments."""
        self.template = ChatTemplate(text, self.special, args) if text else None
        self.chat_template_digest = self.template.digest if self.template else ""

    def template_args(self, args: Mapping[str, Any]) -> None:
        """Give the chat template further variables. UsageError where there is no template, or one that does not read them."""
        if self.template is None:
            raise UsageError(f"{self.name} has no chat template: leave out --template-arg")
        if unread := [name for name in args if not re.search(rf"\b{re.escape(name)}\b", self.template.text)]:
            raise UsageError(
                f"--template-arg {unread[0]}: the chat template of {self.name} reads no variable of that name"
            )
        self.use_template(self.template.text, args)

    def deviations(self, prompt: Prompt) -> tuple[str, ...]:
        """What of a prompt the model sees otherwise than it stands."""
        return self.template.deviations(prompt) if self.template else ()

    @property
    def template_deviations(self) -> tuple[str, ...]:
        """What messages are rendered otherwise than they stand; () where there is no template, or none that works."""
        dated = (SAID,) if self.template and self.template.dated else ()
        with contextlib.suppress(UsageError):
            return (*self.deviations(({"role": "system", "content": ""}, {"role": "user", "content": ""})), *dated)
        return dated

    def _own_begin(self) -> tuple[str, str]:
        """What the tokenizer's files put before a text, and which of them says so."""
        return "", "none"

    @abstractmethod
    def encode(self, text: str) -> list[int]: ...

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str: ...

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        if isinstance(prompt, str) or self.template is None:
            text, begin = join_prompt(prompt, answer_prefix), self.begin
        else:
            text = self.template.render(prompt) + answer_prefix
            begin = self.begin if self._always_begin else ""
        return Rendered.of(begin, text)

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the files that `read_tokenizer` reads."""

    def _save_config(self, folder: Path, **more: Any) -> None:
        values = {**more, **self._config}
        if self.template is not None:
            values["chat_template"] = self.template.text
        (folder / CONFIG_FILE).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json of a folder, with the tokens that only special_tokens_map.json names, and the chat template that older
    models for text and pictures have in chat_template.json; empty when there is none of them.

    UsageError when one of them cannot be read.
    """
    config, named = _read(folder / CONFIG_FILE), _read(folder / MAP_FILE)
    if config.get("chat_template") is None and (template := _read(folder / "chat_template.json").get("chat_template")):
        config = {**config, "chat_template": template}
    return {**{key: named[key] for key in _NAMED if named.get(key) and not config.get(key)}, **{
        key: value for key, value in config.items() if not (key in _NAMED and value is None and named.get(key))
    }}  # fmt: skip


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read as JSON: {error}") from error
    return values if isinstance(values, dict) else {}


def mapped_tokens(folder: Path) -> list[str]:
    """The special tokens that special_tokens_map.json names."""
    named = _read(folder / MAP_FILE)
    return [text for key in _NAMED if (text := token_text(named.get(key)))]


def more_special(config: Mapping[str, Any]) -> list[str]:
    """The special tokens that tokenizer_config.json lists without a role (`additional_special_tokens`, `extra_special_tokens`)."""
    listed = [config.get(name) or () for name in ("additional_special_tokens", "extra_special_tokens")]
    each = [one for tokens in listed for one in (tokens.values() if isinstance(tokens, dict) else tokens)]
    return [text for token in each if (text := token_text(token))]


def added_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, int]:
    """Tokens that stand beside the vocabulary, with their ids: of `added_tokens_decoder`, and of an older added_tokens.json."""
    found = {text: i for text, i in _read(folder / "added_tokens.json").items() if isinstance(i, int)}
    decoder = config.get("added_tokens_decoder")
    for i, token in (decoder if isinstance(decoder, dict) else {}).items():
        if str(i).isdigit() and (text := token_text(token)):
            found[text] = int(i)
    return found


def token_text(token: Any) -> str:
    """A token as tokenizer_config.json writes it: its text, or an object with its content."""
    if isinstance(token, dict):
        return str(token.get("content", ""))
    return token if isinstance(token, str) else ""
