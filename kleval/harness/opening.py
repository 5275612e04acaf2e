"""Opening of a run: its tasks, its tokenizer and its models, looked at before anything is asked.

With several models each is opened twice: once before anything is asked, so that a name that does not exist or a tokenizer
in which nothing fits is told at once and the manifest is complete from the start, and once for its turn, since two models
need not fit into memory together. (The first keeps the instance it was opened with; tokenizers outlive their backend.)
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from kleval.harness.plan import LoadTask, ModelFacts, OpenBackend, model_facts
from kleval.harness.spec import RunSpec
from kleval.tasks.base import as_prompt
from kleval.tasks.data import MissingData
from kleval.tokenization import check_growth
from kleval.types import Backend, Failure, Request, Task, Tokenizer, UsageError


def load_tasks(spec: RunSpec, load_task: LoadTask) -> dict[str, Task]:
    """Every task, by the name it was asked for by. All data that are missing are told at once, with what fetches them."""
    tasks, missing = {}, []
    known: dict[str, str] = {}
    for task_id in dict.fromkeys(spec.tasks):
        try:
            tasks[task_id] = load_task(task_id)
            if (other := known.setdefault(tasks[task_id].id, task_id)) != task_id:
                raise UsageError(
                    f"{other} and {task_id} are both called {tasks[task_id].id}: give each an id of its own"
                )
        except MissingData as error:
            missing.append(error)
    families = list(dict.fromkeys(error.family for error in missing))
    if len(families) > 1:
        where = f" --data-dir {spec.data_dir}" if spec.data_dir else ""
        commands = " && ".join(f"kleval data fetch {family}{where}" for family in families)
        raise UsageError(f"the official data of {', '.join(families)} are not here: {commands}")
    if missing:
        raise missing[0]
    return tasks


def check_permissions(spec: RunSpec, tasks: Mapping[str, Task]) -> None:
    """UsageError when a task needs a judge that is not named, or to run code that it may not or cannot run here."""
    for task_id, task in tasks.items():
        if getattr(task, "needs_judge", False) and spec.judge_model is None:
            raise UsageError(f"{task_id} is scored by a judge: name one with --judge-model")
        check_code(task_id, task, spec.allow_code_execution)


def check_code(task_id: str, task: Task, allowed: bool) -> None:
    """UsageError when a task runs code that a model wrote and may not, or cannot here."""
    if getattr(task, "needs_code_execution", False):
        if not allowed:
            raise UsageError(
                f"{task_id} runs the code that the model writes: add --allow-code-execution to run it in a sandbox"
            )
        from kleval.sandbox import require

        require()


def length_tokenizer(spec: RunSpec, load_tokenizer: Callable[[str], Tokenizer] | None) -> Tokenizer | None:
    if spec.tokenizer is None:
        return None
    from kleval import tokenization

    counter = (load_tokenizer or tokenization.load_tokenizer)(spec.tokenizer)
    with contextlib.suppress(
        UsageError
    ):  # one that only counts has nothing to follow them with; the model's own is asked
        tokenization.asked_with(counter, spec.add_bos, spec.template_args)
    return counter


def open_models(
    spec: RunSpec, open_backend: OpenBackend, counter: Tokenizer | None, tasks: Mapping[str, Task]
) -> tuple[list[ModelFacts], Backend, contextlib.ExitStack]:
    """Facts of every model, in the order given; the first one's backend, open, and what closes it. UsageError for a model that cannot
    be asked what the tasks need."""
    scored = next((task_id for task_id, task in tasks.items() if getattr(task, "needs_likelihoods", False)), None)
    given = list(dict.fromkeys(spec.models))
    facts: dict[str, ModelFacts] = {}
    for name in reversed(given[1:]):
        with contextlib.closing(open_backend(name)) as backend:
            facts[name] = _facts(spec, name, backend, counter, scored)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.closing(open_backend(given[0])))
        facts[given[0]] = _facts(spec, given[0], first, counter, scored)
        first_open = stack.pop_all()
    by_name: dict[str, ModelFacts] = {}
    for name in given:
        by_name.setdefault(facts[name].name, facts[name])
    return list(by_name.values()), first, first_open


def _facts(spec: RunSpec, name: str, backend: Backend, counter: Tokenizer | None, scored: str | None) -> ModelFacts:
    """UsageError where samples of the lengths asked for could not be made with the tokenizer. scored: a task that scores given
    texts."""
    facts = model_facts(name, backend, counter)
    check_growth(facts.counter, max(spec.ctxs))
    if scored is not None:
        check_likelihoods(backend, scored)
    return facts


def check_likelihoods(backend: Backend, task_id: str) -> None:
    """UsageError where a short text cannot be scored. What may pass (a server that is busy) is no reason."""
    prompt = as_prompt(backend.tokenizer, "Which letter is first?")
    for _, outcome in backend.run([Request("loglikelihood", prompt, continuation=" A")]):
        if isinstance(outcome, Failure) and outcome.kind == "bad_request":
            raise UsageError(f"{task_id} scores a given text, which {backend.model} cannot: {outcome.message}")
