"""Tokenizers by name: `words`, `tiktoken:NAME`, `hf:PATH`, `nano-1`, `nano-2`.

words: one token per run of word characters and per other visible character. Made for measuring lengths with no
vocabulary at hand; ids are positions in a vocabulary that grows as texts come in, so decoding is lossy (tokens joined
by blanks) and ids mean nothing outside the process.
tiktoken: OpenAI's encodings; files are read from TIKTOKEN_CACHE_DIR when that is set.
hf: the tokenizer of a model folder: a `tokenizer.json` (Hugging Face tokenizers), or Kimi's `tiktoken.model`, read without
running code that came with it; with the chat template of the `tokenizer_config.json` or `chat_template.jinja` beside it.
nano-1, nano-2: those of kleval's own nano models, the first and the present family; files of the package, lossless.
`encode` adds no special tokens: what a text holds is what is sent. `render` puts the begin token of the tokenizer's own rule before a
plain prompt, once (`ModelTokenizer.begin`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kleval.tokenization.chat import Rendered, count_given, join_prompt, split_begin
from kleval.tokenization.folder import ADD_BOS, ModelTokenizer
from kleval.tokenization.growth import PROBE, check_growth
from kleval.tokenization.hf import HFTokenizer
from kleval.tokenization.kimi import RANK_FILE, KimiTokenizer
from kleval.tokenization.pairs import decode_behind, encode_pair
from kleval.tokenization.plain import TiktokenTokenizer, WordTokenizer
from kleval.types import Tokenizer, UsageError

__all__ = [
    "ADD_BOS",
    "KINDS",
    "NANO",
    "PROBE",
    "HFTokenizer",
    "KimiTokenizer",
    "ModelTokenizer",
    "Rendered",
    "TiktokenTokenizer",
    "WordTokenizer",
    "asked_with",
    "check_growth",
    "count_given",
    "decode_behind",
    "encode_pair",
    "has_tokenizer",
    "join_prompt",
    "load_tokenizer",
    "nano_file",
    "read_tokenizer",
    "split_begin",
]

NANO = ("nano-1", "nano-2")
KINDS = ("words", "tiktoken:NAME", "hf:PATH", *NANO)
_NANO_FOLDER = Path(__file__).parent / "nano"


def load_tokenizer(spec: str) -> Tokenizer:
    """The tokenizer that `spec` names. UsageError when there is no such, or when its files cannot be had."""
    kind, _, rest = spec.partition(":")
    if spec == "words":
        return WordTokenizer()
    if kind == "tiktoken" and rest:
        return TiktokenTokenizer(rest)
    if kind == "hf" and rest:
        return read_tokenizer(Path(rest).expanduser(), name=spec)
    if spec in NANO:
        return read_tokenizer(nano_file(spec), name=spec)
    near = difflib.get_close_matches(kind, ["words", "tiktoken", "hf", *NANO], n=1, cutoff=0.5)
    hint = f"; did you mean {next(k for k in KINDS if k.startswith(near[0]))}?" if near else ""
    raise UsageError(f"unknown tokenizer {spec!r}: give one of {', '.join(KINDS)}{hint}")


def nano_file(name: str) -> Path:
    """The tokenizer.json of one of NANO."""
    return _NANO_FOLDER / f"{name}.json"


def asked_with(tokenizer: Tokenizer, add_bos: str, template_args: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer with a rule for its begin token and with arguments of its chat template, as --add-bos and --template-arg say.

    UsageError where it has no begin token or no template to follow them with.
    """
    if add_bos != "auto":
        _told(tokenizer, "begin_with", "--add-bos")(add_bos)
    if template_args:
        _told(tokenizer, "template_args", "--template-arg")(template_args)
    return tokenizer


def _told(tokenizer: Tokenizer, method: str, option: str) -> Callable[[Any], None]:
    if not hasattr(tokenizer, method):
        raise UsageError(f"{option} is for a model's own tokenizer, not {tokenizer.name}")
    found: Callable[[Any], None] = getattr(tokenizer, method)
    return found


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the tokenizer of a model."""
    return (folder / "tokenizer.json").is_file() or (folder / RANK_FILE).is_file()


def read_tokenizer(path: Path, name: str) -> ModelTokenizer:
    """The tokenizer in a folder, or the tokenizer.json or tiktoken.model itself. UsageError when there is none to read."""
    if path.name == RANK_FILE or (path.is_dir() and not (path / "tokenizer.json").is_file()):
        folder = path if path.is_dir() else path.parent
        if not has_tokenizer(folder):
            raise UsageError(
                f"{name}: there is no tokenizer in {folder}: put its tokenizer.json there, "
                f"or its {RANK_FILE} and tokenizer_config.json"
            )
        return KimiTokenizer.from_folder(folder, name)
    return HFTokenizer.from_file(path, name)
