"""Tables of real_model.py, from rows, points and servers' logs below OUT/ENGINE.

- agreement: for each two engines the answers to the same prompts: equal texts, equal scores, the mean of either, and by how many
  nats their log-probabilities of the same continuations differ;
- lm-eval: its own RULER at a server beside kleval's rows of it under lm-eval's protocol, document by document;
- times: TTFT and TPOT of the profile beside the server's own timings of the same requests. llama.cpp divides the time from the
  first token to the last by all tokens; TPOT is over the steps between them, so the server's total is divided by those here.
- state: KiB per token of the caches that the engines say they allocated or hold.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common import length, print_table
from real_engines import CACHE_BYTES, ENGINES

LOCAL = "hf"
SERVERS = tuple(name for name, engine in ENGINES.items() if engine.server is not None)
PROMPT = re.compile(r"prompt eval time =\s*([\d.]+) ms /\s*(\d+) tokens")
DECODE = re.compile(r"(?<!prompt) eval time =\s*([\d.]+) ms /\s*(\d+) (?:tokens|runs)")
CACHE = re.compile(r"llama_kv_cache: size =\s*([\d.]+) MiB \(\s*(\d+) cells")
BLOCKS = re.compile(r"KV cache size: ([\d,]+) tokens")  # of vLLM, in the bytes that it was given


@functools.cache
def load(copy: Path) -> Any:
    """The copy's tokenizer."""
    from kleval.tokenization import load_tokenizer

    return load_tokenizer(f"hf:{copy}")


def directories(engine: Path, part: str) -> list[Path]:
    """Run directories of a part: PART itself, or one for each length, the shortest first."""
    found = [path.parent for path in engine.glob(f"{part}*/run.json")]
    lengths = {path: path.name.removeprefix(part).removeprefix("-") for path in found}
    known = [path for path, rest in lengths.items() if not rest or rest[:-1].isdigit()]
    return sorted(known, key=lambda path: length(lengths[path] or "0"))


def run_names(out: Path, parts: Sequence[str]) -> list[str]:
    """Of the run directories of any engine, by part and length."""
    return list(
        dict.fromkeys(path.name for part in parts for name in ENGINES for path in directories(out / name, part))
    )


