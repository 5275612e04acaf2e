"""Catches and false alarms of `kleval verify`: right engines, and the engine of `verify_faults` with each fault at three strengths.

    python benchmarks/verify_engines.py --out reports/verify [--only right|planted|real] [--repeats 20]
        [--ctx 260] [--vllm PYTHON] [--llama-server FILE --gguf-python PYTHON]

One line of rows.jsonl per engine, dtype, way (in process or over HTTP), fault, strength and seed; what is there is not done again, so
the command goes on where it stopped; what is marked `earlier`, made before a change of the yardstick, is made again. README.md has the
table: engine by law. Times are CPU seconds of this process with one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import verify_gguf
from verify_faults import FAULTS, FOUND_BY, FaultyEngine, serving
from verify_models import hf_folder, server, small_model, vllm_folder
from verify_table import HEAD, table

from kleval.backends.registry import open_backend
from kleval.backends.spec import BackendSpec
from kleval.ops.native.loading import choose
from kleval.store import RunStore
from kleval.types import Backend
from kleval.verify import VerifySpec, verify
from kleval.verify.engine import Engine as Asked
from kleval.verify.engine import Unanswered
from kleval.verify.judge import Judge
from kleval.verify.laws import LAWS, harmless
from kleval.verify.plan import Plan
from kleval.verify.trial import Case

SECONDS = 3600.0  # the budget is CPU time of the rows, not the clock of a machine that is shared
CTX = 260  # tokens: past three boundaries, and past the length from which faults of long prompts begin
# float32: nats; bfloat16: times the legal rounding.
SIZES = {"float32": (0.01, 0.1, 100.0), "bfloat16": (5.0, 20.0, 100.0)}
HF = ("llama", "mamba2", "qwen3_next", "gemma3", "kimi_linear")
VLLM = (("llama", "float32"), ("llama", "bfloat16"), ("mla", "float32"), ("mla", "bfloat16"), ("gdn", "bfloat16"))
Open = Callable[[], contextlib.AbstractContextManager[Backend]]


@dataclass(frozen=True)
class Engine:
    """fault, strength: planted; "" and 0 in a right one. refers: folder and backend of law 7's reference. size: what the
    strength was chosen for. laws: that are tried, all if empty."""

    name: str
    dtype: str
    open: Open
    way: str = "in process"
    fault: str = ""
    strength: float = 0.0
    refers: tuple[Path, str] | None = None
    size: float = 0.0
    laws: tuple[str, ...] = ()

    def key(self, seed: int) -> str:
        return "/".join(map(str, (self.name, self.dtype, self.way, self.fault or "right", self.size, seed)))


def engines(home: Path, only: str, given: argparse.Namespace) -> Iterator[Engine]:
    small = small_model(home)

    def opened(folder: Path, backend: str, dtype: str, kernels: str = "torch") -> Open:
        def make() -> contextlib.AbstractContextManager[Backend]:
            choose(kernels)
            return contextlib.closing(open_backend(str(folder), backend, dtype=dtype))

        return make

    if only in ("", "right"):
        yield Engine("native, C++", "float32", opened(small, "native", "float32", "native"))
        for dtype in ("float32", "bfloat16"):
            yield Engine("native, torch", dtype, opened(small, "native", dtype))
            for kind in HF:
                refers = (small, "native") if kind == "kimi_linear" else None
                yield Engine(f"hf, {kind}", dtype, opened(hf_folder(kind, home), "hf", dtype), refers=refers)
            yield Engine("small server", dtype, planted(small, "", 0.0, dtype), refers=(small, "native"))
        yield Engine("small server", "float32", served(small, "", 0.0, "float32"), "HTTP", refers=(small, "native"))
    if only in ("", "planted"):
        known = Strengths(home, small)
        for dtype, sizes in SIZES.items():
            for size in sizes:
                for fault in FAULTS:
                    make = functools.partial(faulty_by_size, known, small, fault, size, dtype)
                    laws = () if dtype == "float32" else (FOUND_BY[fault],)
                    yield Engine(
                        "small server", dtype, make, "in process", fault, refers=(small, "native"), size=size, laws=laws
                    )
        for fault in FAULTS:
            yield Engine(
                "small server", "float32", served(small, fault, 1.0, "float32"), "HTTP", fault, 1.0, (small, "native")
            )
    if only in ("", "real"):
        for kind in ("llama", "kimi-linear") if given.llama_server else ():
            folder = verify_gguf.make(kind, home / f"gguf-{kind}", given.gguf_python)
            refers = (folder, "hf" if kind == "llama" else "native")
            yield Engine(
                f"llama.cpp's server, {kind}", "float32", llama_cpp(folder, given.llama_server), "HTTP", refers=refers
            )
        for kind, dtype in VLLM if given.vllm else ():
            yield Engine(f"vLLM's CPU build, {kind}", dtype, vllm(vllm_folder(kind, home), given.vllm, dtype), "HTTP")


def faulty(folder: Path, fault: str, strength: float, dtype: str) -> FaultyEngine:
    from kleval.models.registry import load, resolve

    # C++ is several times as fast; faults of the model itself turn it off.
    choose("native" if dtype == "float32" else "torch")
    decoder, tokenizer = load(resolve(str(folder)), "cpu", getattr(torch, dtype))
    return FaultyEngine(decoder, tokenizer, fault, strength, str(folder))


def faulty_by_size(known: Strengths, folder: Path, fault: str, size: float, dtype: str) -> Any:
    return contextlib.closing(faulty(folder, fault, known.of(fault, dtype, size), dtype))


def planted(folder: Path, fault: str, strength: float, dtype: str) -> Open:
    return lambda: contextlib.closing(faulty(folder, fault, strength, dtype))


def served(folder: Path, fault: str, strength: float, dtype: str) -> Open:
    @contextlib.contextmanager
    def make() -> Iterator[Backend]:
        with serving(faulty(folder, fault, strength, dtype)) as url:
            tokenizer = f"hf:{folder}"
            with contextlib.closing(open_backend(str(folder), "openai", base_url=url, tokenizer=tokenizer)) as backend:
                yield backend

    return make


class Strengths:
    """The strength at which a fault shifts a log-probability of its law's cases by so much, found in float32 and kept in a file."""

    TRIES = 5

    def __init__(self, home: Path, folder: Path) -> None:
        self.file, self.folder = home / "strengths.json", folder
        self.known: dict[str, float] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.legal = self.known.get("legal") or self._legal()

    def of(self, fault: str, dtype: str, size: float) -> float:
        """size: nats in float32, times the legal rounding in bfloat16. Of NaN in a slot: how many of the slots."""
        if fault == "nan-slot":
            return {0: 0.25, 1: 0.5, 2: 1.0}[SIZES[dtype].index(size)]
        target = size * (self.legal if dtype == "bfloat16" else 1.0)
        key = f"{fault} {target:.4g}"
        if key not in self.known:
            self._keep(key, self._found(fault, target))
        return self.known[key]

    def _found(self, fault: str, target: float) -> float:
        strength = 1.0
        for _ in range(self.TRIES):
            shift = self._shift(fault, strength)
            if shift / 1.2 <= target <= shift * 1.2 or (strength == 1.0 and shift < target):
                break
            strength = min(1.0, strength * target / max(shift, 1e-9))
        return float(f"{strength:.3g}")

    def _shift(self, fault: str, strength: float) -> float:
        judge = self._judge(fault, strength, "float32")
        sizes = []
        for case in LAWS[FOUND_BY[fault]].cases(judge.engine, judge.plan):
            with contextlib.suppress(Unanswered):
                sizes.append(judge.trial(case).size)
        return max(size for size in sizes if size < float("inf"))

    def _judge(self, fault: str, strength: float, dtype: str) -> Judge:
        engine = Asked.of(faulty(self.folder, fault, strength, dtype))
        engine.reference = Asked.of(faulty(self.folder, "", 0.0, "float32"))
        return Judge(engine, Plan(CTX), 1e-3)

    def _legal(self) -> float:
        judge = self._judge("", 0.0, "bfloat16")
        judge.measure(harmless.cases(judge.engine, judge.plan))
        self._keep("legal", judge.held(Case("state", "", 100, harmless.repeat)).legal)
        return self.known["legal"]

    def _keep(self, key: str, value: float) -> None:
        self.known[key] = value
        self.file.write_text(json.dumps(self.known, indent=1))


