"""kleval from Python, and tasks and backends of other packages."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kleval
from kleval.store import RunStore
from kleval.types import Completion, Failure, Outcome, Request, UsageError

DOCS = Path(__file__).parent.parent / "docs"


def snippet(page: str) -> str:
    found = re.search(r"<!-- snippet: \w+ -->\n```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def names(page: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "snippet"}
    exec(snippet(page), space)  # noqa: S102 - it is our own text
    return space


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs go that are given no place."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def number() -> Any:
    return names("custom_task.md")["Number"]("builtin", None, None)


@pytest.fixture
def last_word() -> Any:
    return names("custom_backend.md")["LastWord"]()


def test_objects_of_ones_own_are_evaluated(number: Any, last_word: Any, tmp_path: Path) -> None:
    found = kleval.evaluate(last_word, tasks=number, ctx=[32, 64], limit=3, out=tmp_path / "run")
    assert found.result.status == "complete"
    assert [row.score for row in found.rows] == [1.0] * 6
    (at_32, at_64) = [s for s in found.scores if s["task"] == "echo/number"]
    assert (at_32["ctx"], at_64["ctx"], at_64["value"], at_64["n"]) == (32, 64, 100.0, 3)


def test_a_lent_backend_stays_open(number: Any, last_word: Any) -> None:
    closed = []
    last_word.close = lambda: closed.append(1)
    kleval.evaluate(last_word, tasks=number, ctx=64, limit=1)
    assert closed == []


def test_the_same_call_continues(number: Any, last_word: Any, tmp_path: Path) -> None:
    kleval.evaluate(last_word, tasks=number, ctx=64, limit=2, out=tmp_path / "run")
    before = [row.finished for row in RunStore.open(tmp_path / "run").rows()]
    again = kleval.evaluate(last_word, tasks=number, ctx=64, limit=2, out=tmp_path / "run")
    assert [row.finished for row in again.rows] == before


def test_a_failure_is_in_the_rows_and_no_exception(number: Any, last_word: Any) -> None:
    class Failing(type(last_word)):  # type: ignore[misc]
        def run(self, requests: list[Request]) -> Iterator[tuple[int, Outcome]]:
            for i, _ in enumerate(requests):
                yield i, Failure("server", "down") if i == 0 else Completion("7", 1, 1)

    found = kleval.evaluate(Failing(), tasks=number, ctx=64, limit=2)
    assert (found.result.exit_code, found.result.counts["failed"]) == (3, 1)
    assert sorted(str(row.score) for row in found.rows) == ["0.0", "None"]


def test_the_judge_is_an_object_too(last_word: Any) -> None:
    class Judge(type(last_word)):  # type: ignore[misc]
        model = "judge"

        def run(self, requests: list[Request]) -> Iterator[tuple[int, Outcome]]:
            for i, request in enumerate(requests):
                assert request.kind == "judge"
                yield i, Completion("Decision: TRUE", 1, 1)

    found = kleval.evaluate(last_word, tasks="frames/oracle", ctx=1024, limit=1, protocol="judge", judge=Judge())
    assert [row.score for row in found.rows] == [1.0]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"tasks": "ruler", "suite": "long"}, "tasks or a suite"),
        ({"suite": "lnog"}, "did you mean long"),
        ({"tasks": "rular"}, "ruler"),
        ({"tasks": "ruler/vt", "dtype": "float31"}, "float31"),
        ({"tasks": "ruler/vt", "ctx": 0}, "at least 1 token"),
        ({"tasks": "ruler/vt", "ctx": 1024.0}, "at least 1 token"),
        ({"tasks": "ruler/vt", "ctx": "4q"}, "not a length"),
        ({"tasks": "ruler/vt", "limit": 1.5}, "limit"),
        ({"tasks": "ruler/vt", "temperature": float("nan")}, "temperature"),
        ({"tasks": "ruler/vt", "top_p": 0}, "top_p"),
        ({"tasks": "ruler/vt", "max_errors": float("nan")}, "max-errors"),
        ({"tasks": [3]}, "no task"),
        ({"tasks": "ruler/vt", "judge": 3}, "no model"),
        ({"suite": "long-official", "edition": "builtin"}, "official edition"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_leaves_nothing(settings: dict[str, Any], said: str, scratch: Path) -> None:
    with pytest.raises(UsageError, match=said) as error:
        kleval.evaluate("kimi-linear", **settings)
    assert "\n" not in str(error.value)
    assert list(scratch.iterdir()) == []


def test_an_argument_that_there_is_not_is_python_s_own_error() -> None:
    with pytest.raises(TypeError, match="limits"):
        kleval.evaluate("kimi-linear", limits=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("call", [kleval.evaluate, kleval.profile, kleval.load_backend])
def test_every_argument_is_typed_and_explained_and_has_the_command_s_default(call: Any) -> None:
    from dataclasses import MISSING, fields

    from kleval.backends.spec import BackendSpec
    from kleval.harness import RunSpec
    from kleval.profiler.workload import ProfileSpec

    specs = (ProfileSpec, BackendSpec) if call is kleval.profile else (RunSpec, BackendSpec)
    known = {f.name: f.default for spec in reversed(specs) for f in fields(spec) if f.default is not MISSING}
    optional = {"limit", "edition", "batch", *(["concurrency"] if call is kleval.profile else [])}
    for name, parameter in inspect.signature(call).parameters.items():
        assert parameter.kind is not parameter.VAR_KEYWORD
        assert parameter.annotation not in (parameter.empty, "Any")
        assert re.search(rf"\b{name}\b", call.__doc__), name
        if name in known and parameter.default is not None and name not in optional:
            assert parameter.default == known[name], name


def test_two_models_of_one_name_are_refused(number: Any, last_word: Any) -> None:
    with pytest.raises(UsageError, match="two models are called 'last-word'"):
        kleval.evaluate([last_word, names("custom_backend.md")["LastWord"]()], tasks=number, ctx=64)


def test_lengths_and_folders_may_be_texts(number: Any, last_word: Any, tmp_path: Path) -> None:
    found = kleval.evaluate(
        last_word, tasks={number}, ctx="64,1k", limit=1, sample_cache=str(tmp_path / "cache"), data_dir=str(tmp_path)
    )
    assert [row.ctx for row in found.rows] == [64, 1024]


def test_importing_kleval_imports_nothing_heavy() -> None:
    code = "import sys, kleval; print(any(m in sys.modules for m in ('torch', 'numpy', 'click')))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"devices": ["cpu", "cpu"], "base_url": "http://localhost:1/v1"}, "--devices is for profiles of kleval's own"),
        ({"executor": "ray", "backend": "hf"}, "--executor is for profiles of kleval's own"),
        ({"devices": ["cpu"], "device": "cpu"}, "--device is of one process"),
        ({"gpus_per_model": 1.0}, "--gpus-per-model is for --executor ray"),
    ],
)
def test_devices_of_a_profile_are_refused_as_on_the_command_line(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        kleval.profile("kimi-linear", **asked)


def test_an_installed_package_brings_a_task_and_a_backend(tmp_path: Path) -> None:
    """As a user has it: a wheel, pip install, and the names on the command line."""
    wheel, info = tmp_path / "kleval_echo-1.0-py3-none-any.whl", "kleval_echo-1.0.dist-info"
    files = {
        "my_tasks.py": snippet("custom_task.md"),
        "my_backend.py": snippet("custom_backend.md"),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: kleval-echo\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[kleval.tasks]\necho/number = my_tasks:Number\n"
        "[kleval.backends]\nlast-word = my_backend:open_last_word\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(name, text)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    env = {**os.environ, "PYTHONPATH": str(site)}
    kleval_cli = [sys.executable, "-c", "from kleval.cli.main import main; main()"]
    asked = ["run", "--model", "any", "--backend", "last-word", "--tasks", "echo", "--ctx", "64", "--limit", "2"]
    done = subprocess.run(
        [*kleval_cli, *asked, "--out", str(tmp_path / "run"), "--quiet"], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [row.score for row in RunStore.open(tmp_path / "run").rows()] == [1.0, 1.0]
