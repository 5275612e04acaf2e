"""Tables of real_model.py, from rows, points and servers' logs below OUT/ENGINE.

- agreement: for each two engines the answers to the same prompts: equal texts, equal scores, the mean of either;
- times: TTFT and TPOT of the profile beside the server's own timings of the same requests. llama.cpp divides the time from the
  first token to the last by all tokens; TPOT is over the steps between them, so the server's total is divided by those here.
- state: KiB per token of the caches that the engines say they allocated or hold.
"""

from __future__ import annotations

import itertools
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import print_table

SERVERS, LOCAL = ("llama.cpp", "llama-cpp-python"), "hf"
PROMPT = re.compile(r"prompt eval time =\s*([\d.]+) ms /\s*(\d+) tokens")
DECODE = re.compile(r"(?<!prompt) eval time =\s*([\d.]+) ms /\s*(\d+) (?:tokens|runs)")
CACHE = re.compile(r"llama_kv_cache: size =\s*([\d.]+) MiB \(\s*(\d+) cells")


def answers(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """Answered rows of a run by sample and prompt: only the same prompt is the same question."""
    rows = (
        json.loads(line) for file in folder.glob("samples/*/*.jsonl") for line in file.read_text("utf-8").splitlines()
    )
    return {(row["id"], row["prompt_hash"]): row for row in rows if row["failure"] is None and row["outcomes"]}


def text(row: dict[str, Any]) -> str:
    return str(row["outcomes"][-1].get("text"))


def agreement(out: Path, parts: Sequence[str]) -> list[list[str]]:
    """A line for every part and two engines that have answered the same prompts."""
    lines = []
    for part, (one, other) in itertools.product(parts, itertools.combinations((*SERVERS, LOCAL), 2)):
        first, second = answers(out / one / part), answers(out / other / part)
        both = sorted(first.keys() & second.keys())
        if not both:
            continue
        pairs = [(first[key], second[key]) for key in both]
        same_text = sum(text(a) == text(b) for a, b in pairs)
        same_score = sum(a["score"] == b["score"] for a, b in pairs)
        means = [f"{100 * statistics.fmean(row['score'] for row in rows):.1f}" for rows in zip(*pairs, strict=True)]
        shared = statistics.fmean(common_share(text(a), text(b)) for a, b in pairs)
        lines.append(
            [part, one, other, str(len(both)), str(same_text), f"{100 * shared:.0f} %", str(same_score), *means]
        )
    return lines


def common_share(one: str, other: str) -> float:
    """Length of the common beginning over that of the longer text; 1 for equal ones."""
    longest = max(len(one), len(other))
    same = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))
    return same / longest if longest else 1.0


def partings(copy: Path, out: Path, part: str) -> list[list[str]]:
    """A line for every answer that a server gave otherwise than hf: by how much the copy preferred its own next token there.

    Greedy answers part at one token and are different texts from there on; where the log-probabilities of the two tokens are
    nearly equal, rounding chose.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from kleval.store import RunStore
    from kleval.tokenization import load_tokenizer

    rows = answers(out / LOCAL / part)
    if not rows:
        return []
    store, tokenizer = RunStore.open(out / LOCAL / part), load_tokenizer(f"hf:{copy}")
    stored = {(row.id, row.prompt_hash): row for row in store.rows()}
    model = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
    lines = []
    for name in SERVERS:
        theirs = answers(out / name / part)
        for key in sorted(key for key in rows.keys() & theirs.keys() if text(rows[key]) != text(theirs[key])):
            prompt = tokenizer.encode(tokenizer.render(store.read_prompt(stored[key]), stored[key].answer_prefix))
            mine, their_text = tokenizer.encode(text(rows[key])), text(theirs[key])
            n, others = parting(tokenizer, mine, their_text)
            if not others:
                lines.append([name, key[0], "one is the beginning of the other", ""])
                continue
            with torch.no_grad():
                logits = model(torch.tensor([prompt + mine[:n]]), logits_to_keep=1).logits[0, -1].double()
            gap = float(logits[mine[n]] - logits[others].max())
            lines.append([name, key[0], f"after {n} tokens", f"{gap:.3f}"])
    return lines


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
    """Bytes per token: of llama.cpp what its log says it allocated, of transformers what the cache of each round held."""
    lines = []
    for name in (*SERVERS, LOCAL):
        log = out / name / "server.log"
        for size, cells in dict.fromkeys(CACHE.findall(log.read_text("utf-8", "replace")) if log.is_file() else ()):
            lines.append([name, "allocated", f"{cells} cells, {size} MiB", f"{float(size) * 2**10 / int(cells):.1f}"])
        for values in (point["values"] for point in points(out / name / "profile")):
            if "kv_bytes" in values:
                held = int(values["prompt_tokens"] + values["output_tokens"] - 1)
                lines.append([name, "held", f"{held} tokens", f"{values['kv_bytes'] / held / 2**10:.1f}"])
    return [list(line) for line in dict.fromkeys(map(tuple, lines))]


def print_tables(out: Path, parts: Sequence[str], apart: Sequence[list[str]]) -> None:
    for title, header, rows in (
        (
            "agreement, score x 100",
            ["part", "one", "other", "n", "same text", "shared beginning", "same score", "one's mean", "other's"],
            agreement(out, parts),
        ),
        (
            "times, ms",
            ["server", "ctx", "rounds", "TTFT", "its own", "ratio", "TPOT", "its own", "ratio"],
            times(out),
        ),
        ("partings from hf, nats between its token and the other's", ["server", "sample", "", "by"], apart),
        ("state", ["engine", "", "of", "KiB per token"], state(out)),
    ):
        if rows:
            print(f"\n{title}")
            print_table(header, rows)
