"""Engine settings: one plain object for every backend, each using what concerns it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from kleval.tokenization import ADD_BOS
from kleval.types import UsageError

APIS = ("auto", "completions", "chat")
OWN_FIELDS = ("model", "prompt", "messages", "stream", "stream_options")  # of a request, never another's
# Engine arguments whose value is written nowhere, like hf_token.
SECRET_NAME = re.compile(r"(?:.*[_-])?(?:token|key|secret|password)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSpec:
    """model: name, folder, hub id, or the name that a server knows it by.

    device, dtype: of engines in this process. batch: requests at a time; memory_budget: bytes of model state; None: what fits.
    share_prefixes: prefill what requests have in common once. trust_remote_code: let a model's folder bring code.
    engine_args, tp, max_model_len: handed to an engine that is configured by such (vLLM).
    served_name: what a server calls the model in its answers, or in its list, where that is another name. request_fields: put into
    every request, values as JSON or text; without_fields: left out of them.
    add_bos: one of ADD_BOS, template_args: variables of the chat template; see `kleval.tokenization.asked_with`.
    base_url, api (one of APIS), api_key_env (the variable that holds the key): of a server. concurrency: most requests in flight.
    request_timeout: seconds for one answer; timeout: for all requests of one call, None: no limit. tokenizer: of a model
    whose folder is not here, as `kleval.tokenization.load_tokenizer` takes it. hardware: what the server runs on, in the user's words.
    """

    model: str
    backend: str = "auto"
    device: str = "auto"
    dtype: str = "auto"
    batch: int | None = None
    memory_budget: int | None = None
    share_prefixes: bool = True
    trust_remote_code: bool = False
    engine_args: Mapping[str, str] = field(default_factory=dict)
    tp: int = 1
    max_model_len: int | None = None
    base_url: str | None = None
    api: str = "auto"
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 16
    request_timeout: float = 600.0
    timeout: float | None = None
    served_name: str | None = None
    request_fields: Mapping[str, str] = field(default_factory=dict)
    without_fields: Sequence[str] = ()
    add_bos: str = "auto"
    template_args: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    hardware: str | None = None

    def settings(self) -> dict[str, Any]:
        """Every field but the model."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "model"}

    def shown_engine_args(self) -> dict[str, str]:
        """engine_args as they may be written down."""
        return without_secrets(self.engine_args)

    def own_arguments(self, backend: str, **known: Callable[[str], Any]) -> dict[str, Any]:
        """engine_args of a backend that knows these, each read by its function. UsageError for others, and for --tp."""
        if self.tp != 1:
            raise UsageError(f"--tp is for --backend vllm, not {backend}")
        found = {}
        for given, text in self.engine_args.items():
            name = given.strip().lstrip("-").replace("-", "_")
            if name not in known:
                takes = f"it takes {', '.join(known)}" if known else "it takes none"
                raise UsageError(f"--engine-arg {given}: --backend {backend} has no such argument, {takes}")
            try:
                found[name] = known[name](text)
            except ValueError as error:
                raise UsageError(f"--engine-arg {given}: {text!r} is no value for it") from error
        return found

    def __post_init__(self) -> None:
        """UsageError for values that no engine takes."""
        for name in ("model", "backend", "device", "dtype", "api_key_env"):
            if not isinstance(getattr(self, name), str):
                raise UsageError(f"{name} is a text, not {getattr(self, name)!r}")
        if not isinstance(self.base_url, str | None):
            raise UsageError(f"base_url is an address, not {self.base_url!r}")
        if not isinstance(self.hardware, str | None) or self.hardware == "":
            raise UsageError(f"hardware is a text like '8x H200', not {self.hardware!r}")
        if self.api not in APIS:
            raise UsageError(f"unknown API {self.api!r}: choose one of {', '.join(APIS)}")
        if self.add_bos not in ADD_BOS:
            raise UsageError(f"--add-bos is one of {', '.join(ADD_BOS)}, not {self.add_bos!r}")
        for name in (*self.request_fields, *self.without_fields):
            if not name or name in OWN_FIELDS:
                own = ", ".join(OWN_FIELDS)
                raise UsageError(f"--request-field and --without-field are for other fields than {own}, not {name!r}")
        for name in ("batch", "memory_budget", "tp", "max_model_len", "concurrency"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= 1):
                raise UsageError(f"--{name.replace('_', '-')} is a whole number of at least 1, not {value!r}")
        for name in ("request_timeout", "timeout"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise UsageError(f"--{name.replace('_', '-')} is a positive time in seconds, not {value!r}")


def without_secrets(given: Mapping[str, Any]) -> dict[str, str]:
    """Names and values as they may be written down."""
    return {name: "***" if SECRET_NAME.fullmatch(name) else str(value) for name, value in given.items()}


def json_or_text(text: str) -> Any:
    """What a text says as JSON, True, False and None as Python writes them too; the text itself where it is none."""
    words = {"true": "true", "false": "false", "none": "null"}
    try:
        return json.loads(words.get(text.strip().lower(), text))
    except ValueError:
        return text


def whole_number(text: str) -> int:
    """ValueError for anything but a number from 1."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)
