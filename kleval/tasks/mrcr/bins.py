"""The official lengths: eight bins of all messages and the answer, in tokens of o200k_base.

Where that vocabulary is not on this machine the model's own tokens are counted instead; nothing is downloaded for it. Only
ports of the data card have code for the borders, and they disagree; here the data card counts: the first bin holds both
of its ends, the others their upper one.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from bisect import bisect_left
from functools import lru_cache
from pathlib import Path

from kleval.files import family_facts
from kleval.types import Tokenizer, UsageError

ENCODING = "o200k_base"
EDGES = tuple(4096 << i for i in range(9))
NAMES: tuple[str, ...] = tuple(family_facts("mrcr")["bins"])
OUTSIDE = "outside"
_ADDRESS = f"https://openaipublic.blob.core.windows.net/encodings/{ENCODING}.tiktoken"


def bin_of(tokens: int) -> str:
    """Name of the bin, OUTSIDE where there is none."""
    if not EDGES[0] <= tokens <= EDGES[-1]:
        return OUTSIDE
    return NAMES[max(0, bisect_left(EDGES, tokens) - 1)]


def counter() -> Tokenizer | None:
    """o200k_base when its vocabulary is in tiktoken's cache, else None."""
    file = vocabulary()
    return _load(file) if file is not None else None


def vocabulary() -> Path | None:
    """The file of it in tiktoken's cache, when it is there."""
    given = (os.environ[name] for name in ("TIKTOKEN_CACHE_DIR", "DATA_GYM_CACHE_DIR") if name in os.environ)
    folder = next(given, Path(tempfile.gettempdir()) / "data-gym-cache")
    # tiktoken names a cached file by the sha1 of its address; an empty name of a folder is no cache.
    file = Path(folder) / hashlib.sha1(_ADDRESS.encode(), usedforsecurity=False).hexdigest()
    return file if folder and file.is_file() else None


@lru_cache(maxsize=1)
def _load(file: Path) -> Tokenizer | None:
    from kleval.tokenization import load_tokenizer

    try:
        return load_tokenizer(f"tiktoken:{ENCODING}")
    except UsageError:
        return None
