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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kleval.packages import need
from kleval.tasks import packaged
from kleval.tasks.data import MissingData
from kleval.tasks.datafile import one_line
from kleval.tasks.lm_eval import files, task_index
from kleval.tasks.registry import TASKS
from kleval.types import UsageError

FEWSHOT_SEED = 1234
TABLES = packaged.load("lm_eval/tables.toml")


def load(name: str, shots: int | None, data_dir: Path | None, fetched_by: str) -> tuple[Any, files.Found]:
    """The task of that name, an lm_eval.api.task.ConfigurableTask, and its data. shots: examples instead of the task's own number.

    UsageError: unknown, not for text, runs code, brings its own way of loading; MissingData: its files are not here.
    """
    entry = task_index.find(name)
    if entry.kind != "task":
        first = ", ".join(task_index.expand(task_index.PREFIX + name)[:3])
        raise UsageError(f"lm_eval/{name} is a {entry.kind} of tasks: name one of them ({first}, …)")
    need("lm_eval.tasks", "lm-eval", f"lm_eval/{name}")
    datasets = need("datasets", "lm-eval", f"lm_eval/{name}")
    _quiet()
    config = task_index.config(name)
    _refuse(name, config, shots)
    needed = needs(name, config)
    found = files.find(needed, data_dir, fetched_by)
    splits = {split: files.read(found, split) for split in found.splits}
    asked = config.get("num_fewshot") or 0 if shots is None else shots
    dataset = _complete(needed, splits, asked, found.folder, fetched_by)
    with tempfile.TemporaryDirectory(prefix="kleval-") as scratch, _apart():
        if "process_docs" in json.dumps(config, default=str):
            # From there `datasets` keeps what process_docs made of it: asked again (lm-eval asks for examples and documents) it gives
            # the same, also where process_docs shuffles, as GPQA's does.
            dataset.save_to_disk(scratch)
            dataset = datasets.load_from_disk(scratch)
        task = _build(name, dataset, **({} if shots is None else {"num_fewshot": shots}))
    if getattr(task, "MULTIMODAL", False):
        raise UsageError(f"lm_eval/{name} shows pictures or plays sounds, which no kleval backend takes")
    if task.config.num_fewshot is None:
        task.set_config("num_fewshot", 0)
    _draw(name, task)
    return task, found


def needs(name: str, config: Mapping[str, Any]) -> files.Needed:
    """What files a task reads. UsageError when its YAML does not say."""
    evaluated = config.get("test_split") or config.get("validation_split")
    path = config.get("dataset_path")
    if not path or not evaluated:
        raise UsageError(f"lm-eval's {name} names no data set: its data cannot be looked for")
    fewshot = config.get("fewshot_config") or {}
    named = (config.get("fewshot_split"), fewshot.get("split"))
    usual = (config.get("training_split"), config.get("validation_split"))
    drawn = next(filter(None, named if any(named) or fewshot.get("samples") else usual), None)
    others = dict.fromkeys(str(split) for split in (*named, *usual) if split and split != evaluated)
    return files.Needed(name, str(path), config.get("dataset_name"), str(evaluated), tuple(others), drawn)


def _refuse(name: str, config: Mapping[str, Any], shots: int | None) -> None:
    """UsageError for what cannot be asked through a kleval backend."""
    marks = [mark for mark in ("class", "custom_dataset", "unsafe_code") if config.get(mark)]
    for mark in (*marks, config.get("output_type")):
        if said := TABLES["refused"].get(mark):
            raise UsageError(f"lm-eval's {name} {said}: {_instead(name) or TABLES['instead'][mark]}")
    if shots and config.get("num_fewshot") == 0:
        raise UsageError(f"lm-eval's {name} takes no examples (num_fewshot is 0 in it): leave out :{shots}shot")


