"""SmolLM2-135M-Instruct through llama.cpp's server, llama-cpp-python's and transformers: scores, costs, and how far they agree.

    python benchmarks/real_model.py [--only llama.cpp,llama-cpp-python,hf] [--parts long,chat,short,profile] [--limit 2]
        [--ctx 1k,2k,4k] [--minutes 30] [--port 8111] [--home .venv-real] [--out runs/real]
        [--tables | --publish reports/smollm2-135m]

`make real` makes the environment (--home: llama.cpp's build, the model's file, a reader of it for transformers) and runs this.
Every engine answers the same samples greedily, part by part, each in a run directory of its own (OUT/ENGINE/PART) and within a
time limit; a part that was stopped goes on when the same command is given again. What cannot run is told with its reason.
transformers gets a copy of the file's weights in float32, saved once. --tables only prints (real_tables.py) what is there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import ONE_THREAD
from real_tables import LOCAL, SERVERS, partings, print_tables

ROOT = Path(__file__).resolve().parent.parent
FILE, COPY = "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-hf"
CONTEXT = 8192  # of the model
LONG, RULER = "ruler,mrcr,longbench2,helmet_icl", "ruler"
SECONDS_TO_START, SECONDS_TO_STOP = 120, 60


@dataclass(frozen=True, slots=True)
class Engine:
    """name: of its folder below OUT. server: its place among the servers' ports; None for an engine in the process of kleval."""

    name: str
    server: int | None

    @property
    def model(self) -> str:
        return f"SmolLM2-135M-{self.name}"

    def asked_by(self, given: argparse.Namespace) -> list[str]:
        if self.server is None:
            return ["--model", str(given.home / COPY), "--backend", "hf", "--dtype", "float32"]
        return ["--model", self.model, "--base-url", f"http://127.0.0.1:{given.port + self.server}/v1"]

    def served_by(self, given: argparse.Namespace, port: str) -> list[str]:
        home, threads, file = given.home, str(given.threads), str(given.home / FILE)
        if self.name == "llama.cpp":
            size = ["-c", str(CONTEXT), "-np", "1", "-t", threads, "-tb", threads, "-lv", "4"]
            return [str(home / "build/bin/llama-server"), "-m", file, "--alias", self.model, "--port", port, *size]
        named = ["--model", file, "--model_alias", self.model, "--port", port]
        size = ["--n_ctx", str(CONTEXT), "--n_threads", threads, "--n_threads_batch", threads]
        return [str(home / "bin/python"), "-m", "llama_cpp.server", *named, *size]


ENGINES = {
    name: Engine(name, server) for name, server in [*((name, i) for i, name in enumerate(SERVERS)), (LOCAL, None)]
}


def command(engine: Engine, part: str, given: argparse.Namespace) -> list[str] | str:
    """kleval's arguments for a part, or why the engine has no such part."""
    asked, where = engine.asked_by(given), ["--out", str(given.out / engine.name / part)]
    if part == "profile":
        if engine.name == "llama-cpp-python":
            return "its streams count no tokens, so it cannot be timed"
        return ["profile", *asked, "--ctx", given.ctx, *where]
    if engine.server is not None:
        asked += ["--tokenizer", f"hf:{given.home / COPY}", "--concurrency", "1"]
    size = ["--limit", str(given.limit), *where]
    if part == "short":
        return ["run", *asked, "--suite", "short", *size]
    if part == "long":
        return ["run", *asked, "--tasks", given.tasks, "--ctx", given.ctx, *size]
    if engine.server is None:
        return "it has no chat endpoint"
    chat = ["--api", "chat", "--protocol", "nvidia-c3f5e3b-prefix-in-prompt"]
    return ["run", *asked, *chat, "--tasks", RULER, "--ctx", given.ctx.partition(",")[0], *size]


@contextlib.contextmanager
def serving(engine: Engine, given: argparse.Namespace) -> Iterator[None]:
    """The engine's server, ready; its log is OUT/ENGINE/server.log. SystemExit with the reason where it does not start."""
    if engine.server is None:
        yield
        return
    port = given.port + engine.server
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise SystemExit(f"port {port} is in use: --port names another")
    log = given.out / engine.name / "server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"LLAMA_CPP_LIB_PATH": str((given.home / "build/bin").resolve())}
    with log.open("a") as file:
        server = subprocess.Popen(
            engine.served_by(given, str(port)),
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )
        try:
            wait_for(server, port, log)
            yield
        finally:
            stop(server, signal.SIGTERM)


