"""Bytes of a transformers model's cache, by component."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def state_bytes(cache: Any) -> dict[str, int]:
    """Bytes of all tensors that a cache holds, wherever it holds them, by what their attributes' names tell: `kv` (keys and
    values), `conv`, `recurrent`, else `other`."""
    found: dict[int, tuple[str, int]] = {}
    stack, seen = [("other", cache)], set()
    while stack:
        name, one = stack.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, Tensor):
            nbytes = one.numel() * one.element_size()
            found[one.data_ptr()] = max(found.get(one.data_ptr(), (name, 0)), (name, nbytes), key=lambda part: part[1])
        elif isinstance(one, dict):
            stack += [(_component(key, name), value) for key, value in one.items()]
        elif isinstance(one, list | tuple):
            stack += [(name, value) for value in one]
        elif isinstance(held := getattr(one, "tensors", None), list):
            stack.append((name, held))
        elif hasattr(one, "__dict__") and type(one).__module__.startswith("transformers"):
            stack += [(_component(key, name), value) for key, value in vars(one).items()]
    total: dict[str, int] = {}
    for name, nbytes in found.values():
        if nbytes:
            total[name] = total.get(name, 0) + nbytes
    return total


def _component(attribute: Any, above: str) -> str:
    """The part of a state that an attribute of a cache holds; what it stands in, where its name does not tell."""
    text = str(attribute)
    if "conv" in text:
        return "conv"
    if "recurrent" in text or "ssm" in text:
        return "recurrent"
    return "kv" if text.startswith(("key", "value")) else above
