"""Engines of real_model.py: what each is started with, and the arguments by which kleval asks it.

A server is named by its place among the servers' ports. What an engine needs is in an environment of its own: `home` (make real) has
the model's file, llama.cpp's build, llama-cpp-python and transformers' server; `vllm` (make test-vllm) has vLLM's CPU build.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ONE_THREAD

FILE, COPY = "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-hf"
CONTEXT = 8192  # of the model
CACHE_BYTES = 1 << 29  # vLLM's, for 11,651 tokens of this model in float32
SECONDS_TO_START, SECONDS_TO_STOP = 300, 60
QUIET = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "TORCH_COMPILE_DISABLE": "1"}


@dataclass(frozen=True, slots=True)
class Engine:
    """name: of its folder below OUT. server: its place among the servers' ports; None for an engine in the process of kleval.

    counts: whether its streams count tokens, without which nothing can be timed. together: requests in flight.
    """

    name: str
    server: int | None
    counts: bool = True
    together: int = 1

    def model(self, given: argparse.Namespace) -> str:
        """The name it is asked by: of a folder where it loads one or knows no other name, and no two engines have one in common,
        since costs join scores by it."""
        name = COPY if self.name == "hf" else f"SmolLM2-135M-{self.name}"
        return str(given.home / name) if self.by_folder else name

    @property
    def by_folder(self) -> bool:
        return self.server is None or self.name == "transformers-serve"

    def asked_by(self, given: argparse.Namespace) -> list[str]:
        asked = ["--model", self.model(given)]
        if self.server is not None:
            return [*asked, "--base-url", f"http://127.0.0.1:{given.port + self.server}/v1"]
        asked += ["--backend", self.name, "--dtype", "float32"]
        if self.name == "vllm":
            asked += ["--max-model-len", str(CONTEXT), "--memory-budget", str(CACHE_BYTES)]
            asked += ["--engine-arg", "enforce_eager=true"]
        return asked

    def python(self, given: argparse.Namespace) -> str:
        """Of the environment in which kleval asks it."""
        return str(given.vllm / "bin/python") if self.name == "vllm" else sys.executable

    def missing(self, given: argparse.Namespace) -> str | None:
        """What it cannot be run without, in words."""
        home, vllm = given.home / "installed", given.vllm / "installed"
        needed = {"hf": home, "vllm": vllm, "vllm-server": vllm}.get(self.name, home)
        return None if needed.is_file() else f"{needed.parent} has no {self.name}: make real says why"

    def served_by(self, given: argparse.Namespace, port: str) -> list[str]:
        home, threads = given.home, str(given.threads)
        file, copy, name = str(home / FILE), str(home / COPY), self.model(given)
        if self.name == "llama.cpp":
            size = ["-c", str(CONTEXT), "-np", "1", "-t", threads, "-tb", threads, "-lv", "4"]
            return [str(home / "build/bin/llama-server"), "-m", file, "--alias", name, "--port", port, *size]
        if self.name == "llama-cpp-python":
            size = ["--n_ctx", str(CONTEXT), "--n_threads", threads, "--n_threads_batch", threads]
            served = ["--model", file, "--model_alias", name, "--port", port, "--logits_all", "true"]
            return [str(home / "bin/python"), "-m", "llama_cpp.server", *served, *size]
        if self.name == "vllm-server":
            size = ["--max-model-len", str(CONTEXT), "--kv-cache-memory-bytes", str(CACHE_BYTES), "--enforce-eager"]
            served = ["--model", copy, "--served-model-name", name, "--host", "127.0.0.1", "--port", port]
            vllm = [str(given.vllm / "bin/python"), "-m", "vllm.entrypoints.openai.api_server"]
            return [*vllm, *served, "--dtype", "float32", *size]
        served = [name, "--host", "127.0.0.1", "--port", port, "--dtype", "float32", "--device", "cpu"]
        return [str(home / "bin/transformers"), "serve", *served]


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("llama.cpp", 0),
        Engine("llama-cpp-python", 1, counts=False),
        Engine("hf", None),
        Engine("vllm-server", 2, together=4),
        Engine("vllm", None),
        Engine("transformers-serve", 3),
    )
}


@contextlib.contextmanager
def serving(engine: Engine, given: argparse.Namespace) -> Iterator[Callable[[], None]]:
    """The engine's server, ready; its log is OUT/ENGINE/server.log. SystemExit with the reason where it does not start.

    What is given back says, when called, that the server has ended meanwhile: SystemExit.
    """
    if engine.server is None:
        yield lambda: None
        return
    port = given.port + engine.server
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise SystemExit(f"port {port} is in use: --port names another")
    log = given.out / engine.name / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    library = {"LLAMA_CPP_LIB_PATH": str((given.home / "build/bin").resolve())}
    threads = dict.fromkeys(ONE_THREAD, str(given.threads))
    with log.open("a") as file:
        begin = file.tell()
        server = subprocess.Popen(
            engine.served_by(given, str(port)),
            stdout=file,
            stderr=file,
            env=os.environ | library | threads | QUIET,
            start_new_session=True,
        )

        def check() -> None:
            if server.poll() is not None:
                raise SystemExit(f"the server has ended, the same command continues; {last_words(log, begin)}")

        try:
            wait_for(server, port)
            if server.poll() is not None:
                raise SystemExit(f"the server did not start: {last_words(log, begin)}")
            yield check
        finally:
            stop(server, signal.SIGTERM)


def wait_for(server: subprocess.Popen[bytes], port: int) -> None:
    """Until it answers or has ended. SystemExit when it does neither."""
    end = time.monotonic() + SECONDS_TO_START
    while server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
            return
        if time.monotonic() > end:
            raise SystemExit(f"the server does not answer on port {port} after {SECONDS_TO_START} s")
        time.sleep(0.5)


def last_words(log: Path, begin: int) -> str:
    """The last line of a server's log that speaks of a fault, of those after a position; else where the log is."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode("utf-8", "replace").splitlines()
    faults = [line.strip() for line in lines if re.search("error|fail|not exist|no such", line, re.IGNORECASE)]
    return f"{faults[-1]} (see {log})" if faults else f"see {log}"


def stop(process: subprocess.Popen[Any], by: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, by)
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
