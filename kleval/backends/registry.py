"""Backends by name, imported when opened.

Other packages add theirs as entry points of the group `kleval.backends`: a function
(model, device=, dtype=, batch=, memory_budget=) -> kleval.types.Backend.
"""

from __future__ import annotations

import difflib
from functools import cache
from importlib import import_module, metadata
from typing import cast

from kleval.types import Backend, UsageError

BACKENDS: dict[str, str] = {"native": "kleval.backends.native:open_native"}
DEFAULT_BACKEND = "native"


@cache
def all_backends() -> dict[str, str]:
    """BACKENDS and the entry points of other packages; a name of ours cannot be taken over."""
    found = {e.name: e.value for e in metadata.entry_points(group="kleval.backends")}
    return {**found, **BACKENDS}


def open_backend(
    model: str,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    batch: int | None = None,
    memory_budget: int | None = None,
) -> Backend:
    """A backend that runs `model`. batch: requests at a time; memory_budget: bytes of model state; None: what fits.

    UsageError for an unknown backend, model, device or dtype.
    """
    name = DEFAULT_BACKEND if backend == "auto" else backend
    target = all_backends().get(name)
    if target is None:
        near = difflib.get_close_matches(name, all_backends(), 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of auto, {', '.join(all_backends())}"
        raise UsageError(f"unknown backend {backend!r}: {hint}")
    module, _, attribute = target.partition(":")
    opener = getattr(import_module(module), attribute)
    return cast(Backend, opener(model, device=device, dtype=dtype, batch=batch, memory_budget=memory_budget))
