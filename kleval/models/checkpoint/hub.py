"""Model folders from the Hugging Face hub: `org/name` or `org/name@revision`.

Only safetensors, JSON and tokenizer files are fetched, never pickles, and code only where the user trusts it. The package's own
settings hold: HF_HOME, HF_TOKEN, and HF_HUB_OFFLINE=1, with which only what was fetched before is found.
"""

from __future__ import annotations

import re
from pathlib import Path

from kleval.types import UsageError

SMALL_FILES = ("*.json", "tiktoken.model", "chat_template.jinja")
WEIGHT_FILES = ("*.safetensors",)
CODE_FILES = ("*.py",)
_HTTP = ("httpx", "httpx2", "requests")  # which of them huggingface_hub uses depends on its version
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")


def is_hub_id(name: str) -> bool:
    """Whether a name has the shape org/name[@revision]."""
    return _HUB_ID.fullmatch(name) is not None


def fetch(name: str, weights: bool, commit: str | None = None, code: bool = False) -> Path:
    """The local folder of a hub id, its weights in it if asked for. commit: this one, whatever the name says.
    code: with the Python files in it, for who runs them.

    UsageError in one line when it does not exist, is not public, or cannot be reached.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    patterns = [*SMALL_FILES, *(WEIGHT_FILES if weights else ()), *(CODE_FILES if code else ())]
    try:
        folder = Path(snapshot_download(repository, revision=commit or revision or None, allow_patterns=patterns))
    except (
        Exception
    ) as error:  # the package's errors have no common base but this one, and change with its HTTP library
        reason = _reason(error)
        if reason is None:
            raise
        raise UsageError(f"{name} is no folder here, and as a model of the Hugging Face hub {reason}") from error
    if "gguf" in repository.lower() and not (folder / "config.json").is_file():
        raise UsageError(
            f"{name} holds GGUF files, which llama.cpp's server runs (llama-server -hf {repository}): start it, and give its address "
            "with --base-url"
        )
    return folder


def _reason(error: Exception) -> str | None:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "it is gated: accept its terms on its page and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "it does not exist or is private: check the name, or set HF_TOKEN"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision"
    if isinstance(error, errors.HFValidationError):
        return "it is not a name"
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return (
            "it is not in the local cache and the hub is offline: fetch it where there is a network, or give a folder"
        )
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in _HTTP:
        return f"it could not be fetched ({type(error).__name__}): try again, or give a folder"
    return None
