"""Contents of a run's run.json: settings, environment, and what a reader must know to compare."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kleval.harness.plan import ModelFacts
from kleval.harness.spec import RunSpec
from kleval.store.machine import machine
from kleval.store.settings import CODE
from kleval.tasks import texts
from kleval.tasks.own.code import digests
from kleval.tasks.registry import OPEN
from kleval.text import format_length, plural
from kleval.types import Task, Tokenizer

MOST_CHARACTERS = 16  # of a token on the average: longer documents are not counted
SHARD = "These are the answers of shard"
# What of a command changes its results, beside its models, tasks and lengths.
SPEC_SETTINGS = ("limit", "repeats", "edition", "protocol", "seed", "temperature", "top_p", "tokenizer", "judge_model")
# What a backend describes that changes no answers: speed, and what the weights' digest stands for. It may differ when a run continues.
NO_SETTINGS = {
    "batch",
    "max_batch",
    "memory_budget",
    "memory_budget_bytes",
    "threads",
    "native",
    "concurrency",
    "hardware",
    "prefill_chunk",
    "share_prefixes",
    "batches",
    "padded_batches",
    "training",
    "caveat",
}


def spec_settings(spec: RunSpec, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """The settings that are known before any model is open."""
    settings: dict[str, Any] = {
        "tasks": list(tasks),
        "ctx": sorted(set(spec.ctxs)),
        **{name: getattr(spec, name) for name in SPEC_SETTINGS},
    }
    if spec.shard is not None:
        settings["shard"] = spec.shard
    if spec.max_new_tokens is not None:
        settings["max_new_tokens"] = spec.max_new_tokens
    if spec.metric is not None:
        settings["metric"] = spec.metric
    if spec.reasoning != "auto":
        settings["reasoning"] = spec.reasoning
    if spec.add_bos != "auto":
        settings["add_bos"] = spec.add_bos
    if spec.template_args:
        settings["template_args"] = dict(spec.template_args)
    for task_id, task in tasks.items():
        for name, value in task_record(task).items():
            settings[f"tasks.{task_id}.{name}"] = value
    return settings


def all_settings(spec: RunSpec, tasks: Mapping[str, Task], models: Sequence[ModelFacts]) -> dict[str, Any]:
    settings = {"models": [model.name for model in models], **spec_settings(spec, tasks)}
    for model in models:
        settings |= engine_settings(f"models.{model.name}", model)
    return settings


def add_judge(manifest: dict[str, Any], judge: ModelFacts) -> None:
    """What judges the answers, as a record and as settings: another judge gives other scores."""
    manifest["judge"] = model_record(judge)
    manifest["settings"] |= engine_settings("judge", judge)


def engine_settings(prefix: str, model: ModelFacts) -> dict[str, Any]:
    record = model_record(model)
    settings = {
        f"{prefix}.tokenizer": record["tokenizer"]["digest"],
        f"{prefix}.chat_template": record["tokenizer"]["chat_template_digest"],
        f"{prefix}.backend": model.backend,
    }
    flat = _flat(record["describe"])
    return settings | {f"{prefix}.{name}": value for name, value in flat if name.split(".")[0] not in NO_SETTINGS}


def task_record(task: Task) -> dict[str, Any]:
    """asked_by, scored_by: digests of code of the user's own (`kleval.tasks.own.code`), where there is any."""
    names = ("version", "metric", "edition", "protocol", "data_revision", "data_digest")
    own = zip(CODE, digests(task), strict=True)
    return {name: getattr(task, name) for name in names} | {name: digest for name, digest in own if digest}


def model_record(model: ModelFacts) -> dict[str, Any]:
    chats = "chat messages" in (model.describe.get("prompts_sent_as"), model.describe.get("messages_sent_as"))
    deviations = (
        () if chats else getattr(model.tokenizer, "template_deviations", ())
    )  # a server's template renders them
    return {
        "name": model.name,
        "spec": model.given,
        "backend": model.backend,
        "max_ctx": model.max_ctx,
        "tokenizer": {
            "name": model.tokenizer.name,
            "digest": model.tokenizer.digest,
            "chat_template_digest": model.tokenizer.chat_template_digest,
            "begin_token": getattr(model.tokenizer, "begin", ""),
            "begin_rule": getattr(model.tokenizer, "begin_rule", ""),
            **({"template_deviations": list(deviations)} if deviations else {}),
        },
        "describe": json.loads(json.dumps(dict(model.describe), default=str)),
    }