def wait_for(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models", timeout=5):
            return
        time.sleep(0.5)
    raise SystemExit(f"the server did not start: see {log}")


def stop(process: subprocess.Popen[Any], by: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, by)
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_part(arguments: Sequence[str], minutes: float) -> str:
    """How kleval ended, in words: interrupted at the time limit it has saved what it did."""
    environment = os.environ | ONE_THREAD | {"HF_HUB_OFFLINE": "1"}
    run = subprocess.Popen([sys.executable, ROOT / "cli.py", *arguments], env=environment, start_new_session=True)
    try:
        code = run.wait(60 * minutes)
    except subprocess.TimeoutExpired:
        stop(run, signal.SIGINT)
        return f"stopped after {minutes:g} minutes; the same command continues"
    except BaseException:
        stop(run, signal.SIGINT)
        raise
    return {0: "done", 3: "done, with failures"}.get(code, f"exit code {code}, as said above")


def save_copy(home: Path) -> None:
    """The file's weights in float32 and its tokenizer, as transformers writes them; without the mark of their quantisation."""
    if (home / COPY / "config.json").is_file():
        return
    sys.path.append(str(home / "gguf"))
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(home, gguf_file=FILE, dtype=torch.float32)
    for owner, name in ((model.config, "quantization_config"), (model, "hf_quantizer")):
        if hasattr(owner, name):
            delattr(owner, name)
    model.is_quantized = False
    unfinished = home / f"{COPY}.unfinished"
    model.save_pretrained(unfinished)
    AutoTokenizer.from_pretrained(home, gguf_file=FILE).save_pretrained(unfinished)
    shutil.rmtree(home / COPY, ignore_errors=True)
    unfinished.replace(home / COPY)


def publish(out: Path, folder: Path, parts: Sequence[str]) -> None:
    """Rows, settings and CSV of every run and one page of all; prompts and the page of each are made again from those."""
    for record in sorted(out.glob("*/*/run.json")):
        kept = folder / record.parent.relative_to(out)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(record.parent, kept, ignore=shutil.ignore_patterns("prompts", "tmp", "report.html", ".lock"))
        settings = (kept / "run.json").read_text("utf-8")
        (kept / "run.json").write_text(settings.replace(str(Path.home()), "~"), encoding="utf-8")
    runs = [str(out / name / part) for name in ENGINES for part in parts if (out / name / part / "run.json").is_file()]
    subprocess.run([sys.executable, ROOT / "cli.py", "report", *runs, "--out", folder / "report.html"], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(ENGINES), help="engines, comma-separated")
    parser.add_argument("--parts", default="long,chat,short,profile")
    parser.add_argument("--tasks", default=LONG, help="of the part long")
    parser.add_argument("--ctx", default="1k,2k,4k")
    parser.add_argument("--limit", type=int, default=2, help="samples per task and length")
    parser.add_argument("--minutes", type=float, default=30, help="time limit of a part")
    parser.add_argument("--threads", type=int, default=1, help="of a server; more than are free makes it slower by far")
    parser.add_argument("--port", type=int, default=8111, help="of the first server; the second has the next")
    parser.add_argument("--home", type=Path, default=Path(".venv-real"))
    parser.add_argument("--out", type=Path, default=Path("runs/real"))
    parser.add_argument(
        "--publish",
        type=Path,
        metavar="DIR",
        help="only put rows, CSV and a page of all into DIR, and print the tables",
    )
    parser.add_argument("--tables", action="store_true", help="only print the tables of what is there")
    parser.add_argument(
        "--partings", action="store_true", help="and how near the two tokens were where an answer parts from hf's"
    )
    given = parser.parse_args()
    # Children of a command in the background would ignore the first; the second ends like it, with nothing left running.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    parts, only = given.parts.split(","), given.only.split(",")
    for name in only:
        if name not in ENGINES:
            raise SystemExit(f"no engine {name}: {', '.join(ENGINES)}")
    if given.publish:
        publish(given.out, given.publish, parts)
    elif not given.tables:
        if not (given.home / FILE).is_file():
            raise SystemExit(f"{given.home / FILE} is not there: make real")
        save_copy(given.home)
        for line in run_all([ENGINES[name] for name in only], parts, given):
            print(line, flush=True)
    apart = [line for part in parts for line in partings(given.home / COPY, given.out, part)] if given.partings else []
    print_tables(given.out, parts, apart)


def run_all(engines: Sequence[Engine], parts: Sequence[str], given: argparse.Namespace) -> Iterator[str]:
    """A line per engine and part: how it ended, or why there is none."""
    for engine in engines:
        try:
            with serving(engine, given):
                for part in parts:
                    asked = command(engine, part, given)
                    ended = f"skipped: {asked}" if isinstance(asked, str) else run_part(asked, given.minutes)
                    yield f"{engine.name} {part}: {ended}"
        except SystemExit as error:
            yield f"{engine.name}: skipped: {error}"


if __name__ == "__main__":
    main()
