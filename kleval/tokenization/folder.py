"""Common part of the tokenizers of model folders: `tokenizer_config.json`, special tokens, chat template."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kleval.tokenization.chat import join_prompt, render_chat
from kleval.types import Prompt, UsageError

CONFIG_FILE = "tokenizer_config.json"
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


class ModelTokenizer(ABC):
    """kleval.types.Tokenizer of one model. Special tokens in a text are encoded as such: chat templates write them.

    eos_id: the token that ends an answer, None when none is known. vocab_size: ids are below it.
    """

    def __init__(self, name: str, digest: str, config: Mapping[str, Any], template: str | None) -> None:
        self.name = name
        self.digest = digest
        self.chat_template_digest = hashlib.sha256(template.encode()).hexdigest() if template else ""
        self.eos_id: int | None = None
        self.vocab_size = 0
        self.special = {k: text for k in _NAMED if (text := token_text(config.get(k)))}
        self._config = dict(config)
        self._template = template

    @abstractmethod
    def encode(self, text: str) -> list[int]: ...

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str: ...

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        if isinstance(prompt, str) or self._template is None:
            return join_prompt(prompt, answer_prefix)
        return render_chat(self._template, prompt, self.special) + answer_prefix

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the files that `read_tokenizer` reads."""

    def _save_config(self, folder: Path, **more: Any) -> None:
        values = {**more, **self._config}
        if self._template is not None:
            values["chat_template"] = self._template
        (folder / CONFIG_FILE).write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json of a folder, empty when there is none. UsageError when it cannot be read."""
    file = folder / CONFIG_FILE
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read as JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def token_text(token: Any) -> str:
    """A token as tokenizer_config.json writes it: its text, or an object with its content."""
    if isinstance(token, dict):
        return str(token.get("content", ""))
    return token if isinstance(token, str) else ""