def run_facts(
    spec: RunSpec, tasks: Mapping[str, Task], models: Sequence[ModelFacts], sources: Mapping[str, str]
) -> dict[str, Any]:
    """The fields of run.json (kleval.store.manifest) that are a run's own. sources: by id, the files that tasks were named by."""
    source = {task_id: {"source": _absolute(given)} for task_id, given in sources.items()}
    return {
        "dtype": {model.name: model.describe.get("dtype") for model in models},
        "models": {model.name: model_record(model) for model in models},
        "tasks": {task_id: task_record(task) | source.get(task_id, {}) for task_id, task in tasks.items()},
        "generation": {"temperature": spec.temperature, "top_p": spec.top_p, "repeats": spec.repeats},
        "seeds": {"seed": spec.seed, "request": "first 31 bits of sha256('seed|sample id|repeat|request number')"},
        "caveats": caveats(spec, models),
        "comparison": comparison(models),
    }


def _absolute(given: str) -> str:
    """The name of a task's file wherever the command is run from."""
    prefix = next((begins for begins in OPEN if begins.endswith(":") and given.startswith(begins)), "")
    file, colon, name = given.removeprefix(prefix).partition(".py:")
    return prefix + str(Path(f"{file}.py" if colon else file).expanduser().resolve()) + (f":{name}" if colon else "")


def comparison(models: Sequence[ModelFacts]) -> dict[str, Any]:
    """What several models of one run share. By construction all but the samples, which depend on the tokenizer."""
    if len(models) < 2:
        return {}
    return {
        "models": [model.name for model in models],
        "same": ["tasks", "ctx", *(name for name in SPEC_SETTINGS if name not in ("tokenizer", "judge_model"))],
        "same_samples": len({(m.counter.digest, m.counter.chat_template_digest) for m in models}) == 1,
    }


def caveats(spec: RunSpec, models: Sequence[ModelFacts]) -> list[str]:
    """What a reader of the numbers must know, one sentence each."""
    found = [] if spec.shard is None else [f"{SHARD} {spec.shard} of a run: kleval merge joins it with the others."]
    if len({(m.counter.digest, m.counter.chat_template_digest) for m in models}) > 1:
        names = ", ".join(f"{model.name} ({model.counter.name})" for model in models)
        found.append(f"The models' tokenizers or chat templates differ, so their samples differ too: {names}.")
    found += [caveat for model in models if (caveat := model.describe.get("caveat"))]
    for setting in ("dtype", "device"):
        values = {model.name: str(model.describe.get(setting)) for model in models}
        if len(set(values.values())) > 1:
            found.append(
                f"The models ran with different {setting}: {', '.join(f'{m} {v}' for m, v in values.items())}."
            )
    families = dict.fromkeys(task.split("/", 1)[0] for task in spec.tasks)
    for trained_on in dict.fromkeys(tuple(m.describe.get("training", {}).get("families", ())) for m in models):
        others = [family for family in families if family not in trained_on]
        if trained_on and others:
            names = " and ".join(
                m.name for m in models if tuple(m.describe.get("training", {}).get("families", ())) == trained_on
            )
            found.append(
                f"Not trained on {', '.join(others)}: {names}, whose training data are of {', '.join(trained_on)} alone."
            )
    if spec.tokenizer is not None:
        foreign = [
            m
            for m in models
            if (m.counter.digest or m.counter.name) != (m.tokenizer.digest or m.tokenizer.name)
            or m.describe.get("tokenizer_counts_only")
        ]
        if foreign:
            found.append(f"Lengths are counted in {spec.tokenizer}, not in the models' own tokens.")
        elif any(model.describe.get("server_tokenizer") == "unknown" for model in models):
            found.append(
                f"Lengths are counted in {spec.tokenizer}; the server does not tell whether it is the model's own."
            )
    if spec.haystack is not None and models:
        found += _repeated(spec.haystack, max(spec.ctxs), models[0].counter)
    if spec.max_new_tokens is not None:
        n = f"{spec.max_new_tokens:,}"
        found.append(f"Generation budgets are raised to {n} tokens, and prompts are made {n} tokens shorter than ctx.")
    if spec.repeats > 1 and spec.temperature == 0:
        found.append(f"{spec.repeats} repeats at temperature 0 ask the same question again and add no information.")
    return found


def _repeated(haystack: Path, ctx: int, counter: Tokenizer) -> list[str]:
    """That the user's documents are too short for the longest ctx; a needle in one sentence over and over is no test."""
    documents = texts.read(haystack)
    written = [one.text for one in documents.documents]
    if sum(map(len, written)) > MOST_CHARACTERS * ctx or (n := sum(map(counter.count, written))) >= ctx:
        return []
    return [f"{documents.name} has {plural(n, 'token')} in all: to fill {format_length(ctx)} it is repeated."]


def hardware() -> dict[str, Any]:
    """This machine; a GPU only where a backend has loaded torch."""
    torch = sys.modules.get("torch")
    gpus: list[str] = []
    if torch is not None and torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {**machine(), "gpus": gpus, "torch": str(torch.__version__) if torch is not None else None}


def _flat(record: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, value in record.items():
        flat += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
    return flat
