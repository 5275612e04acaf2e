"""Training loop of every recipe: batches, loss on labelled tokens, Muon and AdamW, checkpoints, resume, log.

A job says which batch and which learning rate belong to a step; the loop adds nothing that is not in its settings, so that a
training that was killed ends as one that was not, on the same device. A folder gets

    checkpoint.pt   weights, optimisers and progress, replaced as a whole every minute; gone when the training has ended
    log.jsonl       one line per report: step, tokens, length, loss, accuracy by kind
    training.json   settings, steps, tokens, seconds, hardware, final loss and accuracy: written last
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from kleval import files
from kleval.models.decoder import Decoder
from kleval.train.recipe import differences
from kleval.types import UsageError

IGNORED = -100
CHECKPOINT = "checkpoint.pt"
_SMOOTHING = 0.98  # of the running accuracies and the running loss


@dataclass(frozen=True, slots=True)
class Batch:
    """ids, labels [B, T] int64, a label IGNORED where none is to be produced; kinds [B, T] uint8: of the sample there, by its
    place in the job's `kinds`; weights [B, T] float32 of the labels' losses."""

    ids: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray
    weights: np.ndarray


@dataclass(frozen=True, slots=True)
class Job:
    """settings: JSON values that decide the result; a checkpoint with others is refused. budget: in tokens of ids.

    batch, scale: (step, tokens seen) -> the batch, and the factor on the learning rates. muon_lr None: AdamW takes everything.
    enough: ends the training before its budget, by the running accuracies. facts: what else training.json says.
    """

    name: str
    settings: Mapping[str, Any]
    model: Decoder
    budget: int
    batch: Callable[[int, int], Batch]
    scale: Callable[[int, int], float]
    kinds: tuple[str, ...]
    muon_lr: float | None
    adam_lr: float
    clip: float = 1.0
    precision: str = "float32"
    enough: Callable[[Mapping[str, float]], bool] = lambda _: False
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Progress:
    """Where a training is. accuracy: running share of labelled tokens that the argmax gets right, by kind, the plain mean until its
    smoothing has seen enough batches; counted: batches that it is of; peak: the highest that was reported."""

    name: str
    budget: int
    step: int = 0
    tokens: int = 0
    length: int = 0
    loss: float = math.nan
    seconds: float = 0.0
    tokens_per_second: float = 0.0
    accuracy: dict[str, float] = field(default_factory=dict)
    counted: dict[str, int] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)

    def saw(self, kind: str, right: float) -> None:
        """A batch more. right: share of its labelled tokens of the kind."""
        self.counted[kind] = self.counted.get(kind, 0) + 1
        before = self.accuracy.get(kind, 0.0)
        self.accuracy[kind] = before + max(1 - _SMOOTHING, 1 / self.counted[kind]) * (right - before)

    def note_peak(self) -> None:
        self.peak = {kind: max(value, self.peak.get(kind, 0.0)) for kind, value in self.accuracy.items()}

    @property
    def seconds_left(self) -> float:
        return (self.budget - self.tokens) / self.tokens_per_second if self.tokens_per_second else 0.0


def optimisers(job: Job) -> tuple[torch.optim.Optimizer, ...]:
    """torch's Muon for the matrices of the blocks; AdamW for embeddings, heads, taps, norms and decay rates. No weight decay."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in job.model.named_parameters():
        is_matrix = parameter.ndim == 2 and "embed_tokens" not in name and "lm_head" not in name
        (matrices if is_matrix and job.muon_lr is not None else others).append(parameter)
    adam = torch.optim.AdamW(others, lr=job.adam_lr, betas=(0.9, 0.95), weight_decay=0.0)
    if job.muon_lr is None:
        return (adam,)
    return torch.optim.Muon(matrices, lr=job.muon_lr, momentum=0.95, weight_decay=0.0), adam


