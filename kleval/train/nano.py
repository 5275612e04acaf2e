"""`kleval train nano`: the recipe that made the shipped nano weights.

One stream, one token budget, one optimiser and one schedule for every architecture, so that the models differ in their mixers
alone. A run is resumable at any moment and seeded: batch i depends on (seed, i) only, and a checkpoint holds weights,
optimiser state and the number of finished steps.

Schedule: sequences of 128, 256, 512, then 1024 tokens (`CURRICULUM`, by share of the token budget); learning rate warmed up
over 30 steps, constant, then linear to zero over the last 30 % of the budget.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder
from kleval.models.sizes import preset
from kleval.tokenization import HFTokenizer
from kleval.train.optim import MuonAdamW
from kleval.train.start import in_words, structured_start
from kleval.train.stream import FAMILIES, IGNORED, MIXTURE, Stream
from kleval.train.tokenizer import train_tokenizer
from kleval.types import UsageError

CURRICULUM = ((0.20, 128), (0.45, 256), (0.75, 512), (1.0, 1024))
WARMUP_STEPS = 30
DECAY_SHARE = 0.30


@dataclass(frozen=True, slots=True)
class Recipe:
    """tokens: the budget, counted as rows x length of every batch. Learning rates are the peaks."""

    tokens: int = 8_000_000
    tokens_per_batch: int = 4096
    muon_lr: float = 0.02
    adam_lr: float = 3e-3
    clip: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training run is, for whoever shows it."""

    model: str
    step: int
    tokens: int
    budget_tokens: int
    length: int
    loss: float
    accuracy: dict[str, float]
    tokens_per_second: float


def nano_folder() -> Path:
    """Where the shipped weights and their tokenizer are, and where `kleval train nano` looks for the tokenizer first."""
    return Path(str(resources.files("kleval.models") / "nano"))


def length_at(share: float) -> int:
    """Tokens per sequence once `share` of the budget is spent."""
    return next((length for until, length in CURRICULUM if share < until), CURRICULUM[-1][1])


def learning_scale(step: int, share: float) -> float:
    """Factor on both learning rates: warm-up by steps, decay by share of the budget."""
    warm = min(1.0, (step + 1) / WARMUP_STEPS)
    return warm * min(1.0, (1.0 - share) / DECAY_SHARE)


