"""Context lengths as people write them; `kleval.text.format_length` spells them back.

    4k               4096          1m             1048576       128k        131072       6000      6000
    1k,2k,4k         a list        4k-1m*2        doubling from 4k up to 1m
    1k-4k+1k         1k, 2k, 3k, 4k               4k-32k*2,100k  lists and ranges mix

`k` is 1024 and `m` is 1024 x 1024. A range runs from its start and stops at the last length that does not pass its end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kleval.text import K, M, format_length
from kleval.types import UsageError

MAX_LENGTHS = 256
MAX_LENGTH = 16 * M  # beyond what any model takes; a slip of the keyboard would never end

_LENGTH = re.compile(r"(\d{1,15})([km]?)", re.IGNORECASE | re.ASCII)
_RANGE = re.compile(r"(\w+)\s*-\s*(\w+)\s*(?:([*+])\s*(\w+))?", re.ASCII)


def parse_length(text: str) -> int:
    """One length in tokens, 1 to MAX_LENGTH. UsageError when it is not one."""
    match = _LENGTH.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise UsageError(f"'{text.strip()}' is not a length: write 4096, 4k, 128k or 1m")
    length = int(match[1]) * {"": 1, "k": K, "m": M}[match[2].lower()]
    if length > MAX_LENGTH:
        raise UsageError(f"'{text.strip()}' is too long: at most {format_length(MAX_LENGTH)} tokens")
    return length


def parse_lengths(text: str) -> tuple[int, ...]:
    """All lengths of a list, in the order given, each once. UsageError when there is none or one is malformed."""
    lengths: dict[int, None] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        for length in _expand(part.strip()):
            lengths[length] = None
            if len(lengths) > MAX_LENGTHS:
                raise UsageError(f"'{text}' names more than {MAX_LENGTHS} lengths: use a larger step")
    if not lengths:
        raise UsageError("no context length given: write for example --ctx 1k,2k,4k")
    return tuple(lengths)


def _expand(part: str) -> Iterator[int]:
    if "-" not in part:
        yield parse_length(part)
        return
    match = _RANGE.fullmatch(part)
    if match is None or match[3] is None:
        raise UsageError(f"'{part}' is not a range: write 4k-1m*2 (doubling) or 1k-4k+1k (adding)")
    start, end = parse_length(match[1]), parse_length(match[2])
    if end < start:
        raise UsageError(f"'{part}' ends before it starts")
    step = parse_length(match[4]) if match[3] == "+" else _factor(part, match[4])
    length = start
    while length <= end:
        yield length
        length = length + step if match[3] == "+" else length * step


def _factor(part: str, text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise UsageError(f"'{part}': the factor after * must be a whole number of at least 2")
    return int(text)