def train(
    job: Job,
    folder: Path,
    device: str = "cpu",
    on_progress: Callable[[Progress], None] = lambda _: None,
    checkpoint_seconds: float = 60.0,
    report_every: int = 10,
) -> Progress | None:
    """Train to the budget, on from the folder's checkpoint if there is one; None where it was finished before.

    UsageError where the folder cannot be written to, holds a training with other settings, or the loss is no number any more: then
    the last checkpoint stays.
    """
    if _is_finished(folder, job.settings):
        return None
    with files.usage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if device != "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    job.model.to(device).train()
    both = optimisers(job)
    at = _restore(folder, job, both, device)
    before, started, saved = at.seconds, time.monotonic(), time.monotonic()
    tokens_before = at.tokens
    while at.tokens < job.budget and not job.enough(at.accuracy):
        batch = job.batch(at.step, at.tokens)
        loss = _step(job, both, batch, at, device)
        if not math.isfinite(loss):
            kept = f"its last good checkpoint is in {folder}" if (folder / CHECKPOINT).exists() else "nothing was kept"
            raise UsageError(
                f"{job.name}: the loss is {loss} at step {at.step} ({at.tokens:,} tokens, length {batch.ids.shape[1]});"
                f" {kept}: try a smaller learning rate"
            )
        at.loss = loss if math.isnan(at.loss) else _SMOOTHING * at.loss + (1 - _SMOOTHING) * loss
        at.step += 1
        at.tokens += batch.ids.size
        at.length = batch.ids.shape[1]
        now = time.monotonic()
        at.seconds = before + now - started
        at.tokens_per_second = (at.tokens - tokens_before) / (now - started)
        if now - saved > checkpoint_seconds:
            _checkpoint(folder, job, both, at)
            saved = now
        if at.step % report_every == 0:
            at.note_peak()
            _log(folder, at)
            on_progress(at)
    at.note_peak()
    _finish(folder, job, at, device)
    return at


def _step(job: Job, both: tuple[torch.optim.Optimizer, ...], batch: Batch, at: Progress, device: str) -> float:
    """One update; the running accuracies are brought up to date. Returns the loss; where it is no number nothing is updated."""
    ids, labels, kinds, weights = (
        torch.from_numpy(x).to(device) for x in (batch.ids, batch.labels, batch.kinds, batch.weights)
    )
    wanted = labels != IGNORED  # [B, T]
    with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=job.precision == "bf16"):
        logits = job.model.logits(job.model.hidden(ids)[wanted])  # [answers, V]
    targets, weights = labels[wanted], weights[wanted]
    loss = (F.cross_entropy(logits, targets, reduction="none") * weights).sum() / weights.sum()
    value = loss.item()
    if not math.isfinite(value):
        return value
    loss.backward()
    norm = nn.utils.clip_grad_norm_(job.model.parameters(), job.clip)
    if not torch.isfinite(norm):
        return math.nan
    scale = job.scale(at.step, at.tokens)
    for optimiser in both:
        optimiser.param_groups[0]["lr"] = optimiser.defaults["lr"] * scale
        optimiser.step()
        optimiser.zero_grad()
    right = (logits.detach().argmax(-1) == targets).double()
    size = len(job.kinds)
    total = torch.bincount(kinds[wanted].int(), minlength=size).tolist()
    good = torch.bincount(kinds[wanted].int(), right, minlength=size).tolist()
    for kind, n, k in zip(job.kinds, total, good, strict=True):
        if n:
            at.saw(kind, k / n)
    return value


def _log(folder: Path, at: Progress) -> None:
    row = {name: value for name, value in asdict(at).items() if name not in ("counted", "peak")}
    row |= {"accuracy": {k: round(v, 4) for k, v in at.accuracy.items()}, "loss": round(at.loss, 5)}
    row |= {"seconds": round(at.seconds, 1), "tokens_per_second": round(at.tokens_per_second, 1)}
    append(folder / "log.jsonl", row)