def train_nano(
    architecture: str,
    out: Path,
    recipe: Recipe | None = None,
    threads: int = 0,
    on_progress: Callable[[Progress], None] = lambda _: None,
    checkpoint_seconds: float = 60.0,
    report_every: int = 10,
) -> Path:
    """Train one architecture at nano size into out/ARCHITECTURE and return that folder.

    out also gets the tokenizer, made anew when absent. Interrupted and called again with the same recipe it continues, finished it
    is left as it is; with another recipe it raises UsageError. Writes config.json, model.safetensors, training.json (recipe, tokens,
    seconds, final training accuracy) and log.jsonl.
    """
    recipe = recipe or Recipe()
    if threads:
        torch.set_num_threads(threads)
    folder = out / architecture
    if _is_finished(folder, recipe):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if not (out / "tokenizer.json").exists():
        train_tokenizer(out)
    tokenizer = HFTokenizer.from_file(out / "tokenizer.json", name="nano")
    stream = Stream(tokenizer, recipe.seed)
    config = preset(architecture, "nano", vocab_size=tokenizer.vocab_size, eos_token_id=stream.eos_id)
    torch.manual_seed(recipe.seed)
    model = Decoder(config)
    model.init_weights(recipe.seed)
    structured_start(model, config, recipe.seed)
    optimiser = MuonAdamW(model.named_parameters(), recipe.muon_lr, recipe.adam_lr)
    state = _restore(folder, model, optimiser, recipe)
    started, done_tokens = time.monotonic(), int(state["tokens"])
    saved_at, seconds_before = started, float(state["seconds"])
    accuracy: dict[str, float] = dict(state["accuracy"])
    model.train()
    while state["tokens"] < recipe.tokens:
        share = state["tokens"] / recipe.tokens
        length = length_at(share)
        batch = stream.batch(int(state["step"]), length, max(1, recipe.tokens_per_batch // length))
        ids, labels = torch.from_numpy(batch.ids), torch.from_numpy(batch.labels)
        hidden = model.hidden(ids)
        wanted = labels != IGNORED  # [B, T]
        logits = model.logits(hidden[wanted])  # [answers, V]
        loss = F.cross_entropy(logits, labels[wanted])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimiser.step(learning_scale(int(state["step"]), share))
        optimiser.zero_grad()
        state["step"] += 1
        state["tokens"] += ids.numel()
        _track_accuracy(accuracy, batch.kinds, wanted, logits.detach().argmax(-1) == labels[wanted])
        now = time.monotonic()
        if now - saved_at > checkpoint_seconds:
            state |= {"seconds": seconds_before + now - started, "accuracy": accuracy}
            _checkpoint(folder, model, optimiser, recipe, state)
            saved_at = now
        if state["step"] % report_every == 0:
            rate = (state["tokens"] - done_tokens) / (now - started)
            report = Progress(
                architecture, state["step"], state["tokens"], recipe.tokens, length, loss.item(), dict(accuracy), rate
            )
            on_progress(report)
            _log(folder, report)
    state |= {"seconds": seconds_before + time.monotonic() - started, "accuracy": accuracy}
    _finish(folder, model, config, recipe, state)
    return folder


def _track_accuracy(
    accuracy: dict[str, float], kinds: tuple[str, ...], wanted: torch.Tensor, right: torch.Tensor
) -> None:
    """Running share of answer tokens that the argmax gets right, by kind of sample."""
    per_row = wanted.sum(1).tolist()
    for kind, part in zip(kinds, right.split(per_row), strict=True):
        if part.numel():
            accuracy[kind] = 0.98 * accuracy.get(kind, 0.0) + 0.02 * part.float().mean().item()


def _log(folder: Path, report: Progress) -> None:
    row = asdict(report) | {"accuracy": {k: round(report.accuracy.get(k, 0.0), 4) for k in MIXTURE}}
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")


def _checkpoint(folder: Path, model: Decoder, optimiser: MuonAdamW, recipe: Recipe, state: dict[str, Any]) -> None:
    tensors = {f"model.{n}": p.detach() for n, p in model.named_parameters()}
    tensors |= {f"optimiser.{n}": t for n, t in optimiser.state().items()}
    metadata = {"recipe": json.dumps(asdict(recipe)), "state": json.dumps(state)}
    temporary = folder / "checkpoint.tmp"
    save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, metadata)
    os.replace(temporary, folder / "checkpoint.safetensors")


def _restore(folder: Path, model: Decoder, optimiser: MuonAdamW, recipe: Recipe) -> dict[str, Any]:
    from safetensors import safe_open

    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return {"step": 0, "tokens": 0, "seconds": 0.0, "accuracy": {}}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if json.loads(metadata["recipe"]) != asdict(recipe):
        raise UsageError(
            f"{path} was made with another recipe ({metadata['recipe']}): give another --out, or delete it"
        )
    tensors = load_file(path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    optimiser.load_state({k.removeprefix("optimiser."): v for k, v in tensors.items() if k.startswith("optimiser.")})
    state: dict[str, Any] = json.loads(metadata["state"])
    return state


def _is_finished(folder: Path, recipe: Recipe) -> bool:
    """Whether the folder holds what this recipe comes to. UsageError when it holds what another one came to."""
    path = folder / "training.json"
    if not path.exists() or (folder / "checkpoint.safetensors").exists():
        return False
    made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    different = [name for name, value in asdict(recipe).items() if made.get(name) != value]
    if different:
        raise UsageError(
            f"{path} was made with another recipe ({', '.join(different)}): give another --out, or delete it"
        )
    return True


def _finish(folder: Path, model: Decoder, config: ModelConfig, recipe: Recipe, state: dict[str, Any]) -> None:
    tensors = {n: p.detach().contiguous() for n, p in model.named_parameters()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config.to_dict(), indent=1) + "\n", encoding="utf-8")
    summary = asdict(recipe) | {
        "steps": state["step"],
        "tokens_seen": state["tokens"],
        "seconds": round(state["seconds"], 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "curriculum": CURRICULUM,
        "mixture": MIXTURE,
        "families": FAMILIES,
        "start": in_words(config),
        "final_training_accuracy": {k: round(v, 4) for k, v in state["accuracy"].items()},
    }
    (folder / "training.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
