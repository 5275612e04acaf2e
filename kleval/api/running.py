"""`evaluate`: models on tasks at lengths, as `kleval run`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from kleval.api.models import by_name, directory, is_backend, lengths, listed, load_backend, named, open_object, shown
from kleval.api.progress import watched
from kleval.api.results import Evaluation
from kleval.backends.registry import open_on
from kleval.harness import RunSpec
from kleval.harness import run as run_spec
from kleval.harness.replicas import replicas
from kleval.lengths import parse_lengths
from kleval.suites import suite as find_suite
from kleval.tasks.own.metric import with_metric
from kleval.tasks.registry import OWN, TAKE_DOCUMENTS, expand, groups, loader, themselves
from kleval.types import Backend, Task, UsageError
from kleval.work.events import Event
from kleval.work.executors import find_launcher

DEFAULT_SUITE, DEFAULT_CTX, DEFAULT_LIMIT = "long", 4096, 10


def evaluate(
    model: object,
    tokenizer: object = None,
    *,
    tasks: str | Task | Sequence[str | Task] | None = None,
    suite: str | None = None,
    ctx: int | str | Iterable[int | str] | None = None,
    limit: int | None = None,
    repeats: int = 1,
    edition: str | None = None,
    protocol: str | None = None,
    haystack: Path | str | None = None,
    metric: str | Callable[..., Any] | None = None,
    seed: int = 42,
    temperature: float | None = None,
    top_p: float | None = None,
    max_new_tokens: int | None = None,
    reasoning: str = "auto",
    judge: str | Backend | None = None,
    allow_code_execution: bool = False,
    name: str | None = None,
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    devices: Sequence[str] = (),
    executor: str = "local",
    ray_address: str | None = None,
    gpus_per_model: float | None = None,
    batch: int | None = None,
    memory_budget: int | None = None,
    share_prefixes: bool = True,
    base_url: str | None = None,
    api: str = "auto",
    api_key_env: str = "OPENAI_API_KEY",
    concurrency: int = 16,
    request_timeout: float = 600.0,
    timeout: float | None = None,
    served_name: str | None = None,
    request_fields: Mapping[str, str] | None = None,
    without_fields: Sequence[str] = (),
    hardware: str | None = None,
    engine_args: Mapping[str, str] | None = None,
    tp: int = 1,
    max_model_len: int | None = None,
    trust_remote_code: bool = False,
    add_bos: str = "auto",
    template_args: Mapping[str, Any] | None = None,
    data_dir: Path | str | None = None,
    sample_cache: Path | str | None = None,
    workers: int = 0,
    max_errors: float | None = None,
    retries: int = 3,
    retry_seconds: float = 1.0,
    window_tokens: int = 1 << 19,
    out: Path | str | None = None,
    shard: str | None = None,
    amend: bool = False,
    progress: bool | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Evaluation:
    """Models on tasks at lengths, as `kleval run`: the same rows in the same run directory, which the same call continues.

    What is asked:
        model: a name, folder or hub id; a `kleval.types.Backend`; a model object: a transformers model, or a torch module
            `forward(ids) -> logits`, with a cache `forward(ids, cache) -> (logits, cache)`; several in a list, or by name in a dict.
        tokenizer: of model objects: transformers' or anything that encodes and decodes. Of names: the one that lengths are counted in.
        tasks: ids, families, files (`./my.py:Task`, `./my.yaml`, `ppl:FILE`) or `kleval.types.Task`s; else those of `suite` (`long`).
        ctx: tokens, or texts as `--ctx` takes them ("4k,128k"); else the suite's, or 4096. limit: samples per task and length (10).
        repeats: answers per sample. edition: `builtin` or `official` data. protocol: prompt and scoring, where a task has several.
        haystack: a text or folder of texts that RULER's and MRCR's needles are put into. metric: `./m.py:f` or a function
            f(answer, references) that scores the answers in the place of the tasks' own.
        seed: of samples and of sampling. temperature, top_p: None keeps each task's own (greedy). max_new_tokens: raise budgets to it.
        reasoning: what is told apart from an answer. judge: a name or backend that judges; engine settings are not for it.
        allow_code_execution: let tasks run what the model writes, in a sandbox.
    What answers, see `kleval.load_backend`: name, backend, device, dtype, batch, memory_budget, share_prefixes, base_url, api,
        api_key_env, concurrency, request_timeout, timeout, served_name, request_fields, without_fields, hardware, engine_args, tp,
        max_model_len, trust_remote_code, add_bos, template_args.
        devices: a process with the model for each, like ["cuda:0", "cuda:1"]; a script that gives them keeps its calls below
            `if __name__ == "__main__":`. executor, ray_address, gpus_per_model: `ray` and where, as the options of `kleval run`.
    How it goes:
        data_dir: where official data lie. sample_cache: a folder where samples are kept. workers: processes that make samples ahead.
        max_errors: failures tolerated, a count or below 1 a share. retries, retry_seconds: of requests that failed in passing.
        window_tokens: about how many tokens of samples are held at once.
        out: the run directory, or the remote address (`s3://…`) that gets it; a new temporary one unless given. shard: `3/8`, the third
            of eight parts of the run's samples. amend: extend the run that is in `out`.
        progress: a line on stderr; None shows it in terminals and notebooks. on_event: told every `kleval.work.events.Event`.

    Failed requests are failures in the rows, never exceptions. UsageError: what is asked cannot be done.
    """
    if tasks is not None and suite is not None:
        raise UsageError("give tasks or a suite, not both")
    models = named(model, name)
    objects = [one for one in models.values() if not isinstance(one, str) and not is_backend(one)]
    if tasks is None:
        found = find_suite(suite or DEFAULT_SUITE)
        limit = limit or found.limit
        if found.edition is not None and edition not in (None, found.edition):
            raise UsageError(f"suite {found.name} is of the {found.edition} edition: leave out edition")
        edition = edition or found.edition
        temperature = found.temperature if temperature is None else temperature
        tasks, suite = found.tasks, found.name
        if ctx is None and (told := found.lengths(edition or "builtin")):
            ctx = parse_lengths(told)
    if haystack is not None:
        if edition is not None:
            raise UsageError("haystack has an edition of its own: leave out edition")
        edition = OWN
        tasks = tuple(one for one in expand(tasks) if one in TAKE_DOCUMENTS) if suite else tasks  # type: ignore[arg-type]
    edition = edition or "builtin"
    given_tasks = listed(tasks)
    names = [task for task in given_tasks if isinstance(task, str)]
    own = by_name("task", [task for task in given_tasks if not isinstance(task, str)], _id)
    kept = {*expand(names, edition), *own}
    ids = dict.fromkeys(
        one
        for task in given_tasks
        if not (isinstance(task, str) and task.startswith("-"))
        for one in (expand([task], edition) if isinstance(task, str) else [task.id])
        if one in kept
    )
    if not objects and not isinstance(tokenizer, str | None):
        raise UsageError(f"{shown(tokenizer)} is the tokenizer of a model object, and there is none: leave it out")
    engine: dict[str, Any] = {
        "batch": batch,
        "memory_budget": memory_budget,
        "share_prefixes": share_prefixes,
        "add_bos": add_bos,
        "template_args": dict(template_args or {}),
    }
    of_names = engine | {
        "backend": backend,
        "device": device,
        "dtype": dtype,
        "base_url": base_url,
        "api": api,
        "api_key_env": api_key_env,
        "concurrency": concurrency,
        "request_timeout": request_timeout,
        "timeout": timeout,
        "served_name": served_name,
        "request_fields": request_fields,
        "without_fields": without_fields,
        "hardware": hardware,
        "engine_args": engine_args,
        "tp": tp,
        "max_model_len": max_model_len,
        "trust_remote_code": trust_remote_code,
        "tokenizer": tokenizer if not objects else None,
    }
    if objects and (device, dtype) != ("auto", "auto"):
        raise UsageError("device and dtype are those of the model object: move it before it is given")
    launcher = find_launcher(
        executor, devices, ray_address, gpus_per_model, device, base_url is not None or backend == "openai"
    )
    if launcher is not None and not all(isinstance(one, str) for one in models.values()):
        raise UsageError("an object is where it is: devices and executor are for models given by name")
    spec = RunSpec(
        models=tuple(models),
        tasks=tuple(ids),
        ctxs=lengths(DEFAULT_CTX if ctx is None else ctx),
        out=None if out is None else Path(out),
        limit=DEFAULT_LIMIT if limit is None else limit,
        repeats=repeats,
        edition=edition,
        protocol=protocol,
        seed=seed,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        reasoning=reasoning,
        metric=metric if isinstance(metric, str | None) else getattr(metric, "__name__", "metric"),
        haystack=None if haystack is None else Path(haystack),
        add_bos=add_bos,
        template_args=engine["template_args"],
        tokenizer=None if objects else tokenizer,  # type: ignore[arg-type]
        judge_model=None if judge is None else next(iter(named(judge, None))),
        backend=backend,
        device=device,
        dtype=dtype,
        devices=tuple(devices),
        executor=executor,
        ray_address=ray_address,
        gpus_per_model=gpus_per_model,
        batch=batch,
        memory_budget=memory_budget,
        data_dir=None if data_dir is None else Path(data_dir),
        sample_cache=None if sample_cache is None else Path(sample_cache),
        max_errors=max_errors,
        retries=retries,
        retry_seconds=retry_seconds,
        workers=workers,
        window_tokens=window_tokens,
        allow_code_execution=allow_code_execution,
        amend=amend,
        shard=shard,
        suite=suite,
        named=() if suite else (*themselves(names), *own),
        groups=groups(names, edition),
    )
    load = loader([one for one in ids if one not in own], edition, protocol, spec.haystack or spec.data_dir)

    def opened(called: str) -> Backend:
        given = models.get(called, called)
        if isinstance(given, str) and launcher is not None:
            empty = {"request_fields": request_fields or {}, "engine_args": engine_args or {}}
            return replicas(launcher, partial(open_on, of_names | empty), given)
        if isinstance(given, str):
            return load_backend(given, **of_names)
        return open_object(given, tokenizer, called, **engine)

    def opened_judge(called: str) -> Backend:
        return load_backend(judge) if isinstance(judge, str) else open_object(judge, None, None, None, None, True)

    def task(task_id: str) -> Task:
        return own[task_id] if task_id in own else load(task_id)

    asked = with_metric(task, metric)
    tell = watched(on_event, progress, "answers", "tokens")
    with directory(out) as folder:
        result = run_spec(replace(spec, out=folder), opened, asked, tell, open_judge=opened_judge)
    return Evaluation(result, folder, own, (*names, *([metric] if isinstance(metric, str) else [])))


def _id(task: Any) -> str:
    if isinstance(task, type) or not (hasattr(task, "step") and isinstance(getattr(task, "id", None), str)):
        raise UsageError(f"{shown(task)} is no task: give an id or an object that is a kleval.types.Task")
    return str(task.id)
