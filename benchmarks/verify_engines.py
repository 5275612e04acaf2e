"""Catches and false alarms of `kleval verify`: right engines, and the engine of `verify_faults` with each fault at several strengths.

    python benchmarks/verify_engines.py --out reports/verify [--only right|planted|served] [--repeats 1] [--ctx 640]

One line of rows.jsonl per engine, dtype, way (in process or over HTTP), fault, strength and seed; what is there is not done again, so
the command goes on where it stopped. README.md has the table: engine by law. Times are CPU seconds of this process with one thread.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from verify_faults import FAULTS, FaultyEngine, serving

from kleval.backends.hf import _torch_only
from kleval.backends.registry import open_backend
from kleval.backends.spec import BackendSpec
from kleval.ops.native.loading import choose
from kleval.store import RunStore
from kleval.types import Backend
from kleval.verify import VerifySpec, verify
from kleval.verify.model import write_model

SECONDS = 3600.0  # the budget is CPU time of the rows, not the clock of a machine that is shared
STRENGTHS = {"float32": (0.3, 0.03, 1.0), "bfloat16": (0.3, 1.0)}
LAWS = ("text", "causality", "state", "batch", "prefix-cache", "slots", "reference", "long")
MARKS = {"holds": "·", "broken": "**broken**", "undecided": "undecided", "not testable": "–"}
HF = ("llama", "mamba2", "qwen3_next", "gemma3", "kimi_linear")
Open = Callable[[], contextlib.AbstractContextManager[Backend]]


@dataclass(frozen=True)
class Engine:
    """fault, strength: planted; "" and 0 in a right one. referred: whether law 7 is tried against the native engine."""

    name: str
    dtype: str
    open: Open
    way: str = "in process"
    fault: str = ""
    strength: float = 0.0
    referred: bool = False

    def key(self, seed: int) -> str:
        return "/".join(map(str, (self.name, self.dtype, self.way, self.fault or "right", self.strength, seed)))


def hf_config(kind: str) -> Any:
    import transformers

    small = {
        "vocab_size": 257, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 4096, "bos_token_id": None, "eos_token_id": 256,
        "pad_token_id": 0, "tie_word_embeddings": False,
    }  # fmt: skip
    if kind == "llama":
        return transformers.LlamaConfig(**small)
    if kind == "gemma3":
        return transformers.Gemma3TextConfig(**small, head_dim=16, sliding_window=128)
    if kind == "mamba2":
        return transformers.Mamba2Config(
            vocab_size=257, hidden_size=64, state_size=16, num_hidden_layers=3, num_heads=8, head_dim=16, n_groups=2,
            expand=2, bos_token_id=None, eos_token_id=256, pad_token_id=0, tie_word_embeddings=False,
        )  # fmt: skip
    return transformers.Qwen3NextConfig(
        **small, layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"],
        linear_key_head_dim=16, linear_value_head_dim=16, linear_num_key_heads=2, linear_num_value_heads=4, num_experts=4,
        num_experts_per_tok=2, head_dim=16, moe_intermediate_size=32, shared_expert_intermediate_size=32,
    )  # fmt: skip


def hf_folder(kind: str, home: Path) -> Path:
    """A small random model with the byte tokenizer of `write_model`."""
    small = small_model(home)
    if kind == "kimi_linear":
        return small
    folder = home / kind
    if not (folder / "config.json").exists():
        import transformers

        torch.manual_seed(0)
        with _torch_only(torch.device("cpu")):
            model = transformers.AutoModelForCausalLM.from_config(hf_config(kind))
        for name, parameter in model.named_parameters():
            if name.endswith(("embed_tokens.weight", "embeddings.weight")):
                parameter.data *= 30
            if name.endswith("lm_head.weight"):
                parameter.data *= 12
        model.save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (folder / file).write_text((small / file).read_text())
    return folder


def small_model(home: Path) -> Path:
    folder = home / "small"
    if not (folder / "config.json").exists():
        write_model(folder, max_ctx=4096)
    return folder


def engines(home: Path, only: str) -> Iterator[Engine]:
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
                folder = hf_folder(kind, home)
                same = kind == "kimi_linear"
                yield Engine(f"hf, {kind}", dtype, opened(folder, "hf", dtype), referred=same)
            yield Engine("small server", dtype, planted(small, "", 0.0, dtype), referred=True)
    if only in ("", "right", "served"):
        yield Engine("small server", "float32", served(small, "", 0.0, "float32"), "HTTP", referred=True)
    steps = [(dtype, strength) for dtype, strengths in STRENGTHS.items() for strength in strengths]
    for dtype, strength in steps if only in ("", "planted") else ():
        for fault in FAULTS:
            yield Engine(
                "small server", dtype, planted(small, fault, strength, dtype), "in process", fault, strength, True
            )
    for fault in FAULTS if only in ("", "served") else ():
        yield Engine("small server", "float32", served(small, fault, 1.0, "float32"), "HTTP", fault, 1.0, True)


def faulty(folder: Path, fault: str, strength: float, dtype: str) -> FaultyEngine:
    from kleval.models.registry import load, resolve

    choose(
        "native" if dtype == "float32" else "torch"
    )  # C++ is several times as fast; faults of the model itself turn it off
    decoder, tokenizer = load(resolve(str(folder)), "cpu", getattr(torch, dtype))
    return FaultyEngine(decoder, tokenizer, fault, strength, str(folder))


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


def row_of(engine: Engine, home: Path, ctx: int, seed: int) -> dict[str, Any]:
    with engine.open() as backend, tempfile.TemporaryDirectory() as out, contextlib.ExitStack() as stack:
        reference = None
        if engine.referred:
            reference = stack.enter_context(
                contextlib.closing(open_backend(str(small_model(home)), "native", dtype="float32"))
            )
        spec = VerifySpec(
            engine=BackendSpec(model=engine.name),
            ctx=ctx,
            seed=seed,
            time_budget=SECONDS,
            out=Path(out) / "out",
            command="bench",
        )
        began, clock = time.process_time(), time.monotonic()
        result = verify(spec, backend=backend, reference=reference)
        points = list(RunStore.open(spec.out or Path()).points())
    laws = {
        p.protocol: {"verdict": p.settings["verdict"], **p.values, "cause": p.settings.get("cause")} for p in points
    }
    facts = {"cpu_seconds": round(time.process_time() - began, 1), "seconds": round(time.monotonic() - clock, 1)}
    named = {name: getattr(engine, name) for name in ("name", "dtype", "way", "fault", "strength")}
    return {
        "key": engine.key(seed),
        **named,
        "ctx": ctx,
        "seed": seed,
        "exit_code": result.exit_code,
        **facts,
        "laws": laws,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """Right engines first, then faults; a cell per law."""
    lines = []
    for title, chosen in (
        ("Right engines", [r for r in rows if not r["fault"]]),
        ("Planted faults", [r for r in rows if r["fault"]]),
    ):
        if not chosen:
            continue
        broken = sum(r["exit_code"] == 4 for r in chosen)
        undecided = sum(r["exit_code"] == 5 for r in chosen)
        lines.append(f"\n## {title}: {broken} of {len(chosen)} called broken, {undecided} undecided\n")
        head = ["engine", "dtype", "way", "fault", "strength", "largest", "times legal", "CPU s", *LAWS]
        lines += [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        for r in chosen:
            worst = max(
                (law for law in r["laws"].values() if law["verdict"] == "broken"),
                key=lambda law: float("inf") if law["deviation"] is None else law["deviation"],
                default=None,
            )
            largest = (
                "" if worst is None else "not finite" if worst["deviation"] is None else f"{worst['deviation']:.3g}"
            )
            legal = (
                f"{worst['deviation'] / worst['legal']:.3g}"
                if worst and worst["deviation"] and worst["legal"] > 1e-9
                else ""
            )
            cells = [MARKS[r["laws"][law]["verdict"]] if law in r["laws"] else "" for law in LAWS]
            told = [r["name"], r["dtype"], r["way"], r["fault"], r["strength"] or "", largest, legal, r["cpu_seconds"]]
            lines.append(f"| {' | '.join(map(str, [*told, *cells]))} |")
    return "\n".join(lines)


HEAD = """# `kleval verify` on right engines and on planted faults

