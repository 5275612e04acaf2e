"""`kleval doctor` is green where everything required is there, and says what is broken where it is not."""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from kleval.cli import doctor
from kleval.cli.main import call
from kleval.models.registry import MODELS

Capture = pytest.CaptureFixture[str]


def checks(capsys: Capture) -> dict[str, str]:
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return {record["name"]: record["state"] for record in records if record["record"] == "check"}


def test_everything_required_is_checked(capsys: Capture) -> None:
    call(["doctor", "--json", "--data-dir", "."])
    found = checks(capsys)
    assert {"python", "packages", "torch", "cpu", "memory", "disk", "gpu", "weights", "extra hf", "data ruler"} <= set(
        found
    )
    assert found["data ruler"] == "optional"


def test_what_is_broken_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    def broken() -> Iterator[doctor.Check]:
        raise ImportError("no\nluck")
        yield

    monkeypatch.setattr(doctor, "_torch", broken)
    assert call(["doctor", "--data-dir", "."]) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "ImportError" in line]
    assert line.startswith("BROKEN")
    assert "no luck" in line


def test_only_what_is_required_can_break_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_weights", lambda: iter([doctor.Check("weights", "ok", "")]))
    assert call(["doctor", "--data-dir", "."]) == 0


def test_weights_are_compared_with_their_sums(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    sums = tmp_path / "sums"
    sums.write_text(f"{digest}  a\n{digest}  b\n")
    assert doctor.damaged(tmp_path, sums) == ["b"]
    (tmp_path / "a").write_text("other")
    assert doctor.damaged(tmp_path, sums) == ["a", "b"]


def test_the_sums_are_those_of_what_ships() -> None:
    """New weights: make kleval/cli/nano.sha256 again, as kleval/cli/doctor.py says."""
    shipped = {spec.path for spec in MODELS.values() if spec.path is not None}
    named = {line.split()[1] for line in doctor.WEIGHTS_SUMS.read_text("utf-8").splitlines()}
    assert {f"{path.name}/model.safetensors" for path in shipped} == {n for n in named if n.endswith(".safetensors")}
    assert [doctor.damaged(path.parent, doctor.WEIGHTS_SUMS) for path in shipped] == [[] for _ in shipped]


def test_required_packages_are_those_of_the_project() -> None:
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.match(r"[\w.-]+", text)[0].replace("-", "_") for text in project["dependencies"]}  # type: ignore[index]
    modules = {"antlr4_python3_runtime": "antlr4", "pyyaml": "yaml"}
    assert {modules.get(name, name) for name in names} - {"click", "torch"} == set(doctor.REQUIRED)
