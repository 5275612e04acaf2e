"""Batches of an engine in this process: requests of similar length whose states fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

LENGTH_RATIO = 0.8  # the shortest prompt of a batch against its longest ...
SHORT_TOKENS = 128  # ... unless they differ by no more than this
FREE_SHARE = {"cpu": 0.6, "cuda": 0.8}  # of the memory that is free, what states and working memory may take

T = TypeVar("T")


def together(
    waiting: Sequence[T], limit: int, length: Callable[[T], int], need: Callable[[T], int], budget: int
) -> int:
    """How many of the first ones, at most `limit`, are served together; 0 when the first does not fit alone.

    waiting: longest first. length: tokens that are prefilled; need: bytes, asked of no more than fit and one.
    """
    used = 0
    for rows, one in enumerate(waiting[:limit]):
        used += need(one)
        if used > budget:
            return rows
        longest, here = length(waiting[0]), length(one)
        if here < LENGTH_RATIO * longest and longest - here > SHORT_TOKENS:
            return rows
    return min(limit, len(waiting))


def free_bytes(device: torch.device) -> int:
    """What may be taken for states and working memory, as things stand now."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((free + cached) * FREE_SHARE["cuda"])
    import psutil

    return int(psutil.virtual_memory().available * FREE_SHARE["cpu"])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on whichever device."""
    text = str(error).lower()
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(word in text for word in words)
