"""Tokenizer that a user holds as an object, or names: kleval's own, transformers', the tokenizers package's, or anything that encodes
and decodes.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from kleval.tokenization import has_tokenizer, load_tokenizer, read_tokenizer
from kleval.tokenization.chat import join_prompt
from kleval.tokenization.growth import PROBE
from kleval.tokenization.hf import HFTokenizer
from kleval.types import Prompt, Tokenizer, UsageError


def given_tokenizer(given: object, name: str) -> Tokenizer:
    """The tokenizer of a model, from whatever stands for it. name: what it is called where it has no name.

    UsageError for what neither encodes nor decodes.
    """
    if isinstance(given, str | Path):
        folder = Path(given).expanduser()
        return read_tokenizer(folder, str(given)) if folder.exists() else load_tokenizer(str(given))
    if all(hasattr(given, method) for method in ("encode", "decode", "count", "render", "digest")):
        return cast(Tokenizer, given)
    if hasattr(given, "save_pretrained"):
        with tempfile.TemporaryDirectory() as place:
            given.save_pretrained(place)
            if has_tokenizer(Path(place)):
                return read_tokenizer(Path(place), name)
    if hasattr(given, "to_str") and hasattr(given, "token_to_id"):
        import tokenizers

        text = given.to_str()
        core = tokenizers.Tokenizer.from_str(text)  # a copy: ours neither cuts nor pads
        return HFTokenizer(core, name, hashlib.sha256(text.encode()).hexdigest(), {}, None)
    if hasattr(given, "encode") and hasattr(given, "decode") and not isinstance(given, type):
        return GivenTokenizer(given, name)
    raise UsageError(f"{given!r} is no tokenizer: give an object that encodes and decodes, hf:PATH or tiktoken:NAME")


class GivenTokenizer:
    """kleval.types.Tokenizer of an object with `encode(text) -> ids` and `decode(ids) -> text`: no begin token, no chat template.

    digest: over its class and what it makes of a text. eos_id: its `eos_id`, `eos_token_id` or `eot_token`, where it has one.
    """

    chat_template_digest = ""

    def __init__(self, given: Any, name: str) -> None:
        self._given, self.name = given, name
        told = (getattr(given, found, None) for found in ("eos_id", "eos_token_id", "eot_token"))
        self.eos_id: int | None = next((one for one in told if isinstance(one, int)), None)
        self.digest = hashlib.sha256(f"{type(given).__qualname__} {self.encode(PROBE)}".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        return [int(i) for i in self._given.encode(str(text))]

    def decode(self, ids: Sequence[int]) -> str:
        return str(self._given.decode(list(ids)))

    def count(self, text: str) -> int:
        return len(self.encode(text))

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        return join_prompt(prompt, answer_prefix)


class Numbers:
    """Ids written as numbers, for a model that is measured and reads no text."""

    eos_id: int | None = None

    def encode(self, text: str) -> list[int]:
        return [ord(char) % 64 for char in text]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(map(str, ids))
