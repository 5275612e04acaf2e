"""Backends by name, imported when opened.

Other packages add theirs as entry points of the group `kleval.backends`: a function (BackendSpec) -> kleval.types.Backend.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any, cast, get_type_hints

from kleval.backends.spec import BackendSpec
from kleval.packages import load, plugins
from kleval.types import Backend, UsageError

GROUP = "kleval.backends"
BACKENDS: dict[str, str] = {
    "native": "kleval.backends.native:open_native",
    "hf": "kleval.backends.hf:open_hf",
    "vllm": "kleval.backends.vllm:open_vllm",
    "openai": "kleval.backends.openai:open_openai",
}
ABOUT = {
    "native": "kleval's own decoders in this process, with a hybrid cache",
    "hf": "any transformers causal LM in this process; needs the extra hf",
    "vllm": "vLLM in this process, with token ids; needs the extra vllm",
    "openai": "any server with an OpenAI-compatible API (--base-url)",
}


@cache
def all_backends() -> dict[str, str]:
    """BACKENDS and the entry points of other packages; a name of ours cannot be taken over."""
    return {**{name: plugin.value for name, plugin in plugins(GROUP).items()}, **BACKENDS}


def open_backend(model: str, backend: str = "auto", **settings: Any) -> Backend:
    """A backend that runs `model`; settings: the fields of BackendSpec.

    UsageError for an unknown backend, model, device or dtype, a missing extra, and a server that does not answer.
    """
    if unknown := settings.keys() - BackendSpec.__dataclass_fields__.keys():
        raise UsageError(f"no backend takes {', '.join(sorted(unknown))}: see kleval.backends.spec.BackendSpec")
    spec = BackendSpec(model=model, backend=backend, **settings)
    name = choose(spec) if backend == "auto" else backend
    opener = find_opener(name)
    for of_server in ("base_url", "hardware"):
        if getattr(spec, of_server) is not None and name != "openai" and name in BACKENDS:
            raise UsageError(f"--{of_server.replace('_', '-')} is for --backend openai, not {name}")
    return opener(spec)


def open_on(settings: Mapping[str, Any], model: str, device: str) -> Backend:
    """`open_backend` on a device: one of several replicas."""
    return open_backend(model, **{**settings, "device": device})


def find_opener(name: str) -> Callable[[BackendSpec], Backend]:
    """The function that opens a backend. UsageError for a name that there is not."""
    target = all_backends().get(name)
    if target is None:
        near = difflib.get_close_matches(name, all_backends(), 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of auto, {', '.join(all_backends())}"
        raise UsageError(f"unknown backend {name!r}: {hint}")
    if name not in BACKENDS and name in plugins(GROUP):
        return cast("Callable[[BackendSpec], Backend]", load(plugins(GROUP)[name]))
    module, _, attribute = target.partition(":")
    return cast("Callable[[BackendSpec], Backend]", getattr(import_module(module), attribute))


def is_timed(name: str) -> bool | None:
    """Whether a backend's requests can be timed; None where the function that opens it does not say what it returns."""
    if name in BACKENDS:
        return True
    returned = get_type_hints(find_opener(name)).get("return")
    return None if returned is None else hasattr(returned, "timed")


def choose(spec: BackendSpec) -> str:
    """What `auto` means: a server where an address is given, native for what kleval has decoders for, else hf."""
    if spec.base_url is not None:
        return "openai"
    from kleval.models.registry import is_native

    return "native" if is_native(spec.model) else "hf"
