"""Kimi's tokenizer: the rank file `tiktoken.model` with `tokenizer_config.json`, read without the remote code beside them.

A byte-pair encoding of the tiktoken package. The rank file has one line per token, its bytes in base64 and its rank. The pattern
that cuts text into words and the limits below are those of `tokenization_kimi.py` (moonshotai/Kimi-Linear-48B-A3B-Instruct, the
same as Kimi K2's): runs of Han characters are words of their own. The ids after the last rank are 256 special tokens, named by
`added_tokens_decoder` or else `<|reserved_token_ID|>`. Deviation: the official code makes two more of those, past the model's
vocabulary.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.tokenization.chat import find_template
from kleval.tokenization.folder import CONFIG_FILE, ModelTokenizer, read_config, token_text
from kleval.types import UsageError

if TYPE_CHECKING:
    import tiktoken

RANK_FILE = "tiktoken.model"
SPECIAL_TOKENS = 256
PIECE_CHARACTERS = 400_000
RUN_CHARACTERS = (
    25_000  # of blanks, or of anything else: tiktoken's regular expressions overflow their stack on longer ones
)

_RUN = re.compile(r"\s+|\S+")
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_AFTER = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    [
        r"[\p{Han}]+",
        f"{_BEFORE}{_UPPER}*{_LOWER}+{_AFTER}",
        f"{_BEFORE}{_UPPER}+{_LOWER}*{_AFTER}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


class KimiTokenizer(ModelTokenizer):
    """eos_id: the token that `tokenizer_config.json` calls `eos_token`, else `[EOS]` when there is one."""

    def __init__(
        self, encoding: tiktoken.Encoding, ranks: bytes, name: str, config: Mapping[str, Any], template: str | None
    ) -> None:
        special = encoding._special_tokens
        digest = hashlib.sha256(ranks)
        digest.update(f"{PATTERN}\0{sorted(special.items())}".encode())
        super().__init__(name, digest.hexdigest(), config, template)
        self._encoding = encoding
        self._ranks = ranks
        self.vocab_size = encoding.n_vocab
        self.eos_id = special.get(self.special.get("eos_token") or "[EOS]")
        self.begin_with("auto")

    @classmethod
    def from_folder(cls, folder: Path, name: str) -> KimiTokenizer:
        """Read tiktoken.model and tokenizer_config.json. UsageError when they are missing or not what they should be."""
        import tiktoken

        file = folder / RANK_FILE
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise UsageError(f"{name}: {file} cannot be read: {error.strerror or error}") from error
        ranks = _ranks(raw, file)
        if not (folder / CONFIG_FILE).is_file():
            raise UsageError(f"{name}: {folder} has {RANK_FILE} but no {CONFIG_FILE}, which names its special tokens")
        config = read_config(folder)
        special = _special_tokens(config, len(ranks), folder / CONFIG_FILE)
        try:
            encoding = tiktoken.Encoding("kimi", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)
        except ValueError as error:
            raise UsageError(f"{name}: {file} is not a table of ranks that tiktoken takes: {error}") from error
        return cls(encoding, raw, name, config, find_template(folder, config))

    def encode(self, text: str) -> list[int]:
        encode = self._encoding.encode
        return [i for piece in pieces(text) for i in encode(piece, allowed_special="all")]

    def decode(self, ids: Sequence[int]) -> str:
        return self._encoding.decode(list(ids))

    def save(self, folder: Path) -> None:
        (folder / RANK_FILE).write_bytes(self._ranks)
        self._save_config(folder)


def pieces(text: str, piece: int = PIECE_CHARACTERS, run: int = RUN_CHARACTERS) -> Iterator[str]:
    """Cut a text where the official code does: after `piece` characters, and inside a run of blanks or of non-blanks after each
    `run` of them. Only there may tokens differ from those of the whole text."""
    for begin in range(0, len(text), piece):
        part = text[begin : begin + piece]
        start = 0
        for found in _RUN.finditer(part):
            for cut in range(found.start() + run, found.end(), run):
                yield part[start:cut]
                start = cut
        yield part[start:]


def _ranks(raw: bytes, file: Path) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(raw.splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise UsageError(f"{file}, line {number}: expected a token in base64 and its rank") from None
    if sorted(ranks.values()) != list(range(len(ranks))) or not ranks:
        raise UsageError(f"{file} is not whole: the ranks of its {len(ranks)} tokens are not 0, 1, 2, ...")
    if missing := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        # tiktoken takes such a table, and panics at the first text that has the byte.
        raise UsageError(f"{file} is not whole: it has no token for the single byte {missing[0]}")
    return ranks


def _special_tokens(config: Mapping[str, Any], first: int, file: Path) -> dict[str, int]:
    added = config.get("added_tokens_decoder", {})
    try:
        named = {int(i): token_text(token) for i, token in added.items()}
    except (AttributeError, TypeError, ValueError):
        raise UsageError(f"{file}: added_tokens_decoder is not a table of ids and tokens") from None
    wrong = [i for i, text in named.items() if not text or not first <= i < first + SPECIAL_TOKENS]
    if wrong:
        raise UsageError(
            f"{file}: added token {wrong[0]} is none of the {SPECIAL_TOKENS} special ids after the {first} ranks of {RANK_FILE}"
        )
    return {named.get(i, f"<|reserved_token_{i}|>"): i for i in range(first, first + SPECIAL_TOKENS)}