Made by `python benchmarks/verify_engines.py --out reports/verify`; rows in rows.jsonl. The small server is the engine of
`benchmarks/verify_faults.py` (slots, chunks of 64 tokens, a prefix cache of blocks of 16) over a random Kimi Linear of four layers;
a strength of 1 is the whole bug, 0.3 a state that is three tenths wrong. `largest`: the largest deviation of a broken law, nats; `times
legal`: over the legal rounding that was measured of that engine. · holds, – not testable.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=("right", "planted", "served"), default="")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--ctx", type=int, default=400)
    parser.add_argument("--home", type=Path, help="where the small models are kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.out.mkdir(parents=True, exist_ok=True)
    home = given.home or Path(tempfile.mkdtemp())
    file = given.out / "rows.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in range(given.repeats):
        for engine in engines(home, given.only):
            if engine.key(seed) in {r["key"] for r in rows}:
                continue
            row = row_of(engine, home, given.ctx, seed)
            rows.append(row)
            with file.open("a") as log:
                log.write(json.dumps(row) + "\n")
            told = {
                name: law["verdict"]
                for name, law in row["laws"].items()
                if law["verdict"] not in ("holds", "not testable")
            }
            print(f"{row['key']}: {told or 'holds'}, {row['cpu_seconds']} CPU s", flush=True)
            (given.out / "README.md").write_text(HEAD + table(rows) + "\n")


if __name__ == "__main__":
    main()
