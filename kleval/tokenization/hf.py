"""Hugging Face `tokenizer.json`, through the tokenizers package."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.tokenization.chat import find_template
from kleval.tokenization.folder import ModelTokenizer, read_config
from kleval.types import UsageError

if TYPE_CHECKING:
    import tokenizers


class HFTokenizer(ModelTokenizer):
    """A `tokenizer.json`.

    eos_id: the token that `tokenizer_config.json` calls `eos_token`, else `<|eos|>` when the vocabulary has it.
    """

    def __init__(
        self, core: tokenizers.Tokenizer, name: str, digest: str, config: Mapping[str, Any], template: str | None
    ) -> None:
        super().__init__(name, digest, config, template)
        core.no_truncation()
        core.no_padding()
        self._core = core
        self.vocab_size = core.get_vocab_size(with_added_tokens=True)
        self.eos_id = core.token_to_id(self.special.get("eos_token") or "<|eos|>")

    @classmethod
    def from_file(cls, path: Path, name: str) -> HFTokenizer:
        """Read `path` (a tokenizer.json, or its folder). UsageError when it is missing or not one."""
        import tokenizers

        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise UsageError(f"{name}: there is no tokenizer file at {file}")
        try:
            raw = file.read_bytes()
            core = tokenizers.Tokenizer.from_buffer(raw)
        except Exception as error:  # the package raises bare Exceptions
            raise UsageError(f"{name}: {file} is not a tokenizer.json that can be read ({error})") from error
        config = read_config(file.parent)
        return cls(core, name, hashlib.sha256(raw).hexdigest(), config, find_template(file.parent, config))

    def encode(self, text: str) -> list[int]:
        return self._core.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._core.decode(list(ids), skip_special_tokens=False)

    def count(self, text: str) -> int:
        # The "fast" form keeps no character offsets: about half the time and memory on long texts.
        return len(self._core.encode_batch_fast([text], add_special_tokens=False)[0])

    def save(self, folder: Path) -> None:
        self._core.save(str(folder / "tokenizer.json"))
        self._save_config(folder, tokenizer_class="PreTrainedTokenizerFast")
