"""Hugging Face `tokenizer.json`, through the tokenizers package."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.tokenization.chat import find_template, split_begin
from kleval.tokenization.folder import ModelTokenizer, added_tokens, mapped_tokens, more_special, read_config
from kleval.types import UsageError

if TYPE_CHECKING:
    import tokenizers


class HFTokenizer(ModelTokenizer):
    """A `tokenizer.json`.

    eos_id: the token that `tokenizer_config.json` calls `eos_token`, else `<|eos|>` when the vocabulary has it.
    """

    def __init__(
        self,
        core: tokenizers.Tokenizer,
        name: str,
        digest: str,
        config: Mapping[str, Any],
        template: str | None,
        added: Mapping[str, int] | None = None,
        mapped: Iterable[str] = (),
    ) -> None:
        """added: tokens that stand beside the vocabulary of core, with their ids. mapped: that special_tokens_map.json names."""
        super().__init__(name, digest, config, template)
        core.no_truncation()
        core.no_padding()
        self._core = core
        _complete(core, added or {}, [*mapped, *self.special.values(), *more_special(config)])
        self.vocab_size = core.get_vocab_size(with_added_tokens=True)
        self.eos_id = core.token_to_id(self.special.get("eos_token") or "<|eos|>")
        self.begin_with("auto")

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
        digest, template = hashlib.sha256(raw).hexdigest(), find_template(file.parent, config)
        added, mapped = added_tokens(file.parent, config), mapped_tokens(file.parent)
        return cls(core, name, digest, config, template, added, mapped)

    def _own_begin(self) -> tuple[str, str]:
        with_special = self._core.encode("a", add_special_tokens=True)
        first = itertools.takewhile(
            lambda pair: pair[1], zip(with_special.ids, with_special.special_tokens_mask, strict=True)
        )
        ids = [i for i, _ in first]
        texts = [str(self._core.id_to_token(i)) for i in ids]
        _complete(self._core, {}, texts)
        return "".join(texts), "post_processor of tokenizer.json" if texts else "none"

    def encode(self, text: str) -> list[int]:
        begin, rest = split_begin(text)
        return self._begin_ids(begin) + self._core.encode(rest, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._core.decode(list(ids), skip_special_tokens=False)

    def decode_behind(self, last: int | None, ids: Sequence[int]) -> str:
        """The text of ids behind a text that ends with the token `last`.

        SentencePiece writes a blank before a text (Llama 2, Mistral 7B, Phi-3), and its decoder takes one away at the beginning: of
        ids that go on from others that is one of theirs, four blanks of a line of code become three. So they are decoded behind a
        letter, which is cut off again. Behind a special token such a tokenizer begins a text anew, with a blank that is none of it.
        """
        text, letter = self._letter
        if not letter or not ids or self._begins_anew(last):
            return self.decode(ids)
        return self.decode([*letter, *ids])[len(text) :]

    @functools.cached_property
    def _letter(self) -> tuple[str, list[int]]:
        """A letter and its token, where the decoder takes a blank from the beginning of a text; else none."""
        decoder = self._core.decoder
        if decoder is None or (decoder.decode(["a", "▁b"]), decoder.decode(["▁b"])) != ("a b", "b"):
            return "", []
        last = self.encode("a")[-1:]
        return ("a", last) if self.decode(last) == "a" else ("", [])

    def _begins_anew(self, last: int | None) -> bool:
        """Whether a text behind this token is written with a blank before it that does not stand there."""
        if last not in self._special_texts:
            return False
        written = self._special_texts[last] + "a"
        return self.decode(self.encode(written)) != written

    @functools.cached_property
    def _special_texts(self) -> dict[int | None, str]:
        return {i: token.content for i, token in self._core.get_added_tokens_decoder().items()}

    def count(self, text: str) -> int:
        # The "fast" form keeps no character offsets: about half the time and memory on long texts.
        begin, rest = split_begin(text)
        return len(self._begin_ids(begin)) + len(self._core.encode_batch_fast([rest], add_special_tokens=False)[0])

    def _begin_ids(self, begin: str) -> list[int]:
        if not begin:
            return []
        one = self._core.token_to_id(begin)
        return self._core.encode(begin, add_special_tokens=False).ids if one is None else [one]

    def save(self, folder: Path) -> None:
        self._core.save(str(folder / "tokenizer.json"))
        self._save_config(folder, tokenizer_class="PreTrainedTokenizerFast")


def _complete(core: tokenizers.Tokenizer, added: Mapping[str, int], special: Iterable[str]) -> None:
    """Make core cut out the tokens that only the files beside tokenizer.json name, as transformers does.

    Tokens whose id would become another than the files say are left out.
    """
    import tokenizers

    known = {token.content for token in core.get_added_tokens_decoder().values()}
    for text, i in sorted(added.items(), key=lambda item: item[1]):
        if text not in known and core.token_to_id(text) in (i, None) and (
            core.token_to_id(text) == i or core.get_vocab_size(with_added_tokens=True) == i
        ):  # fmt: skip
            core.add_tokens([tokenizers.AddedToken(text, special=True, normalized=False)])
    missing = [text for text in special if text not in known and core.token_to_id(text) is not None]
    if missing:
        core.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in missing])
