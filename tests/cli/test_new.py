"""`kleval new`: each example passes its own test, is short, and is what its entry point promises."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from kleval.backends.spec import BackendSpec
from kleval.cli import new
from kleval.cli.main import call
from kleval.tasks.registry import MEMBERS
from kleval.types import UsageError

NAMES = {kind: f"stranger_{kind}" for kind in new.WHAT}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("new")
    for kind, name in NAMES.items():
        new.write(kind, name, folder / name)
    return folder


def test_every_example_passes_its_own_test(written: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *NAMES.values()],
        cwd=written,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_every_example_is_as_kleval_writes(written: Path) -> None:
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent))
    if ruff is None:
        pytest.skip("ruff is not installed here")
    for words in (["check", "--select", "E,F,W,I,B,UP"], ["format", "--check"]):
        done = subprocess.run(
            [ruff, *words, "--isolated", "--line-length", "120", "."], cwd=written, capture_output=True
        )
        assert done.returncode == 0, done.stdout.decode()


def test_an_example_is_short_and_has_a_test_and_a_page(written: Path) -> None:
    for kind, name in NAMES.items():
        there = {path.name for path in (written / name).iterdir()}
        assert {f"{name}.py", f"test_{name}.py", "README.md"} <= there, kind
        lines = (written / name / f"{name}.py").read_text("utf-8").splitlines()
        assert sum(bool(line.strip()) for line in lines) <= 45, kind


def entry(written: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Any]:
    name = NAMES[kind]
    monkeypatch.syspath_prepend(str(written / name))
    project = tomllib.loads((written / name / "pyproject.toml").read_text("utf-8"))["project"]
    [(group, points)] = project["entry-points"].items()
    [(called, target)] = points.items()
    assert group == f"kleval.{kind}s"
    return called, metadata.EntryPoint(called, target, group).load()


def test_a_task_is_what_its_entry_point_is_called(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called, make = entry(written, "task", monkeypatch)
    task = make("builtin", None, None)
    assert [name for name in MEMBERS if not hasattr(task, name)] == []
    assert (task.id, task.edition) == (called, "builtin")
    for given, said in (("official", None, None), "no official edition"), (("builtin", "other", None), "no protocol"):
        with pytest.raises(UsageError, match=said):
            make(*given)


def test_a_backend_is_opened_with_its_own_settings(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called, opener = entry(written, "backend", monkeypatch)
    opened = opener(BackendSpec(model="any", engine_args={"max_ctx": "64"}))
    assert (opened.name, opened.model, opened.max_ctx) == (called, "any", 64)


def test_files_are_named_and_what_comes_next(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["new", "metric", "half_right"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [
        f"half_right/{name}" for name in ("half_right.py", "test_half_right.py", "README.md")
    ]
    assert "next: cd half_right && pytest" in said.err
    assert "./half_right.py:half_right" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["task", "Word-Count"], "write small letters, digits and _, like word_count"),
        (["task", "class"], "no name for a task"),
        (["figure", "json"], "a module json is installed here already"),
        (["backend", "taken_here"], "there already and not empty"),
        (["task", "ruler"], "kleval has a task ruler already"),
        (["backend", "native"], "kleval has a backend native already"),
        (["task", "none"], "the example uses the name none itself"),
        (["figure", "lengths"], "the example uses the name lengths itself"),
        (["backend", "failure"], "the example uses the name failure itself"),
        (["tasks", "x"], "did you mean 'task'?"),
    ],
)
def test_a_name_that_cannot_be_is_one_line(
    words: list[str], said: str, one_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken_here").mkdir()
    (tmp_path / "taken_here" / "__init__.py").write_text("mine")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    assert said in one_line(["new", *words])
    assert [path.name for path in tmp_path.iterdir()] == ["taken_here"]
