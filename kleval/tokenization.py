"""Tokenizers by name: `words`, `tiktoken:NAME`, `hf:PATH`.

words: one token per run of word characters and per other visible character. Made for measuring lengths with no
vocabulary at hand; ids are positions in a vocabulary that grows as texts come in, so decoding is lossy (tokens joined
by blanks) and ids mean nothing outside the process.
tiktoken: OpenAI's encodings; files are read from TIKTOKEN_CACHE_DIR when that is set.
hf: a `tokenizer.json` (Hugging Face tokenizers), with the chat template of the `tokenizer_config.json` or
`chat_template.jinja` beside it. Special tokens are never added by any of the three: what a prompt holds is what is sent.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kleval.types import Message, Prompt, Tokenizer, UsageError

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

_WORD = re.compile(r"\w+|[^\w\s]")
KINDS = ("words", "tiktoken:NAME", "hf:PATH")


def load_tokenizer(spec: str) -> Tokenizer:
    """The tokenizer that `spec` names. UsageError when there is no such, or when its files cannot be had."""
    kind, _, rest = spec.partition(":")
    if spec == "words":
        return WordTokenizer()
    if kind == "tiktoken" and rest:
        return TiktokenTokenizer(rest)
    if kind == "hf" and rest:
        return HFTokenizer.from_file(Path(rest).expanduser(), name=spec)
    near = difflib.get_close_matches(kind, ["words", "tiktoken", "hf"], n=1, cutoff=0.5)
    hint = f"; did you mean {next(k for k in KINDS if k.startswith(near[0]))}?" if near else ""
    raise UsageError(f"unknown tokenizer {spec!r}: give one of {', '.join(KINDS)}{hint}")


def join_prompt(prompt: Prompt, answer_prefix: str) -> str:
    """Prompt and answer prefix without a chat template; messages are their contents joined by newlines."""
    text = prompt if isinstance(prompt, str) else "\n".join(m["content"] for m in prompt)
    return text + answer_prefix


class WordTokenizer:
    r"""`re.findall(r"\w+|[^\w\s]", text)`; decode is lossy."""

    def __init__(self) -> None:
        self.name = "words"
        self.digest = hashlib.sha256(_WORD.pattern.encode()).hexdigest()
        self.chat_template_digest = ""
        self.eos_id: int | None = None
        self._ids: dict[str, int] = {}
        self._tokens: list[str] = []

    @property
    def vocab_size(self) -> int:
        """Distinct tokens seen so far."""
        return len(self._tokens)

    def encode(self, text: str) -> list[int]:
        ids = self._ids
        out = []
        for token in _WORD.findall(text):
            known = ids.get(token)
            if known is None:
                known = ids[token] = len(self._tokens)
                self._tokens.append(token)
            out.append(known)
        return out

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(self._tokens[i] for i in ids)

    def count(self, text: str) -> int:
        return len(_WORD.findall(text))

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        return join_prompt(prompt, answer_prefix)


class TiktokenTokenizer:
    """An encoding of the tiktoken package. Text that looks like a special token is encoded as plain text."""

    def __init__(self, encoding: str) -> None:
        self._encoding = _tiktoken_encoding(encoding)
        self.name = f"tiktoken:{encoding}"
        self.digest = _tiktoken_digest(self._encoding)
        self.chat_template_digest = ""
        self.eos_id: int | None = self._encoding.eot_token
        self.vocab_size: int = self._encoding.n_vocab

    def encode(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def decode(self, ids: Sequence[int]) -> str:
        return self._encoding.decode(list(ids))

    def count(self, text: str) -> int:
        return len(self._encoding.encode_ordinary(text))

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        return join_prompt(prompt, answer_prefix)


def _tiktoken_encoding(encoding: str) -> tiktoken.Encoding:
    import tiktoken

    names = tiktoken.list_encoding_names()
    if encoding not in names:
        near = difflib.get_close_matches(encoding, names, n=3, cutoff=0.4)
        raise UsageError(f"tiktoken has no encoding {encoding!r}; try {', '.join(near or names)}")
    try:
        return tiktoken.get_encoding(encoding)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"tiktoken:{encoding}: its vocabulary is not cached and could not be downloaded"
            f" ({type(error).__name__}); set TIKTOKEN_CACHE_DIR to a folder that holds it"
        ) from error


@lru_cache(maxsize=8)
def _tiktoken_digest(encoding: tiktoken.Encoding) -> str:
    h = hashlib.sha256(f"{encoding.name}\0{encoding._pat_str}\0{sorted(encoding._special_tokens.items())}".encode())
    for token, rank in encoding._mergeable_ranks.items():
        h.update(token + b"\0%d\0" % rank)
    return h.hexdigest()


class HFTokenizer:
    """A Hugging Face `tokenizer.json`.

    eos_id: the token that `tokenizer_config.json` calls `eos_token`, else `<|eos|>` when the vocabulary has it.
    """

    def __init__(
        self, core: tokenizers.Tokenizer, name: str, digest: str, config: dict[str, Any], template: str | None
    ) -> None:
        core.no_truncation()
        core.no_padding()
        self._core = core
        self.name = name
        self.digest = digest
        self.vocab_size: int = core.get_vocab_size(with_added_tokens=True)
        self._special = {k: _token_text(v) for k, v in config.items() if k in ("bos_token", "eos_token", "pad_token")}
        self.eos_id: int | None = core.token_to_id(self._special.get("eos_token") or "<|eos|>")
        self._template = template
        self.chat_template_digest = hashlib.sha256(template.encode()).hexdigest() if template else ""

    @classmethod
    def from_file(cls, path: Path, name: str) -> HFTokenizer:
        """Read `path` (a tokenizer.json, or its folder). UsageError when it is missing or not one."""
        import tokenizers

        file = path / "tokenizer.json" if path.is_dir() else path
        if not file.is_file():
            raise UsageError(f"{name}: there is no tokenizer file at {file}")
        raw = file.read_bytes()
        try:
            core = tokenizers.Tokenizer.from_buffer(raw)
        except Exception as error:  # the package raises bare Exceptions
            raise UsageError(f"{name}: {file} is not a tokenizer.json that can be read ({error})") from error
        config = _read_config(file.with_name("tokenizer_config.json"))
        return cls(core, name, hashlib.sha256(raw).hexdigest(), config, _chat_template(file.parent, config))

    def encode(self, text: str) -> list[int]:
        return self._core.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self._core.decode(list(ids), skip_special_tokens=False)

    def count(self, text: str) -> int:
        # The "fast" form keeps no character offsets: about half the time and memory on long texts.
        return len(self._core.encode_batch_fast([text], add_special_tokens=False)[0])

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        if isinstance(prompt, str) or self._template is None:
            return join_prompt(prompt, answer_prefix)
        return _render_chat(self._template, prompt, self._special) + answer_prefix


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} cannot be read as JSON: {error}") from error
    return config if isinstance(config, dict) else {}


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):
        named = {t["name"]: t["template"] for t in template}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _token_text(token: Any) -> str:
    if isinstance(token, dict):
        return str(token.get("content", ""))
    return token if isinstance(token, str) else ""


def _render_chat(template: str, messages: Sequence[Message], special: dict[str, str]) -> str:
    import jinja2

    try:
        return _compile_chat(template).render(
            messages=[dict(m) for m in messages], add_generation_prompt=True, tools=None, **special
        )
    except jinja2.TemplateError as error:
        raise UsageError(f"the tokenizer's chat template cannot render this prompt: {error}") from error


@lru_cache(maxsize=8)
def _compile_chat(template: str) -> Any:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    # The result is a prompt, not HTML: escaping would change what the model sees.
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=["jinja2.ext.loopcontrols"]
    )
    env.globals["raise_exception"] = refuse
    env.filters["tojson"] = to_json
    return env.from_string(template)