def answers(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Answered rows of a run by sample and prompt: only the same prompt is the same question."""
    rows = (
        json.loads(line) for file in folder.glob("samples/*/*.jsonl") for line in file.read_text("utf-8").splitlines()
    )
    return {(row["id"], row["prompt_hash"]): row for row in rows if row["failure"] is None and row["outcomes"]}


def text(row: dict[str, Any]) -> str:
    return str(row["outcomes"][-1].get("text"))


def agreement(out: Path, parts: Sequence[str]) -> list[list[str]]:
    """A line for every run and two engines that have answered the same prompts."""
    lines = []
    for name, (one, other) in itertools.product(run_names(out, parts), itertools.combinations(ENGINES, 2)):
        first, second = answers(out / one / name), answers(out / other / name)
        both = sorted(first.keys() & second.keys())
        if not both:
            continue
        pairs = [(first[key], second[key]) for key in both]
        written = [(text(a), text(b)) for a, b in pairs if not likelihoods(a)]
        same_text = f"{sum(a == b for a, b in written)} of {len(written)}" if written else ""
        shared = f"{100 * statistics.fmean(common_share(a, b) for a, b in written):.0f} %" if written else ""
        same_score = f"{sum(a['score'] == b['score'] for a, b in pairs)} of {len(pairs)}"
        means = [f"{100 * statistics.fmean(row['score'] for row in rows):.1f}" for rows in zip(*pairs, strict=True)]
        apart = sorted(abs(x - y) for a, b in pairs for x, y in zip(likelihoods(a), likelihoods(b), strict=True))
        nats = [str(len(apart)), f"{statistics.median(apart):.2g}", f"{apart[-1]:.2g}"] if apart else ["", "", ""]
        lines.append([name, one, other, same_text, shared, same_score, *means, *nats])
    return lines


def likelihoods(row: dict[str, Any]) -> list[float]:
    """Log-probabilities of the continuations that were asked about, in the order asked."""
    return [outcome["logprob_sum"] for outcome in row["outcomes"] if outcome["kind"] == "loglikelihood"]


def against_lm_eval(out: Path, render: Callable[[Any, str], str]) -> list[list[str]]:
    """A line for every task that lm-eval asked at a server and kleval asked there under lm-eval's protocol.

    render: a prompt and its answer prefix as the text that the model was sent.
    """
    from kleval.store import RunStore

    lines = []
    for engine, run in ((name, run) for name in SERVERS for run in directories(out / name, "lm-eval")):
        ctx, prompts = run.name.removeprefix("lm-eval-"), prompts_of([run])
        rows = [row for row in RunStore.open(run).rows() if row.failure is None]
        ours = {(row.task.partition("/")[2], row.index): row for row in rows}
        for file in sorted((out / engine / "lm-eval-own" / ctx).glob("*/*/**/samples_*.jsonl")):
            task = file.relative_to(out / engine / "lm-eval-own" / ctx).parts[1].removeprefix("ruler_")
            pairs = []
            for line in file.read_text("utf-8").splitlines():
                theirs = json.loads(line)
                if row := ours.get((task, theirs["doc_id"])):
                    pairs.append((theirs, row))
            if pairs:
                asked = [(a["arguments"]["gen_args_0"]["arg_0"], prompts.get((b.id, b.prompt_hash))) for a, b in pairs]
                same_prompt = sum(mine is not None and theirs == render(*mine) for theirs, mine in asked)
                texts = sum(a["resps"][0][0].strip() == str(b.outcomes[-1].get("text")).strip() for a, b in pairs)
                scores = [(float(a[str(length(ctx))]), float(b.score or 0)) for a, b in pairs]
                means = [f"{100 * statistics.fmean(values):.1f}" for values in zip(*scores, strict=True)]
                same = sum(a == b for a, b in scores)
                lines.append([engine, ctx, task, str(len(pairs)), str(same_prompt), str(texts), str(same), *means])
    return lines


def common_share(one: str, other: str) -> float:
    """Length of the common beginning over that of the longer text; 1 for equal ones."""
    longest = max(len(one), len(other))
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    return same / longest if longest else 1.0


def partings(copy: Path, out: Path, run: str) -> list[list[str]]:
    """A line for every answer that an engine gave otherwise than hf: by how much the copy preferred its own next token there.

    Greedy answers part at one token and are different texts from there on; where the log-probabilities of the two tokens are
    nearly equal, rounding chose.
    """
    import torch
    from transformers import AutoModelForCausalLM

    mine = generated(out / LOCAL / run)
    others = {name: generated(out / name / run) for name in ENGINES if name != LOCAL}
    differ = [
        (name, key) for name, rows in others.items() for key in sorted(rows) if key in mine and rows[key] != mine[key]
    ]
    if not differ:
        return []
    tokenizer, prompts = load(copy), prompts_of([out / name / run for name in ENGINES])
    model = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
    lines = []
    for name, key in differ:
        ids = tokenizer.encode(mine[key])
        n, their_next = parting(tokenizer, ids, others[name][key])
        if not their_next:
            lines.append([name, run, key[0], "one is the beginning of the other", ""])
        elif key not in prompts:
            lines.append([name, run, key[0], "the prompt is not here", ""])
        else:
            prompt = tokenizer.encode(tokenizer.render(*prompts[key]))
            with torch.no_grad():
                logits = model(torch.tensor([prompt + ids[:n]]), logits_to_keep=1).logits[0, -1].double()
            lines.append(
                [name, run, key[0], f"after {n} tokens", f"{float(logits[ids[n]] - logits[their_next].max()):.3f}"]
            )
    return lines


def generated(folder: Path) -> dict[tuple[str, str], str]:
    return {key: text(row) for key, row in answers(folder).items() if not likelihoods(row)}


def prompts_of(runs: Sequence[Path]) -> dict[tuple[str, str], tuple[Any, str]]:
    """Prompts and answer prefixes of the first run that has kept each: published rows come without."""
    from kleval.store import RunStore
    from kleval.types import UsageError

    found: dict[tuple[str, str], tuple[Any, str]] = {}
    for run in (run for run in runs if (run / "run.json").is_file()):
        store = RunStore.open(run)
        for row in store.rows():
            with contextlib.suppress(UsageError):
                found.setdefault((row.id, row.prompt_hash), (store.read_prompt(row), row.answer_prefix))
    return found


def parting(tokenizer: Any, ids: Sequence[int], other: str) -> tuple[int, list[int]]:
    """How many of ids the other text begins with, and the tokens with which it may go on there: a text has several spellings in
    tokens, so its own encoding need not be what was generated."""
    n = 0
    while n < len(ids) and other.startswith(piece := tokenizer.decode([ids[n]])):
        other, n = other[len(piece) :], n + 1
    beginnings = (tokenizer.encode(other[:size]) for size in range(1, min(len(other), 30) + 1))
    return n, [only[0] for only in beginnings if len(only) == 1] if n < len(ids) else []


def points(folder: Path) -> list[dict[str, Any]]:
    file = folder / "points.jsonl"
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []
    return [row for row in rows if row["failure"] is None]


def own_timings(log: str) -> dict[tuple[int, int], list[tuple[float, float]]]:
    """Of a server's log, by prompt and answer tokens of a request: prefill ms, and ms per step between tokens."""
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    prompts, decodes = PROMPT.findall(log), DECODE.findall(log)
    for (prompt_ms, prompt), (decode_ms, made) in zip(prompts, decodes, strict=False):
        if int(made) > 1:
            timing = float(prompt_ms), float(decode_ms) / (int(made) - 1)
            found.setdefault((int(prompt), int(made)), []).append(timing)
    return found


def times(out: Path) -> list[list[str]]:
    """A line per length of a served profile, medians over its rounds."""
    lines = []
    for name in SERVERS:
        log = out / name / "server.log"
        timings = own_timings(log.read_text("utf-8", "replace")) if log.is_file() else {}
        by_ctx: dict[int, list[dict[str, Any]]] = {}
        for point in points(out / name / "profile"):
            by_ctx.setdefault(point["ctx"], []).append(point["values"])
        for ctx, rounds in sorted(by_ctx.items()):
            own = timings.get((int(rounds[0]["prompt_tokens"]), int(rounds[0]["output_tokens"])), [])[-len(rounds) :]
            if own:
                cells = []
                for key, at in (("ttft_ms", 0), ("tpot_ms", 1)):
                    seen, told = (statistics.median(v) for v in ([r[key] for r in rounds], [t[at] for t in own]))
                    cells += [f"{seen:.1f}", f"{told:.1f}", f"{seen / told:.3f}"]
                lines.append([name, str(ctx), str(len(rounds)), *cells])
    return lines


def state(out: Path) -> list[list[str]]:
    """Bytes per token: of llama.cpp and vLLM what the log says was allocated, of transformers what each round's cache held."""
    lines = []
    for name in (*SERVERS, LOCAL):
        file = out / name / "server.log"
        log = file.read_text("utf-8", "replace") if file.is_file() else ""
        given = [(f"{CACHE_BYTES / 2**20:.2f}", cells.replace(",", "")) for cells in BLOCKS.findall(log)]
        for size, cells in dict.fromkeys([*CACHE.findall(log), *given]):
            lines.append([name, "allocated", f"{cells} cells, {size} MiB", f"{float(size) * 2**10 / int(cells):.1f}"])
        for values in (point["values"] for point in points(out / name / "profile")):
            if "kv_bytes" in values:
                held = int(values["prompt_tokens"] + values["output_tokens"] - 1)
                lines.append([name, "held", f"{held} tokens", f"{values['kv_bytes'] / held / 2**10:.1f}"])
    return [list(line) for line in dict.fromkeys(map(tuple, lines))]


def print_tables(out: Path, parts: Sequence[str], apart: Sequence[list[str]], copy: Path) -> None:
    """copy: the folder whose tokenizer and chat template the engines have."""

    def render(prompt: Any, prefix: str) -> str:
        return str(load(copy).render(prompt, prefix))

    for title, header, rows in (
        (
            "agreement, score x 100; log-probabilities in nats",
            [
                *("run", "one", "other", "same text", "shared beginning", "same score", "one's mean", "other's"),
                *("log-probabilities", "median apart", "most"),
            ],
            agreement(out, parts),
        ),
        (
            "lm-eval's own RULER against kleval's, score x 100",
            ["server", "ctx", "task", "n", "same prompt", "same text", "same score", "lm-eval's mean", "kleval's"],
            against_lm_eval(out, render),
        ),
        (
            "times, ms",
            ["server", "ctx", "rounds", "TTFT", "its own", "ratio", "TPOT", "its own", "ratio"],
            times(out),
        ),
        ("partings from hf, nats between its token and the other's", ["engine", "run", "sample", "", "by"], apart),
        ("state", ["engine", "", "of", "KiB per token"], state(out)),
    ):
        if rows:
            print(f"\n{title}")
            print_table(header, rows)
