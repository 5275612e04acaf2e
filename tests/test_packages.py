"""Extras and plugins: the line that installs an extra is pyproject's, and a broken plugin is told and breaks nothing else."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from kleval import packages
from kleval.backends import registry as backends
from kleval.cli.main import call
from kleval.tasks import registry as tasks
from kleval.types import UsageError

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


@pytest.mark.parametrize("extra", ["data", "gpu", "hf", "lm-eval", "ray", "vllm"])
def test_what_a_line_installs_is_what_pyproject_says(extra: str) -> None:
    words = shlex.split(packages.install_line(extra))
    assert words[:2] == ["pip", "install"]
    wanted = [Requirement(text) for text in EXTRAS[extra]]
    here = [one for one in wanted if one.marker is None or one.marker.evaluate()]
    said = {(found.name, str(found.specifier), *found.extras) for found in map(Requirement, words[2:])}
    assert said == {(one.name, str(one.specifier), *one.extras) for one in here}


def test_a_checkout_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> list[str]:
        raise packages.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(packages.metadata, "requires", missing)
    assert packages.install_line("hf") == "pip install -e '.[hf]'"


def test_nothing_says_that_a_registry_has_kleval() -> None:
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "kleval").rglob("*.py")]
    wrong = [
        f"{file.name}: {line}"
        for file in files
        for line in file.read_text("utf-8").splitlines()
        if "pip install 'kleval[" in line
    ]
    assert [line for line in wrong if " @ git+" not in line] == []


def package(folder: Path, name: str, points: str, **modules: str) -> None:
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages as pip leaves them, which are seen here."""
    cached = (packages.plugins, tasks.all_tasks, backends.all_backends)
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for found in cached:
        found.cache_clear()
    yield folder
    for found in cached:
        found.cache_clear()


BROKEN = {
    "gone/module": ("no_such_module:Task", "ModuleNotFoundError: No module named 'no_such_module'"),
    "gone/name": ("there:Missing", "AttributeError"),
    "faulty/import": ("raises_here:Task", "ZeroDivisionError: division by zero"),
    "faulty/exit": ("exits_here:Task", "SystemExit: 3"),
    "faulty/signature": ("there:takes_nothing", "TypeError"),
    "faulty/what": ("there:makes_no_task", "makes no task: it has no id, version, metric, protocol, samples, step"),
}


def test_a_broken_task_is_listed_with_package_and_reason(plugins: Path, capsys: Capture) -> None:
    points = "".join(f"{name} = {target}\n" for name, (target, _) in BROKEN.items())
    package(
        plugins,
        "kleval-broken",
        f"[kleval.tasks]\n{points}ruler/vt = there:makes_no_task\n[kleval.backends]\nno-engine = no_such_module:open\n",
        there="def takes_nothing(): ...\ndef makes_no_task(edition, protocol, data_dir): return 3\n",
        raises_here="1 / 0\n",
        exits_here="raise SystemExit(3)\n",
    )
    assert call(["ls", "tasks", "--json"]) == 0
    listed = {row["id"]: row.get("broken") for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {name for name, reason in listed.items() if reason} == set(BROKEN)
    for name, (_, reason) in BROKEN.items():
        assert listed[name].startswith(f"{name} of package kleval-broken 1.0 cannot be used: ")
        assert reason in listed[name]
    assert call(["ls", "tasks"]) == 0
    table = capsys.readouterr().out
    assert all(f"{name} of package" in table for name in BROKEN)
    assert "ruler/niah_single_1 " in table
    assert call(["doctor", "--json", "--data-dir", "."]) == 0
    checks = {
        row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines()) if row["record"] == "check"
    }
    assert {checks[f"task {name}"]["state"] for name in BROKEN} == {"optional"}
    assert "No module named 'no_such_module'" in checks["backend no-engine"]["detail"]
    assert "not used: ruler/vt is kleval's own" in checks["task ruler/vt"]["detail"]
    assert call(["ls", "backends"]) == 0
    assert "no-engine of package kleval-broken 1.0 cannot be used" in " ".join(capsys.readouterr().out.split())
    assert call(["run", "--tasks", "ruler/niah_single_1,faulty/import", "--ctx", "512", "--dry-run"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("kleval: ")]
    assert "faulty/import of package kleval-broken 1.0 cannot be used: ZeroDivisionError" in line
    with pytest.raises(UsageError, match="no-engine of package kleval-broken"):
        backends.open_backend("any", "no-engine")


def test_a_list_of_plugins_that_cannot_be_read_hides_no_other(plugins: Path, capsys: Capture) -> None:
    package(plugins, "kleval-torn", "[kleval.tasks]\nwithout an equals sign\n")
    package(plugins, "kleval-echo", "[kleval.tasks]\necho/one = there:make\n")
    assert "echo/one" in tasks.all_tasks()
    assert packages.unreadable() == ["kleval-torn 1.0"]
    assert call(["doctor", "--data-dir", "."]) == 0
    assert "kleval-torn 1.0 brings nothing: its entry points cannot be read" in capsys.readouterr().out
