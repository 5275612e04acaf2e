"""The examples of CONTRIBUTING.md and of the pages on own tasks and backends work as they stand, and are as short as they promise."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kleval.backends.spec import BackendSpec
from kleval.harness import RunSpec, run
from kleval.store import RunStore
from kleval.tasks.cards import NEEDS
from kleval.types import Backend, Completion, ContextTooSmall, Score, Task, TaskOptions

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "CONTRIBUTING.md", ROOT / "docs" / "custom_task.md", ROOT / "docs" / "custom_backend.md")
TEXT = "\n".join(page.read_text("utf-8") for page in PAGES)
SNIPPETS = dict(re.findall(r"<!-- snippet: (\w+) -->\n```python\n(.*?)```", TEXT, re.DOTALL))


def example(name: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": name}
    exec(SNIPPETS[name], space)  # noqa: S102 - it is our own text
    return space


def test_what_is_read_of_a_task_is_in_one_of_its_protocols() -> None:
    """Every literal `getattr(task, "…")` of kleval, and nothing that is not read; lm-eval's own tasks aside."""
    looked = re.compile(r'(?:getattr|hasattr)\((?:self\.)?_?tasks?(?:\[[^\]]*\])?, "([a-z]\w*)"')
    files = [path for path in (ROOT / "kleval").rglob("*.py") if "lm_eval" not in path.parts]
    read = {name for path in files for name in looked.findall(path.read_text("utf-8"))} | set(NEEDS.values())
    options = {name for name in vars(TaskOptions) if not name.startswith("_")} | set(TaskOptions.__annotations__)
    assert read - set(Task.__annotations__) - set(vars(Task)) == options


@pytest.mark.parametrize("name", ["task", "backend", "operator"])
def test_an_example_is_short(name: str) -> None:
    assert len([line for line in SNIPPETS[name].splitlines() if line.strip()]) < 20


def test_the_task_and_the_backend_run_together(tmp_path: Path) -> None:
    make: Callable[..., Task] = example("task")["Number"]
    backend: Callable[..., Backend] = example("backend")["open_last_word"]
    spec = RunSpec(models=("last-word",), tasks=("echo/number",), ctxs=(64,), limit=3, out=tmp_path / "run")
    result = run(spec, lambda name: backend(BackendSpec(model=name)), lambda name: make("builtin", None, None))
    assert result.status == "complete"
    assert [row.score for row in RunStore.open(tmp_path / "run").rows()] == [1.0, 1.0, 1.0]


def test_the_task_scores_a_wrong_answer_and_says_when_it_does_not_fit() -> None:
    task, tokenizer = example("task")["Number"]("builtin", None, None), example("backend")["LastWord"].tokenizer
    (sample,) = task.samples(tokenizer, 64, 1, 7)
    assert task.step(sample, [Completion("8", 1, 1)]) == Score({"exact": 0.0})
    with pytest.raises(ContextTooSmall):
        next(task.samples(tokenizer, 8, 1, 7))


def test_the_operators_fast_path_is_its_reference() -> None:
    torch = pytest.importorskip("torch")
    space = example("operator")
    x = torch.randn(2, 9, 3, dtype=torch.float64)
    torch.testing.assert_close(space["parallel_mean"](x), space["recurrent_mean"](x))
