"""Configuration files, the variables that name no option, completion, and errors as JSON lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest

import kleval
from kleval.cli import complete, config
from kleval.cli.main import call, cli
from kleval.cli.run import run

Capture = pytest.CaptureFixture[str]


def values(text: str, name: str = "c.yaml") -> dict[str, object]:
    Path(name).write_text(text)
    return config.defaults(config.read(Path(name), run), config.options_of(run), Path(name))


def test_options_are_read_by_their_names() -> None:
    text = "ctx: [512, 1k]\nadd-bos: no\nsample_cache: off\nengine-arg: {prefill_tokens: 256}\nlimit: 3\namend: true\nseed:\n"
    assert values(text) == {
        "ctx": "512,1k", "add_bos": "no", "sample_cache": "off", "engine_args": ["prefill_tokens=256"], "limit": "3", "amend": True,
    }  # fmt: skip
    assert values('{"model": "mla"}', "c.json") == {"model": "mla"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("modle: x", "no option 'modle': did you mean model?"),
        ("- a", "write options by name"),
        ("{", "is no YAML"),
        ("limit: {a: 1}", "limit is a text, a number or a list"),
        ("limit: some", "Invalid value for '--limit'"),
        ("share-prefixes: maybe", "is true or false"),
        ("suite: long\ntasks: ruler", "give --suite or --tasks, not both"),
        ("config: other.yaml", "no option 'config'"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_line(text: str, said: str, one_line: Callable[..., str]) -> None:
    Path("c.yaml").write_text(text)
    assert said in one_line(["run", "--config", "c.yaml"])


def test_a_file_that_is_not_there_is_one_line(one_line: Callable[..., str]) -> None:
    assert "No such file" in one_line(["run", "--config", "none.yaml"])


def test_a_runs_own_record_is_a_configuration(capsys: Capture) -> None:
    spec = {
        "models": ["mla"], "tasks": ["ruler/vt"], "suite": None, "ctxs": [512], "limit": 3, "seed": 7, "ctxs_given": True,
        "options": {"engine_args": {"prefill_tokens": "256"}, "out": "a", "request_fields": {"token": "***"}},
    }  # fmt: skip
    found = values(json.dumps({"kind": "run", "spec": spec}), "run.json")
    assert found == {
        "model": "mla",
        "tasks": "ruler/vt",
        "ctx": "512",
        "limit": "3",
        "seed": "7",
        "engine_args": ["prefill_tokens=256"],
    }
    assert "does not hold the secrets of --request-fields" in capsys.readouterr().err


def test_a_run_of_before_is_read_from_its_command() -> None:
    spec = {"models": ["mla"], "command": "kleval run --model mla --concurrency 4 --no-share-prefixes --out a"}
    found = values(json.dumps({"kind": "run", "spec": spec}), "run.json")
    assert found == {"model": "mla", "concurrency": "4", "share_prefixes": False}


def test_variables_that_mean_nothing_are_told() -> None:
    assert config.unknown_variables(["KLEVAL_CTXX", "KLEVAL_CTX", "PATH"], cli) == [
        "note: KLEVAL_CTXX is no variable of kleval: did you mean KLEVAL_CTX?"
    ]
    package = Path(kleval.__file__).parent
    used = {
        n for f in package.rglob("*.py") for n in re.findall(r"environ[^\n]*\"(KLEVAL_[A-Z_]+)\"", f.read_text("utf-8"))
    }
    assert config.unknown_variables(sorted(used), cli) == []


def completed(how: complete.Complete, text: str) -> list[str]:
    return [item.value for item in how(click.Context(run), run.params[0], text)]


def test_names_are_completed_in_lists_too() -> None:
    assert completed(complete.suites, "lo") == ["long", "long-official", "long-more"]
    assert completed(complete.backends, "na") == ["native"]
    assert completed(complete.tasks, "ruler,-ruler/c") == ["ruler,-ruler/cwe"]
    assert "mla,kimi-linear@nano" in completed(complete.models, "mla,kimi-linear")


@pytest.mark.parametrize("words", [["run", "--modle", "x"], ["rum"], ["run", "--tasks", "rulr"]])
def test_a_usage_error_is_a_json_record_too(words: list[str], capsys: Capture) -> None:
    assert call([*words, "--json"]) == 2
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert (record["record"], record["exit_code"]) == ("error", 2)
    assert said.err == f"kleval: {record['message']}\n"


def test_memory_as_json_lines(capsys: Capture) -> None:
    assert call(["profile", "memory", "--ctx", "4k", "--model", "mla", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["record"], record["model"], record["ctx"]) == ("memory", "mla@nano", 4096)