def _instead(name: str) -> str:
    """kleval's own task for one of lm-eval's; empty where there is none."""
    ours = f"ruler/{name.removeprefix('ruler_')}"
    if ours in TASKS:
        return f"use {ours}"
    ours = next((task for prefix, task in TABLES["ours"].items() if name.startswith(prefix)), "")
    return ours and f"use {ours}, which runs it in a sandbox"


def _complete(needed: files.Needed, splits: dict[str, Any], asked: int, folder: Path, fetched_by: str) -> Any:
    """All splits that lm-eval will look at: those that none of the `asked` examples is drawn from may be missing and are empty."""
    import datasets

    for split in needed.others:
        if split not in splits:
            if asked and split == needed.drawn:
                raise MissingData(
                    f"lm_eval/{needed.task} draws its {asked} examples from the {split} split of {needed.path}, which is not in"
                    f" {folder}: `kleval data fetch {fetched_by}` gets it, lm_eval/{needed.task}:0shot does without",
                    fetched_by,
                )
            splits[split] = splits[needed.evaluated].select([])
    return datasets.DatasetDict(splits)


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


def _build(name: str, dataset: Any, **overrides: Any) -> Any:
    """lm-eval's task on a dataset. overrides: settings in place of its own."""
    _forget_modules()
    handed = {"dataset_kwargs": None, "custom_dataset": lambda **metadata: dataset}
    # A group of this one task is how TaskManager takes settings over those of a YAML file.
    group = {"group": "kleval", "task": [{"task": name, **overrides, **handed}]}
    try:
        return task_index.manager(name).load(group)["tasks"][name]
    except (UsageError, MemoryError):
        raise
    except ImportError as error:
        raise UsageError(_needs_package(name, error)) from error
    except ConnectionError as error:
        why = f"wants to download something, which kleval does not let it: {one_line(error)}"
        raise UsageError(f"lm-eval's {name} {why}") from error
    except Exception as error:
        why = f"the data given are not what it expects: {type(error).__name__}: {one_line(error)}"
        raise UsageError(f"lm-eval's {name} cannot be loaded, {why}") from error


def _forget_modules() -> None:
    """Have lm-eval read the Python files of its tasks afresh: some keep a random generator (GPQA with examples), whose state would
    make a task depend on which were loaded before."""
    for name, module in [*sys.modules.items()]:
        if name.startswith("lm_eval.tasks.") and hasattr(module, "__mtime__"):
            del sys.modules[name]


def _needs_package(name: str, error: ImportError) -> str:
    package = (error.name or getattr(error.__cause__, "name", None) or "").partition(".")[0]
    if not package:
        return f"lm-eval's {name} cannot be loaded: {one_line(error)}"
    extra = TABLES["extras"].get(package)
    wanted = f"'lm-eval[{extra}]'" if extra else package
    return f"lm-eval's {name} needs {package}: pip install {wanted}"


def _quiet() -> None:
    """lm-eval says much at load that kleval says in the card, or that is meant for who writes tasks."""
    logger = logging.getLogger("lm_eval")
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.ERROR)


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """While it lasts nothing asks the hub (what would, fails), `datasets` shows no progress bars, and random generators are seeded as
    simple_evaluate seeds them. Models may come from the hub meanwhile: nothing is left set."""
    import datasets.config
    import huggingface_hub.constants as hub
    import numpy

    places = [(hub, "HF_HUB_OFFLINE"), (datasets.config, "HF_HUB_OFFLINE"), (datasets.config, "HF_DATASETS_OFFLINE")]
    before = [(where, name, getattr(where, name)) for where, name in places if hasattr(where, name)]
    hidden, python, numbers = datasets.are_progress_bars_disabled(), random.getstate(), numpy.random.get_state()
    try:
        datasets.disable_progress_bars()
        for where, name, _ in before:
            setattr(where, name, True)
        random.seed(0)
        numpy.random.seed(1234)
        yield
    finally:
        random.setstate(python)
        numpy.random.set_state(numbers)
        for where, name, value in before:
            setattr(where, name, value)
        if not hidden:
            datasets.enable_progress_bars()
