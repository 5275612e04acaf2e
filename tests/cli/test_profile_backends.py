"""`kleval profile --backend`: a plugin of the documentation's, hf, native; what cannot be timed is told in one line."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from kleval.backends import registry
from kleval.backends.spec import BackendSpec
from kleval.cli.main import call
from kleval.store import RunStore

PAGE = Path(__file__).resolve().parents[2] / "docs" / "custom_backend.md"


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The backend of the documentation's page, registered as an entry point would be."""
    found = re.search(r"<!-- snippet: timed -->\n```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None
    assert len([line for line in found[1].splitlines() if line.strip()]) <= 45
    module = ModuleType("steady_backend")
    exec(found[1], module.__dict__)  # noqa: S102 - it is our own text
    monkeypatch.setitem(sys.modules, "steady_backend", module)
    known = {**registry.all_backends(), "steady": "steady_backend:open_steady", "mute": "steady_backend:open_mute"}
    monkeypatch.setattr(registry, "all_backends", lambda: known)
    module.open_mute = lambda spec: type("Mute", (), {"close": lambda self: None, "model": "mute"})()  # type: ignore[attr-defined]
    return module


STEADY = [
    "profile",
    "--backend",
    "steady",
    "--model",
    "any",
    "--ctx",
    "64,128",
    "--decode-tokens",
    "5",
    "--repeats",
    "2",
]


@pytest.mark.usefixtures("plugin")
def test_a_plugin_is_profiled_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    words = [*STEADY, "--concurrency", "1,2", "--engine-arg", "seconds_per_token=0.002", "--out", "here"]
    assert call(words) == 0
    said = capsys.readouterr()
    assert "steady at --backend steady in this process" in said.err
    rows = list(csv.DictReader(Path("here/profile.csv").read_text("utf-8").splitlines()))
    assert [(r["protocol"], r["ctx"], float(r["output_tokens"])) for r in rows] == [
        ("concurrency-1", "64", 5),
        ("concurrency-1", "128", 5),
        ("concurrency-2", "64", 10),
        ("concurrency-2", "128", 10),
    ]
    points = list(RunStore.open(Path("here")).points())
    assert {p.values["kv_bytes"] / p.ctx for p in points} == {64}
    assert all(p.values["tpot_ms"] >= 2 for p in points)
    assert points[0].settings["seconds_per_token"] == 0.002
    assert Path("here/report.html").is_file()
    assert call(words) == 0
    assert list(RunStore.open(Path("here")).points()) == points


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--backend mute --model any", "--backend mute cannot be timed: it has no method `timed(requests)`"),
        ("--backend stedy --model any", "unknown backend 'stedy': did you mean steady?"),
        ("--backend steady --model any --engine-arg speed=1", "has no such argument, it takes seconds_per_token"),
        ("--backend steady --model any --engine-arg seconds_per_token=x", "'x' is no value for it"),
        ("--backend steady --model any --prefill full", "--prefill is not for --backend steady"),
        ("--backend hf --model any --base-url http://127.0.0.1:9/v1", "--base-url is not for --backend hf"),
        ("--backend hf --model kimi-linear", "--backend native runs it"),
        ("--backend native --concurrency 2 --model kimi-linear --batch 2", "--batch is not for --backend native"),
    ],
)
def test_what_cannot_be_timed_is_one_line(one_line: Callable[..., str], words: str, said: str) -> None:
    assert said in one_line(["profile", *words.split()])
    assert not Path("runs").exists()


def test_backends_say_whether_they_can_be_timed(plugin: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def open_told(spec: BackendSpec) -> None:
        raise AssertionError

    open_told.__annotations__ = {"return": plugin.Steady}
    plugin.open_mute = open_told  # type: ignore[attr-defined]
    assert call(["ls", "backends", "--json"]) == 0
    found = {r["backend"]: r["timed"] for r in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found == {**dict.fromkeys(("native", "hf", "vllm", "openai", "mute"), "yes"), "steady": "not told"}


def test_native_requests_are_timed_where_a_concurrency_is_asked_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["profile", "--backend", "native", "--model", "kimi-linear", "--concurrency", "1,2", "--ctx", "64,"]
    assert call([*words, "--decode-tokens", "4", "--repeats", "1", "--out", "here"]) == 0, capsys.readouterr().err
    points = list(RunStore.open(Path("here")).points())
    assert [(p.kind, p.batch, p.values["output_tokens"]) for p in points] == [("served", 1, 4), ("served", 2, 8)]
    for point in points:
        parts = [point.values[f"{name}_bytes"] for name in ("latent", "recurrent", "conv")]
        assert sum(parts) == point.values["state_bytes"] > 0
    assert points[0].environment["kernels"]
    assert "cached_tokens" in points[0].values
