"""kleval, vLLM's own benchmark and AIPerf against one server of known pace and one load, beside what the server says it sent.

Rounds of the three alternate. Each sends the same number of requests at once held under way (--together), or at a rate, with answers of
the same length; the server (paced_server.py) tells when each request came and when each token was sent, and the truth of a client's
row is computed from its own requests. vLLM and AIPerf have environments of their own, since their pins are others than kleval's:

    make .venv-vllm/installed
    python3 -m venv .venv-aiperf && .venv-aiperf/bin/python -m pip install aiperf==0.13.0

What is not there is left out and said. With --tokens-per-event above 1 the clients part by definition (docs/served_profiles.md).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import common
from paced_server import Log, paced, read_log

from kleval.backends.spec import BackendSpec
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.job import profile_served
from kleval.quantiles import percentile
from kleval.store import RunStore

FOLDER = Path(__file__).parent
TOKENIZER = FOLDER.parent / "kleval" / "models" / "nano" / "tokenizer.json"
NAMES = ("TTFT p50", "TTFT p90", "TPOT p50", "ITL p50", "E2E p50")
VLLM = """
import argparse, asyncio, sys
from vllm.benchmarks.serve import add_cli_args, main_async
parser = argparse.ArgumentParser()
add_cli_args(parser)
asyncio.run(main_async(parser.parse_args(sys.argv[1:])))
"""
Found = dict[str, float]  # ms, by NAMES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vllm", type=Path, default=Path(".venv-vllm/bin/python"))
    parser.add_argument("--aiperf", type=Path, default=Path(".venv-aiperf/bin/aiperf"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=20)
    parser.add_argument("--together", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32, help="Per answer.")
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--first-ms", type=float, default=200.0)
    parser.add_argument("--step-ms", type=float, default=20.0)
    parser.add_argument("--tokens-per-event", type=int, default=1)
    asked = parser.parse_args()
    clients: dict[str, Callable[[int, argparse.Namespace, Path], Found]] = {"kleval": kleval}
    for name, program, ask in (("vllm bench serve", asked.vllm, vllm), ("AIPerf", asked.aiperf, aiperf)):
        if program.exists():
            clients[name] = ask
        else:
            print(f"{name} is left out: there is no {program}; see --help for how it is installed")
    common.print_environment()
    found: dict[str, list[tuple[Found, Found]]] = {name: [] for name in clients}
    for _ in range(asked.rounds):
        for name, ask in clients.items():
            with (
                paced(asked.first_ms, asked.step_ms, together=asked.tokens_per_event) as port,
                tempfile.TemporaryDirectory() as folder,
            ):
                told = ask(port, asked, Path(folder))
                found[name].append((told, truth(read_log(port), asked)))
    print(f"{'client':18} " + " ".join(f"{name:>22}" for name in NAMES) + "    ms: told (more than the server's own)")
    for name, rounds in found.items():
        cells = []
        for one in NAMES:
            value = statistics.median(told[one] for told, _ in rounds)
            more = statistics.median(told[one] - true[one] for told, true in rounds)
            cells.append(f"{value:10.2f} ({more:+8.2f})")
        print(f"{name:18} " + " ".join(f"{cell:>22}" for cell in cells), flush=True)


def truth(log: Log, asked: argparse.Namespace) -> Found:
    """Of the last requests that had all their tokens: before them clients warm up and find out."""
    events = -(-asked.tokens // asked.tokens_per_event)
    mine = [(came, sent) for came, sent, _ in log if len(sent) == events][-asked.requests :]
    first = [sent[0] - came for came, sent in mine]
    after = asked.tokens - asked.tokens_per_event  # tokens behind the first arrival
    return told(
        first,
        [(sent[-1] - sent[0]) / after for _, sent in mine],
        [b - a for _, sent in mine for a, b in pairwise(sent)],
        [sent[-1] - came for came, sent in mine],
    )


def told(first: list[float], per_token: list[float], between: list[float], whole: list[float]) -> Found:
    """Seconds as ms."""
    values = (
        percentile(first, 0.5),
        percentile(first, 0.9),
        percentile(per_token, 0.5),
        percentile(between, 0.5),
        percentile(whole, 0.5),
    )
    return {name: 1000 * value for name, value in zip(NAMES, values, strict=True)}


def kleval(port: int, asked: argparse.Namespace, folder: Path) -> Found:
    engine = BackendSpec(model="paced", backend="openai", base_url=f"http://127.0.0.1:{port}/v1")
    given: dict[str, Any] = {"concurrencies": (), "steady": (asked.together,), "repeats": 1}
    spec = ServedSpec(
        engine=engine,
        ctxs=(asked.prompt_tokens,),
        decode_tokens=asked.tokens,
        requests=asked.requests,
        out=folder / "run",
        **given,
    )
    profile_served(spec)
    (point,) = RunStore.open(folder / "run").points()
    if point.failure is not None:
        raise SystemExit(f"kleval's round failed: {point.failure['message']}")
    names = ("ttft_ms_p50", "ttft_ms_p90", "request_tpot_ms_p50", "itl_ms_median", "e2e_ms_p50")
    return {name: float(point.values[value] or 0) for name, value in zip(NAMES, names, strict=True)}


def vllm(port: int, asked: argparse.Namespace, folder: Path) -> Found:
    command = [
        *(str(asked.vllm), "-c", VLLM, "--backend", "openai", "--base-url", f"http://127.0.0.1:{port}"),
        *("--model", "paced", "--tokenizer", tokenizer(folder), "--dataset-name", "random", "--ignore-eos"),
        *("--random-input-len", str(asked.prompt_tokens), "--random-output-len", str(asked.tokens)),
        *("--num-prompts", str(asked.requests), "--max-concurrency", str(asked.together), "--disable-tqdm"),
        *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90", "--save-result"),
        *("--result-dir", str(folder), "--result-filename", "found.json"),
    ]
    run(command)
    found = json.loads((folder / "found.json").read_text())
    names = ("p50_ttft_ms", "p90_ttft_ms", "p50_tpot_ms", "p50_itl_ms", "p50_e2el_ms")
    return {name: float(found[value]) for name, value in zip(NAMES, names, strict=True)}


def aiperf(port: int, asked: argparse.Namespace, folder: Path) -> Found:
    command = [
        *(str(asked.aiperf), "profile", "--model", "paced", "--url", f"http://127.0.0.1:{port}"),
        *(
            "--endpoint-type",
            "completions",
            "--streaming",
            "--tokenizer",
            tokenizer(folder),
            "--use-server-token-count",
        ),
        *("--isl", str(asked.prompt_tokens), "--osl", str(asked.tokens), "--extra-inputs", "ignore_eos:true"),
        *("--request-count", str(asked.requests), "--concurrency", str(asked.together)),
        *("--artifact-dir", str(folder), "--ui", "none"),
    ]
    run(command)
    found = json.loads(next(folder.rglob("profile_export_aiperf.json")).read_text())
    of = {
        "TTFT": "time_to_first_token",
        "TPOT": "inter_token_latency",
        "ITL": "inter_chunk_latency",
        "E2E": "request_latency",
    }
    values = {}
    for name in NAMES:
        quantity, _, quantile = name.partition(" ")
        values[name] = float(found.get(of[quantity], {}).get(quantile, float("nan")))
    return values


def tokenizer(folder: Path) -> str:
    """A folder that transformers loads by itself: both clients make their prompts with one, which the server does not care for."""
    place = folder / "tokenizer"
    place.mkdir()
    shutil.copy(TOKENIZER, place)
    (place / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    return str(place)


def run(command: list[str]) -> None:
    """SystemExit with the end of what it said where it fails."""
    env = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise SystemExit(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-1500:]}")


if __name__ == "__main__":
    main()