def append(path: Path, row: Mapping[str, Any]) -> None:
    """One more line of JSON; behind one that a kill or a full disk cut it begins a line of its own."""
    with files.usage_errors(path.parent), path.open("a+b") as lines:
        cut = lines.tell() > 0 and lines.seek(-1, os.SEEK_END) is not None and lines.read(1) != b"\n"
        lines.write((b"\n" if cut else b"") + json.dumps(row).encode() + b"\n")


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The lines that `append` wrote, without one that was cut; none where there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def _checkpoint(folder: Path, job: Job, both: tuple[torch.optim.Optimizer, ...], at: Progress) -> None:
    state = {
        "settings": dict(job.settings),
        "progress": asdict(at),
        "model": job.model.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in both],
    }
    draft = folder / f"{CHECKPOINT}.tmp"
    with files.usage_errors(folder):
        torch.save(state, draft)
        os.replace(draft, folder / CHECKPOINT)


def _restore(folder: Path, job: Job, both: tuple[torch.optim.Optimizer, ...], device: str) -> Progress:
    path, log = folder / CHECKPOINT, folder / "log.jsonl"
    rows = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    at = Progress(job.name, job.budget)
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        if different := differences(state["settings"], job.settings):
            raise UsageError(
                f"{path} began with another recipe ({different}): give another --out, or delete the folder"
            )
        job.model.load_state_dict(state["model"])
        for optimiser, saved in zip(both, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        at = Progress(**state["progress"])
        for kind in at.accuracy:  # of a checkpoint from before batches were counted
            at.counted.setdefault(kind, at.step)
    # Lines of steps that will be done again are dropped, as is one that was being written when the training was killed.
    kept = [row for row in rows if row.endswith("}") and json.loads(row)["step"] <= at.step]
    if kept != rows:
        files.write_text(log, "".join(row + "\n" for row in kept))
    return at


def ended(folder: Path, job: Job) -> Progress:
    """Where a training ended that was finished before, as its training.json says."""
    made = json.loads((folder / "training.json").read_text(encoding="utf-8"))
    accuracy = made["final_training_accuracy"]
    return Progress(
        job.name,
        job.budget,
        step=made["steps"],
        tokens=made["tokens_seen"],
        loss=made["loss"],
        seconds=made["seconds"],
        accuracy=accuracy,
        peak=made.get("peak_training_accuracy", accuracy),
    )


def _is_finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the folder holds what these settings come to. UsageError when it holds what others came to."""
    path = folder / "training.json"
    if not path.exists():
        return False
    if different := differences(json.loads(path.read_text(encoding="utf-8")), settings):
        raise UsageError(f"{path} was made with another recipe ({different}): give another --out, or delete the folder")
    return True


def _finish(folder: Path, job: Job, at: Progress, device: str) -> None:
    hardware = platform.processor() or platform.machine() if device == "cpu" else torch.cuda.get_device_name(device)
    summary = {
        **job.settings,
        **job.facts,
        "steps": at.step,
        "tokens_seen": at.tokens,
        "seconds": round(at.seconds, 1),
        "parameters": sum(p.numel() for p in job.model.parameters()),
        "device": device,
        "hardware": hardware,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "loss": round(at.loss, 5),
        "final_training_accuracy": {k: round(v, 4) for k, v in at.accuracy.items()},
        "peak_training_accuracy": {k: round(v, 4) for k, v in at.peak.items()},
    }
    from safetensors.torch import save_file

    with files.usage_errors(folder):
        tensors = {n: p.detach().cpu().contiguous() for n, p in job.model.named_parameters()}
        save_file(tensors, folder / "model.safetensors.tmp", {"format": "pt"})
        os.replace(folder / "model.safetensors.tmp", folder / "model.safetensors")
        files.write_text(folder / "config.json", json.dumps(job.model.config.to_dict(), indent=1) + "\n")
        files.write_text(folder / "training.json", json.dumps(summary, indent=1) + "\n")
        (folder / CHECKPOINT).unlink(missing_ok=True)