def vllm(folder: Path, python: str, dtype: str) -> Open:
    command = [
        python,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(folder),
        "--served-model-name",
        "small",
    ]
    command += ["--dtype", dtype, "--enforce-eager", "--max-model-len", "2048", "--max-num-seqs", "8"]
    command += ["--kv-cache-memory-bytes", str(1 << 28), "--host", "127.0.0.1"]
    return lambda: server(command, tokenizer=f"hf:{folder}")


def llama_cpp(folder: Path, program: str) -> Open:
    command = [
        program,
        "-m",
        str(folder / "model.gguf"),
        "--alias",
        "small",
        "-c",
        "16384",
        "-np",
        "4",
        "-t",
        "1",
        "-tb",
        "1",
    ]
    return lambda: server([*command, "-ctk", "f32", "-ctv", "f32"], tokenizer=f"hf:{folder}")


def row_of(engine: Engine, backend: Backend, seed: int, ctx: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as out, contextlib.ExitStack() as stack:
        reference = None
        if engine.refers:
            folder, other = engine.refers
            choose("native")
            reference = stack.enter_context(contextlib.closing(open_backend(str(folder), other, dtype=engine.dtype)))
        spec = VerifySpec(
            engine=BackendSpec(model=engine.name),
            ctx=ctx,
            seed=seed,
            laws=engine.laws,
            time_budget=SECONDS,
            out=Path(out) / "out",
            command="bench",
        )
        began, clock = time.process_time(), time.monotonic()
        result = verify(spec, backend=backend, reference=reference)
        points = list(RunStore.open(spec.out or Path()).points())
    values = ("deviation", "legal", "limit", "tried", "planned", "prompt_tokens")
    named = {name: getattr(engine, name) for name in ("name", "dtype", "way", "fault", "size")}
    return {
        "key": engine.key(seed),
        **named,
        "strength": getattr(backend, "strength", engine.strength) if engine.fault else 0.0,
        "ctx": ctx,
        "seed": seed,
        "exit_code": result.exit_code,
        "cpu_seconds": round(time.process_time() - began, 1),
        "seconds": round(time.monotonic() - clock, 1),
        "laws": {
            p.protocol: {
                "verdict": p.settings["verdict"],
                **{name: p.values[name] for name in values if name in p.values},
                **{name: p.settings[name] for name in ("cause", "why") if p.settings.get(name)},
            }
            for p in points
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=("right", "planted", "real"), default="")
    parser.add_argument("--match", default="", help="only engines whose key has this (a regular expression)")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--home", type=Path, help="where the small models are kept")
    parser.add_argument("--vllm", metavar="PYTHON", help="of an environment with vLLM's CPU build")
    parser.add_argument("--llama-server", metavar="FILE", help="llama.cpp's server")
    parser.add_argument("--gguf-python", metavar="PYTHON", help="of an environment with gguf, which writes its models")
    parser.add_argument("--ctx", type=int, default=CTX, help="the longest prompt")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    home = given.home or Path(tempfile.mkdtemp())
    home.mkdir(parents=True, exist_ok=True)
    file = given.out / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {r["key"] for r in rows if not r.get("earlier")}
    if given.only == "real":  # a server is started once for all its runs
        todo = [(e, seed) for e in engines(home, given.only, given) for seed in range(given.repeats)]
    else:
        todo = [(e, seed) for seed in range(given.repeats) for e in engines(home, given.only, given)]
    todo = [(e, seed) for e, seed in todo if e.key(seed) not in done and re.search(given.match, e.key(seed))]
    for engine, group in itertools.groupby(todo, key=lambda pair: pair[0]):
        with engine.open() as backend:
            for _, seed in group:
                row = row_of(engine, backend, seed, given.ctx)
                rows = [r for r in rows if r["key"] != row["key"]] + [row]
                file.write_text("".join(json.dumps(r) + "\n" for r in rows))
                told = {
                    n: v["verdict"] for n, v in row["laws"].items() if v["verdict"] not in ("holds", "not testable")
                }
                print(f"{row['key']}: {told or 'holds'}, {row['cpu_seconds']} CPU s", flush=True)
                (given.out / "README.md").write_text(HEAD + table(rows) + "\n")


if __name__ == "__main__":
    main()
