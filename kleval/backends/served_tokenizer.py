"""The tokenizer of a served model: its files where they are here, else the server's own; and what of its template differs by the day.

Sending ids needs ids that are the served model's: a tokenizer from files is compared with the server's on a probe text where the server
has one. A template that is the server's alone is told the date of every run where it takes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kleval.backends.server_address import Server
from kleval.backends.server_tokenizer import RemoteTokenizer
from kleval.backends.server_wire import Dialect
from kleval.tokenization import PROBE, ModelTokenizer, dates, has_tokenizer, load_tokenizer, read_tokenizer
from kleval.types import Tokenizer, UsageError

_TAKES_ARGUMENTS = ("vllm", "sglang", "llama.cpp")  # of a template, with each request


def counts_only(spec: str | None) -> bool:
    """Whether a tokenizer measures lengths but is not a model's: `words`, `tiktoken:NAME`."""
    return spec is not None and not spec.startswith("hf:")


def find_tokenizer(spec: str | None, names: Sequence[str], server: Server, model: str, chat: bool) -> Tokenizer:
    """The tokenizer of the served model: as spec names it, from the folders or cached hub ids among names, or the server's.

    One that only counts is used where there is no other, and for the chat endpoint, which is sent no tokens.
    UsageError when there is none.
    """
    if spec is not None and (chat or not counts_only(spec)):
        return load_tokenizer(spec)
    for name in names:
        folder = _folder(name)
        if folder is not None:
            return read_tokenizer(folder, name=name)
    try:
        return RemoteTokenizer.opened(server, model)
    except UsageError as error:
        if spec is not None:
            return load_tokenizer(spec)
        raise UsageError(
            f"the tokenizer of {model} is not here and {server.url} does not tokenize: add --tokenizer hf:PATH "
            "(the model's), or tiktoken:NAME or words to measure lengths with"
        ) from error


def compare(tokenizer: Tokenizer, server: Server, model: str) -> str:
    """`equal` when the server makes the same ids of a probe text, `unknown` when it does not tell. UsageError: others."""
    if isinstance(tokenizer, RemoteTokenizer):
        return "equal"
    try:
        theirs = RemoteTokenizer.speaking(server, model).encode(PROBE)
    except UsageError:
        return "unknown"
    if theirs != tokenizer.encode(PROBE):
        raise UsageError(
            f"the tokenizer {tokenizer.name} is not that of {model} on {server.url}, they cut a text into different tokens: "
            "give the served model's with --tokenizer hf:PATH"
        )
    return "equal"


def with_date(server: Server, dialect: Dialect, tokenizer: Tokenizer) -> tuple[Dialect, str]:
    """The dialect with the date that the server's template is to print in chats, where it prints the day's and takes another; and what
    is to be said where it prints the day's all the same."""
    args = dict(dialect.template_args)
    if not (dialect.chats or dialect.prompts == "messages") or dates.ARGUMENT in args:
        return dialect, ""
    prints = isinstance(tokenizer, ModelTokenizer) and tokenizer.template is not None and tokenizer.template.dated
    if dialect.software in _TAKES_ARGUMENTS:
        try:
            theirs = RemoteTokenizer.opened(server, dialect.model)
            theirs.template_args(args)
            prints = theirs.prints_date
            if prints:
                args[dates.ARGUMENT] = dates.DATE
                theirs.template_args(args)
                if not theirs.prints_date:
                    return replace(dialect, template_args=args), ""
        except UsageError:
            pass  # it has no tokenizer to be asked
    said = f"The chat template of {dialect.model} prints the day's date: prompts of another day differ in it."
    return dialect, said if prints else ""


def _folder(name: str) -> Path | None:
    """A model folder here, or a hub id in the local cache, that holds a tokenizer; nothing is downloaded."""
    from kleval.models.checkpoint.hub import is_hub_id

    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder if has_tokenizer(folder) else None
    if not is_hub_id(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = name.partition("@")
    for file in ("tokenizer.json", "tiktoken.model"):
        found = try_to_load_from_cache(repository, file, revision=revision or None)
        if isinstance(found, str):
            return Path(found).parent
    return None
