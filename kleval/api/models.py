"""Models as a caller gives them: names, backends, and model objects with a tokenizer."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kleval.backends.registry import open_backend
from kleval.lengths import parse_lengths
from kleval.store import RunStore
from kleval.store.remote import uploading
from kleval.tokenization import asked_with
from kleval.types import Backend, UsageError


def load_backend(
    model: object,
    tokenizer: object = None,
    *,
    name: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    batch: int | None = None,
    memory_budget: int | None = None,
    share_prefixes: bool = True,
    base_url: str | None = None,
    api: str = "auto",
    api_key_env: str = "OPENAI_API_KEY",
    concurrency: int = 16,
    request_timeout: float = 600.0,
    timeout: float | None = None,
    served_name: str | None = None,
    request_fields: Mapping[str, str] | None = None,
    without_fields: Sequence[str] = (),
    hardware: str | None = None,
    engine_args: Mapping[str, str] | None = None,
    tp: int = 1,
    max_model_len: int | None = None,
    trust_remote_code: bool = False,
    add_bos: str = "auto",
    template_args: Mapping[str, Any] | None = None,
) -> Backend:
    """What answers requests: `run` of it takes `kleval.types.Request`s, `kleval.evaluate` takes it as a model; close it when done.

    model: a name, folder or hub id; or a model object (a transformers model, or a torch module `forward(ids) -> logits`, with a cache
        `forward(ids, cache) -> (logits, cache)`), which stays where it is and in its dtype.
    tokenizer: of a model object: transformers' or anything that encodes and decodes; else the name of the one that counts.
    name: of a model object in rows and figures; its class's unless given.
    backend: `auto`, `native`, `hf`, `vllm`, `openai`, or one of your own. device, dtype: `auto` or as torch names them.
    batch: requests at a time; memory_budget: bytes of model state; None: what fits. share_prefixes: run what prompts share once.
    base_url, api, api_key_env, served_name, request_fields, without_fields, hardware: of a server, as the options of `kleval run`.
    concurrency: most requests in flight. request_timeout: seconds for one answer; timeout: for all of one call.
    engine_args, tp, max_model_len: of an engine that is configured by such (vLLM). trust_remote_code: let a model bring code.
    add_bos, template_args: of the begin token and the chat template.

    UsageError: an unknown name, a server that does not answer, an object that is no model.
    """
    if not isinstance(model, str):
        return open_object(model, tokenizer, name, batch, memory_budget, share_prefixes, add_bos, template_args or {})
    if not isinstance(tokenizer, str | None):
        raise UsageError(
            f"{model} has a tokenizer of its own: an object goes with a model object, a name counts lengths"
        )
    return open_backend(
        model,
        backend,
        device=device,
        dtype=dtype,
        batch=batch,
        memory_budget=memory_budget,
        share_prefixes=share_prefixes,
        base_url=base_url,
        api=api,
        api_key_env=api_key_env,
        concurrency=concurrency,
        request_timeout=request_timeout,
        timeout=timeout,
        served_name=served_name,
        request_fields=request_fields or {},
        without_fields=without_fields,
        hardware=hardware,
        engine_args=engine_args or {},
        tp=tp,
        max_model_len=max_model_len,
        trust_remote_code=trust_remote_code,
        add_bos=add_bos,
        template_args=template_args or {},
        tokenizer=tokenizer,
    )


def open_object(
    model: object,
    tokenizer: object,
    name: str | None,
    batch: int | None,
    memory_budget: int | None,
    share_prefixes: bool,
    add_bos: str = "auto",
    template_args: Mapping[str, Any] | None = None,
) -> Backend:
    """A backend for a model object. UsageError for what is none."""
    if is_backend(model):
        return Lent(model)  # type: ignore[arg-type]
    from kleval.backends.given import is_model, open_given

    if not is_model(model):
        raise UsageError(
            f"{shown(model)} is no model: give a name, a transformers model, a torch module `forward(ids) -> logits` or a "
            "kleval.types.Backend"
        )
    opened: Any = open_given(
        model, tokenizer, name, batch=batch, memory_budget=memory_budget, share_prefixes=share_prefixes
    )
    try:
        asked_with(opened.tokenizer, add_bos, template_args or {})
    except UsageError:
        opened.close()
        raise
    return opened


class Lent:
    """A backend that its owner closes, not the run."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def close(self) -> None:
        pass


def is_backend(given: object) -> bool:
    return (
        not isinstance(given, type)
        and callable(getattr(given, "run", None))
        and isinstance(getattr(given, "model", None), str)
    )


def named(given: object, name: str | None) -> dict[str, object]:
    """The models by the name that a run knows them by; a model object by `name`, else its class's. UsageError for two of one name."""
    if isinstance(given, Mapping):
        if not all(isinstance(key, str) for key in given):
            raise UsageError("models by name are a dict of text to model")
        return dict(given)
    models = listed(given)
    objects = [one for one in models if not isinstance(one, str) and not is_backend(one)]
    if name is not None and len(objects) != 1:
        raise UsageError(f"name is for one model object, not {len(objects)}: give several as a dict, {{name: model}}")
    return by_name("model", models, lambda one: one if isinstance(one, str) else _name(one, name))


def _name(model: Any, name: str | None) -> str:
    if is_backend(model):
        return str(model.model)
    if isinstance(model, type) or not callable(model):
        raise UsageError(f"{shown(model)} is no model: give a name, a model object or a kleval.types.Backend")
    if name is not None:
        return name
    from kleval.backends.given import name_of

    return name_of(model)


def listed(given: Any) -> list[Any]:
    one = isinstance(given, str) or not isinstance(given, Iterable)
    one = one or callable(given) or any(hasattr(given, method) for method in ("run", "samples"))
    return [given] if one else list(given)


def lengths(ctx: int | str | Iterable[int | str]) -> tuple[int, ...]:
    """Lengths in tokens, texts read as `--ctx` reads them; RunSpec.check refuses what is no length."""
    found = [parse_lengths(one) if isinstance(one, str) else (one,) for one in listed(ctx)]
    return tuple(dict.fromkeys(length for some in found for length in some))


def by_name(what: str, given: Iterable[Any], name: Callable[[Any], str]) -> dict[str, Any]:
    """By name, each once. UsageError when two different ones have the same, under which rows could not be told apart."""
    found: dict[str, Any] = {}
    for one in given:
        if found.setdefault(name(one), one) is not one and not isinstance(one, str):
            raise UsageError(f"two {what}s are called {name(one)!r}: give each a name of its own")
    return found


def shown(given: object) -> str:
    """An object as an error names it, on one line."""
    text = " ".join(repr(given).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


@contextmanager
def directory(out: Path | str | None) -> Iterator[Path]:
    """The run directory: for None a new temporary one, of which a refusal leaves nothing; of a remote address the one on this
    machine, uploaded when the block ends."""
    if out is not None:
        with uploading(out) as folder:
            yield folder
        return
    folder = Path(tempfile.mkdtemp(prefix="kleval-"))
    try:
        yield folder
    except UsageError:
        if not RunStore.exists(folder):
            shutil.rmtree(folder)
        raise
