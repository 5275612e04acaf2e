"""A task object of lm-eval, made by its own TaskManager, on data that lie here.

The data are handed in as `custom_dataset`, lm-eval's own hook, so that its pipeline (process_docs, templates, filters,
metrics) runs as it is and nothing asks the hub. Its random generators are seeded as `simple_evaluate` seeds them (0, 1234,
1234 for the examples), which is what its tasks that shuffle depend on; the process's own generators are put back.
"""

from __future__ import annotations

import contextlib
import json
import logging
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kleval.packages import install_line
from kleval.tasks.data import MissingData
from kleval.tasks.lm_eval import files, task_index
from kleval.tasks.registry import TASKS
from kleval.types import UsageError

FEWSHOT_SEED = 1234
_EXTRAS = {
    "sympy": "math",
    "math_verify": "math",
    "antlr4": "math",
    "langdetect": "ifeval",
    "immutabledict": "ifeval",
    "jieba": "zhx",
}
_CODE_TASKS = {
    "humaneval": "code/humaneval_plus",
    "mbpp": "code/mbpp_plus",
    "cruxeval_input": "code/cruxeval_input_cot",
    "cruxeval_output": "code/cruxeval_output_cot",
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """task: lm_eval.api.task.ConfigurableTask. revision, digest: of the data."""

    task: Any
    revision: str
    digest: str


def load(name: str, shots: int | None, data_dir: Path | None, fetched_by: str) -> Loaded:
    """The task of that name. shots: examples instead of the task's own number.

    UsageError: unknown, not for text, runs code, brings its own way of loading; MissingData: its files are not here.
    """
    entry = task_index.find(name)
    if entry.kind != "task":
        first = ", ".join(task_index.expand(task_index.PREFIX + name)[:3])
        raise UsageError(f"lm_eval/{name} is a {entry.kind} of tasks: name one of them ({first}, …)")
    assert entry.file is not None
    _check_extras(name)
    _quiet()
    config = raw_config(name)
    _refuse(name, config, shots)
    needed = needs(name, config)
    found = files.find(needed, data_dir, fetched_by)
    splits = {split: files.read(found, split) for split in found.splits}
    dataset = _complete(name, config, needed, splits, shots, found.folder, fetched_by)
    overrides: dict[str, Any] = {"dataset_kwargs": None}
    if shots is not None:
        overrides["num_fewshot"] = shots
    with tempfile.TemporaryDirectory(prefix="kleval-") as scratch, _no_bars():
        if "process_docs" in json.dumps(config, default=str):
            dataset = _on_disk(dataset, Path(scratch))
        task = _build(name, entry.file.parent, {**overrides, "custom_dataset": _handing(dataset)})
    if getattr(task, "MULTIMODAL", False):
        raise UsageError(f"lm_eval/{name} shows pictures or plays sounds, which no kleval backend takes")
    if task.config.num_fewshot is None:
        task.set_config("num_fewshot", 0)
    _draw(name, task)
    task.set_fewshot_seed(FEWSHOT_SEED)
    return Loaded(task, found.revision, found.digest)


def raw_config(name: str) -> dict[str, Any]:
    """The task's YAML with everything it includes; functions as text. UsageError for an unknown name or a group."""
    entry = task_index.find(name)
    assert entry.file is not None
    found = _manager(entry.file.parent).task_index[name].cfg
    return dict(found or {})


def needs(name: str, config: Mapping[str, Any]) -> files.Needed:
    """What files a task reads. UsageError when its YAML does not say."""
    evaluated = config.get("test_split") or config.get("validation_split")
    path = config.get("dataset_path")
    if not path or not evaluated:
        raise UsageError(f"lm-eval's {name} names no data set: its data cannot be looked for")
    fewshot = config.get("fewshot_config") or {}
    others = (
        config.get("fewshot_split"),
        fewshot.get("split"),
        config.get("training_split"),
        config.get("validation_split"),
    )
    return files.Needed(
        name,
        str(path),
        config.get("dataset_name"),
        str(evaluated),
        tuple(dict.fromkeys(str(s) for s in others if s and s != evaluated)),
    )


def _refuse(name: str, config: Mapping[str, Any], shots: int | None) -> None:
    """UsageError for what cannot be asked through a kleval backend."""
    if "class" in config:
        raise UsageError(
            f"lm-eval's {name} is a Python class that loads its own data: run it with lm-eval, on a kleval backend through"
            " kleval.tasks.lm_eval.bridge.KlevalLM"
        )
    if config.get("custom_dataset"):
        own = f"ruler/{name.removeprefix('ruler_')}"
        hint = f"use {own}" if own in TASKS else "run it with lm-eval"
        raise UsageError(f"lm-eval's {name} makes its own data, with what it loads from elsewhere: {hint}")
    if config.get("unsafe_code"):
        ours = next((task for prefix, task in _CODE_TASKS.items() if name.startswith(prefix)), None)
        hint = f"use {ours}, which runs it in a sandbox" if ours else "kleval has no task for it"
        raise UsageError(f"lm-eval's {name} runs the code that the model writes in this process: {hint}")
    if config.get("output_type") == "loglikelihood_rolling":
        raise UsageError(
            f"lm-eval's {name} is a perplexity over whole documents, which has no score per sample: run it with lm-eval, on a"
            " kleval backend through kleval.tasks.lm_eval.bridge.KlevalLM"
        )
    if shots and config.get("num_fewshot") == 0:
        raise UsageError(f"lm-eval's {name} takes no examples (num_fewshot is 0 in it): leave out :{shots}shot")


def _complete(
    name: str,
    config: Mapping[str, Any],
    needed: files.Needed,
    splits: dict[str, Any],
    shots: int | None,
    folder: Path,
    fetched_by: str,
) -> Any:
    """All splits that lm-eval will look at: those that no example is drawn from may be missing and are empty."""
    import datasets

    fewshot = config.get("fewshot_config") or {}
    drawn = config.get("fewshot_split") or fewshot.get("split")
    if drawn is None and not fewshot.get("samples"):
        drawn = config.get("training_split") or config.get("validation_split")
    asked = config.get("num_fewshot") or 0 if shots is None else shots
    for split in needed.others:
        if split not in splits:
            if asked and split == drawn:
                raise MissingData(
                    f"lm_eval/{name} draws its {asked} examples from the {split} split of {needed.path}, which is not in"
                    f" {folder}: `kleval data fetch {fetched_by}` gets it, lm_eval/{name}:0shot does without",
                    fetched_by,
                )
            splits[split] = splits[needed.evaluated].select([])
    return datasets.DatasetDict(splits)


def _on_disk(dataset: Any, folder: Path) -> Any:
    """The same, where `datasets` keeps what process_docs made of it: asked again (lm-eval asks for examples and documents) it
    gives the same, also where process_docs shuffles, as GPQA's does."""
    import datasets

    dataset.save_to_disk(str(folder))
    return datasets.load_from_disk(str(folder))


def _draw(name: str, task: Any) -> None:
    """Draw the examples of the first document, once. UsageError when there are too few."""
    asked = int(task.config.num_fewshot)
    if not asked or not len(task.task_docs):
        return
    task.set_fewshot_seed(FEWSHOT_SEED)
    doc = task.task_docs[0] if task.fewshot_cfg.split == task.config.test_split else None
    try:
        task.sampler.sample(asked, eval_doc=doc)
    except (ValueError, AssertionError) as error:
        pool = len(task.sampler.fewshot_docs()) - (doc is not None)
        raise UsageError(
            f"lm-eval's {name} has {max(pool, 0):,} examples to draw from, not {asked:,}: write lm_eval/{name}:Nshot with fewer"
        ) from error


def _handing(dataset: Any) -> Callable[..., Any]:
    def custom_dataset(**metadata: Any) -> Any:
        return dataset

    return custom_dataset


def _build(name: str, folder: Path, overrides: Mapping[str, Any]) -> Any:
    _forget_modules()
    # A group of this one task is how TaskManager takes settings over those of a YAML file.
    group = {"group": "kleval", "task": [{"task": name, **overrides}]}
    try:
        with _seeded(), offline():
            return _manager(folder).load(group)["tasks"][name]
    except (UsageError, MemoryError):
        raise
    except ImportError as error:
        raise UsageError(_needs_package(name, error)) from error
    except ConnectionError as error:
        raise UsageError(
            f"lm-eval's {name} wants to download something, which kleval does not let it: {_line(error)}"
        ) from error
    except Exception as error:
        said = f"{type(error).__name__}: {_line(error)}"
        raise UsageError(
            f"lm-eval's {name} cannot be loaded, the data given are not what it expects: {said}"
        ) from error


def _forget_modules() -> None:
    """Have lm-eval read the Python files of its tasks afresh: some keep a random generator (GPQA with examples), whose state would
    make a task depend on which were loaded before."""
    for module in [
        name for name, m in sys.modules.items() if name.startswith("lm_eval.tasks.") and hasattr(m, "__mtime__")
    ]:
        del sys.modules[module]


def _needs_package(name: str, error: ImportError) -> str:
    missing = error.name or getattr(error.__cause__, "name", None) or ""
    package = missing.partition(".")[0]
    if package == "datasets":
        return f"tasks named lm_eval/… need {package}: {install_line('lm-eval')}"
    line = f"pip install 'lm-eval[{_EXTRAS[package]}]'" if package in _EXTRAS else f"pip install {package}"
    return (
        f"lm-eval's {name} needs {package}: {line}" if package else f"lm-eval's {name} cannot be loaded: {_line(error)}"
    )


def _check_extras(name: str) -> None:
    task_index.version()
    try:
        import lm_eval.tasks  # noqa: F401
    except ImportError as error:
        raise UsageError(_needs_package(name, error)) from error


@lru_cache(maxsize=64)
def _manager(folder: Path) -> Any:
    """TaskManager over one folder of lm-eval's tasks."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(folder), include_defaults=False)


def _quiet() -> None:
    """lm-eval says much at load that kleval says in the card, or that is meant for who writes tasks."""
    logger = logging.getLogger("lm_eval")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """While it lasts nothing asks the hub: what would, fails. Models may come from there meanwhile: nothing is left set."""
    import datasets.config
    import huggingface_hub.constants as hub

    places = [(hub, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE"), (datasets.config, "HF_DATASETS_OFFLINE")]
    before = [(where, name, getattr(where, name)) for where, name in places if hasattr(where, name)]
    try:
        for where, name, _ in before:
            setattr(where, name, True)
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """No progress bars of `datasets` for the moments that this takes."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Random generators as simple_evaluate seeds them before it loads tasks."""
    import numpy

    python, numbers = random.getstate(), numpy.random.get_state()
    try:
        random.seed(0)
        numpy.random.seed(1234)
        yield
    finally:
        random.setstate(python)
        numpy.random.set_state(numbers)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
