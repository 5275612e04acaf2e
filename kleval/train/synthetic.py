"""`kleval train synthetic`: how well and how fast two layers of a mixer learn palindromes, MQAR and stacks at a length.

Two layers, two heads, the same MLP for every mixer; AdamW, constant after a warm-up. A training ends when 99.9 % of the labels are
right on average or its steps are spent. Preset `paper` is section 5.1's setting (head dim 128, at most 20,000 steps, four learning
rates, lengths 256 to 2,048; the batch is not stated there and 64 here); `quick` is a setting of minutes (head dim 64, lengths 64 to
256), whose numbers stand beside no published one. MLA has RoPE here: two layers without positions cannot tell what came first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kleval.models.decoder import Decoder
from kleval.models.sizes import preset
from kleval.train import loop
from kleval.train.loop import Batch, Progress
from kleval.train.synthetic_data import TASKS
from kleval.train.variants import vary
from kleval.types import UsageError

MODELS = ("kda", "gdn", "mla", "mamba2-decay")
_MIXERS = {"kda": "kimi-linear", "gdn": "gdn-h", "mla": "mla", "mamba2-decay": "gdn-h"}
SHORTEST = 16  # a stack of fewer tokens may hold no pop
_WARMUP_STEPS = 50
_SOLVED = 0.999

# Peak accuracy in per cent at training lengths 256, 512, 1024, 2048, read from Figure 4.
PAPER: Mapping[tuple[str, str], tuple[float, ...]] = {
    ("palindrome", "kda"): (100, 100, 100, 42.2),
    ("palindrome", "gdn"): (100, 100, 97.0, 37.1),
    ("palindrome", "mamba2-decay"): (100, 0, 0, 0),
    ("mqar", "kda"): (100, 100, 100, 47.6),
    ("mqar", "gdn"): (100, 100, 78.7, 29.1),
    ("mqar", "mamba2-decay"): (97.6, 0, 0, 0),
    ("stack", "kda"): (100, 100, 100, 100),
    ("stack", "gdn"): (100, 100, 100, 100),
    ("stack", "mamba2-decay"): (100, 100, 0, 0),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One training. rows: sequences per step."""

    task: str
    model: str
    length: int
    lr: float
    steps: int = 20_000
    rows: int = 64
    hidden: int = 256
    head_dim: int = 128
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.task}/{self.model}/{self.length}/{self.lr:g}"


LENGTHS = {"paper": (256, 512, 1024, 2048), "quick": (64, 128, 256)}
RATES = {"paper": (5e-5, 1e-4, 5e-4, 1e-3), "quick": (2e-3,)}


def settings(
    name: str,
    tasks: Sequence[str],
    models: Sequence[str],
    lengths: Sequence[int] = (),
    rates: Sequence[float] = (),
    **changed: Any,
) -> list[Setting]:
    """The trainings of a preset, of these tasks and models; lengths, rates and fields of `Setting` instead where given."""
    for kind, given, known in (("task", tasks, tuple(TASKS)), ("model", models, MODELS)):
        if unknown := [n for n in given if n not in known]:
            raise UsageError(f"unknown {kind} {unknown[0]!r}: choose out of {', '.join(known)}")
    if short := [n for n in lengths if n < SHORTEST]:
        raise UsageError(f"length {short[0]}: a test of fewer than {SHORTEST} tokens asks for next to nothing")
    small = {"steps": 400, "rows": 16, "hidden": 128, "head_dim": 64} if name == "quick" else {}
    return [
        replace(Setting(task, model, length, lr), **small | changed)
        for task in tasks
        for length in lengths or LENGTHS[name]
        for model in models
        for lr in rates or RATES[name]
    ]


def build(setting: Setting) -> Decoder:
    """The model of a setting, its weights made from its seed."""
    config = preset(_MIXERS[setting.model], "nano", vocab_size=TASKS[setting.task][1])
    half = setting.head_dim // 2
    config = replace(
        config,
        hidden_size=setting.hidden,
        layer_mixers=(config.layer_mixers[0],) * 2,
        kda_num_heads=2,
        kda_head_dim=setting.head_dim,
        num_attention_heads=2,
        qk_nope_head_dim=half,
        qk_rope_head_dim=half,
        v_head_dim=setting.head_dim,
        kv_lora_rank=setting.head_dim,
        intermediate_size=2 * setting.hidden,
        embedding_multiplier=setting.hidden**0.5,
    )
    model = Decoder(config)
    if setting.model == "mamba2-decay":
        vary(model, delta=False)
    model.init_weights(setting.seed)
    return model


def train_synthetic(
    setting: Setting,
    out: Path,
    device: str = "cpu",
    threads: int = 0,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> dict[str, Any]:
    """Train one setting into a folder below `out`; the result is also a line of out/results.jsonl. Done before: that line."""
    for row in read_results(out):
        if all(row.get(k) == v for k, v in asdict(setting).items()):
            return row
    if threads:
        torch.set_num_threads(threads)

    def batch(step: int, tokens: int) -> Batch:
        make = TASKS[setting.task][0]
        ids, labels = make(np.random.default_rng((setting.seed, step)), setting.rows, setting.length)
        return Batch(ids, labels, np.zeros(ids.shape, np.uint8), np.ones(ids.shape, np.float32))

    width = batch(0, 0).ids.size
    job = loop.Job(
        name=setting.name,
        settings=asdict(setting),
        model=build(setting),
        budget=setting.steps * width,
        batch=batch,
        scale=lambda step, _: min(1.0, (step + 1) / _WARMUP_STEPS),
        kinds=(setting.task,),
        muon_lr=None,
        adam_lr=setting.lr,
        enough=lambda accuracy: accuracy.get(setting.task, 0.0) >= _SOLVED,
    )
    folder = out / setting.name
    at = loop.train(job, folder, device, on_progress, report_every=20) or loop.ended(folder, job)
    peak = at.peak.get(setting.task, 0.0)
    row = {**asdict(setting), "peak": round(peak, 4), "steps_taken": at.step, "seconds": round(at.seconds, 1)}
    row |= _published(setting)
    loop.append(out / "results.jsonl", row)
    return row


def read_results(out: Path) -> list[dict[str, Any]]:
    """The lines of results.jsonl, none where there is no such file."""
    return loop.rows_of(out / "results.jsonl")


def _published(setting: Setting) -> dict[str, float]:
    """The paper's accuracy, where width of heads and length are its own."""
    known = PAPER.get((setting.task, setting.model))
    if known is None or setting.head_dim != 128 or setting.length not in LENGTHS["paper"]:
        return {}
    return {"paper": known[LENGTHS["paper"].index(setting.length)]}
