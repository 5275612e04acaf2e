"""Target of timed requests: one model at one place, with its prompts, its counters and what is known of it."""

from __future__ import annotations

import contextlib
import dataclasses
import platform
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import kleval
from kleval.backends.registry import open_backend
from kleval.backends.server_address import parse_address
from kleval.backends.spec import BackendSpec
from kleval.profiler.energy import Counter, Meter, counters
from kleval.profiler.served.engine_memory import EngineMemory, listening, with_children
from kleval.profiler.served.prompts import Prompts
from kleval.profiler.served.spec import ServedSpec, safe_url
from kleval.store.machine import commit, cpu_name
from kleval.types import Timed, UsageError

if TYPE_CHECKING:
    import psutil


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """described: what shapes its times, as every point of it says. environment: what it runs on, as far as that is known here."""

    backend: Timed
    described: dict[str, Any]
    environment: dict[str, Any]
    meter: Meter
    prompts: Prompts
    memory: EngineMemory

    @property
    def name(self) -> str:
        return self.backend.model

    @property
    def is_server(self) -> bool:
        return "server" in self.described

    def settings(self) -> dict[str, Any]:
        """What must be the same for a profile to go on."""
        return {f"served.{name}": value for name, value in self.described.items() if name != "server"}


def open_targets(spec: ServedSpec, given: Timed | None, seed: str, stack: contextlib.ExitStack) -> list[Target]:
    """All that spec names, closed by the stack. given: to be measured in place of them; the caller closes it. seed: of the prompts.

    Of several servers each is called by the model and its address."""
    found = []
    for engine in (spec.engine, *spec.more):
        backend = given
        if backend is None:
            backend = open_timed(spec, engine)
            stack.callback(backend.close)
        if spec.more:
            backend.model = f"{backend.model} ({urlsplit(safe_url(engine) or '').netloc})"
        described, environment = describe(backend, engine)
        meter = Meter(_counters(engine, "server" in described))
        told = backend.memory_told() if hasattr(backend, "memory_told") else {}
        names = (engine.model, environment.get("served_from"))
        processes = _processes(engine, "server" in described, bool(told))
        memory = EngineMemory.of(told, spec.engine_log, names, spec.ctxs, processes)
        prompts = Prompts(backend, described["prompts"], seed)
        found.append(Target(backend, described, environment, meter, prompts, memory))
    if len({target.name for target in found}) < len(found):
        raise UsageError("a server is named twice: give each --base-url once")
    return found


def _processes(engine: BackendSpec, is_server: bool, tells: bool) -> list[psutil.Process]:
    """Of a server on this machine, or of an engine in this process that tells of its caches."""
    if not is_server:
        return with_children() if tells else []
    if engine.base_url is None or not parse_address(engine.base_url, engine.api_key_env).is_local:
        return []
    port = urlsplit(engine.base_url).port
    return [] if port is None else listening(port)


def _counters(engine: BackendSpec, is_server: bool) -> list[Counter]:
    """Of this process's device, or of this machine where a server runs on it; of another machine nothing is known."""
    if not is_server:
        from kleval.profiler.environment import resolve_device

        return counters(str(resolve_device(engine.device)))
    if engine.base_url is None or not parse_address(engine.base_url, engine.api_key_env).is_local:
        return []
    return counters("cpu", everything=True)


def open_timed(spec: ServedSpec, engine: BackendSpec) -> Timed:
    """The backend that engine names, without shared prefixes. UsageError for one that cannot be timed."""
    engine = dataclasses.replace(engine, share_prefixes=bool(spec.reuse))
    if spec.reuse and engine.backend in ("native", "hf"):
        raise UsageError(
            f"--reuse is for servers and vLLM: --backend {engine.backend} keeps nothing between timed requests"
        )
    if engine.backend in ("openai", "vllm") and engine.tokenizer is None and not spec.tasks:
        engine = dataclasses.replace(engine, tokenizer="words")  # random ids need none
    if engine.batch is None and engine.backend not in ("openai", "vllm"):
        engine = dataclasses.replace(engine, batch=max((*spec.concurrencies, *spec.steady, 1)))
    backend = open_backend(engine.model, **engine.settings())
    if not hasattr(backend, "timed"):
        backend.close()
        raise UsageError(
            f"--backend {engine.backend} cannot be timed: it has no method `timed(requests)`, see kleval.types.Timed"
        )
    return cast("Timed", backend)


def describe(backend: Timed, engine: BackendSpec) -> tuple[dict[str, Any], dict[str, Any]]:
    """What shapes a backend's times, and what it runs on: of a server only where its requests come from."""
    told = backend.describe_timed() if hasattr(backend, "describe_timed") else backend.describe()
    described = {"backend": engine.backend, "prompts": "token ids", "ignore_eos": True, **told}
    environment = client_environment() | dict(described.pop("environment", {}))
    if "server" not in described:
        from kleval.profiler.environment import fingerprint, resolve_device

        machine = fingerprint(resolve_device(engine.device))
        del machine["kernels"]  # of kleval's own operators, which the backend names if it uses them
        environment = machine | {"software": described.get("software", engine.backend)} | environment
    return described, environment


def client_environment() -> dict[str, Any]:
    """Where the requests come from. What the server runs on is not known here."""
    return {
        "client_cpu": cpu_name(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "kleval": kleval.__version__,
        "commit": commit(),
    }
