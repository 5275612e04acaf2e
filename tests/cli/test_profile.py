"""`kleval profile` on the command line: what it writes where, what it refuses, and how it is continued."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kleval.cli import run
from kleval.cli.main import call
from kleval.cli.profile import DEFAULT_CTX, parse_seconds, profile_lengths
from kleval.lengths import parse_lengths
from kleval.store import RunStore
from kleval.types import UsageError

SMALL = [
    *("profile", "--model", "kimi-linear,mla", "--ctx", "128,256", "--chunk-tokens", "16", "--decode-tokens", "2"),
    *("--repeats", "2", "--device", "cpu", "--memory-budget", "2MiB"),
]


LLAMA = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kleval.profiler.bound.COPY_BYTES", {"cpu": 1 << 20})
    monkeypatch.setattr("kleval.profiler.bound.MATRIX_SIZE", {"cpu": 64})
    monkeypatch.setattr("kleval.profiler.rates.DEEP_TOKENS", 128)


def test_the_memory_command_answers_for_the_published_model(capsys: pytest.CaptureFixture[str]) -> None:
    words = "profile memory --model kimi-linear@48b-a3b,mla@48b-a3b --ctx 1m --memory-budget 139GiB --format json"
    assert call(words.split()) == 0
    kimi, mla = json.loads(capsys.readouterr().out)
    assert kimi["latent_bytes"] == 8064 << 20
    assert mla["state_bytes"] == 31104 << 20
    assert round(kimi["latent_saving"], 3) == 0.741
    assert kimi["largest_batch"] > mla["largest_batch"] >= 1


@pytest.mark.parametrize("format", ["table", "md", "csv", "json", "jsonl"])
def test_every_format_has_a_row_per_model_and_length(format: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"profile memory --model kimi-linear,mla --ctx 4k-16k*2 --batch 2 --dtype float32 --format {format}"
    assert call(words.split()) == 0
    out = capsys.readouterr().out
    if format == "csv":
        found = list(csv.DictReader(io.StringIO(out)))
        assert found[0]["model"] == "kimi-linear@nano"
    elif format == "json":
        found = json.loads(out)
    else:
        found = [line for line in out.splitlines() if "@nano" in line]
    if format == "table":  # too wide for one, it goes on below, behind the same length and model
        found = list({tuple(line.split()[:2]) for line in found})
    assert len(found) == 2 * 3


def test_help_and_memory_do_without_torch() -> None:
    script = (
        "import sys; from kleval.cli.main import call;"
        "call(['profile', 'memory', '--help']); call(['profile', 'memory']);"
        "sys.exit(any(name in sys.modules for name in ('torch', 'plotly', 'scipy')))"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--ctx 0", "is not a length"),
        ("--ctx -5", "is not a range"),
        ("--batch 0", "is not a batch"),
        ("--memory-budget -1GiB", "not an amount of memory"),
        ("--memory-budget 0", "--memory-budget is at least 1"),
        ("--time-budget soon", "is not a time"),
        ("--time-budget 0", "--time-budget"),
        ("--repeats 0", "--repeats"),
        ("--seed 99999999999999999999", "--seed"),
        ("--decode-tokens 99999999999999", "of state"),
        ("--model ~nobody/there", "no folder"),
        ("--model kimi-lineer", "did you mean"),
        ("--model ,", "no model"),
        ("--dtype int8", "dtype"),
        ("--device tpu", "device"),
        ("--model mla@48b-a3b --dtype float32 --device cpu --dry-run", "of weights"),
        ("--ctx 4k memory", "put it behind"),
        ("memory --ctx 0", "is not a length"),
        ("memory --batch 0", "--batch"),
        ("memory --memory-budget 0", "--memory-budget"),
        ("memory --model mla@9b", "size"),
        ("memmory", "did you mean 'memory'"),
        ("--devices cpu,cuda:77", "device 'cuda:77' is not there"),
        ("--devices cpu,cpu --device cpu", "leave it out, or leave out --devices"),
        ("--devices cpu,cpu --executor ray", "leave it out, Ray finds the cluster's"),
        ("--gpus-per-model 2", "for --executor ray"),
        ("--devices cpu,cpu --base-url http://localhost:1/v1", "--devices is for profiles of kleval's own decoders"),
        ("--executor ray --base-url http://localhost:1/v1", "--executor is for profiles of kleval's own decoders"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    words: str, said: str, one_line: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kleval.profiler.opened.free_bytes", lambda device: 16 << 30)
    assert said in one_line(["profile", *words.split()])
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("10m", 600), ("90s", 90), ("45", 45), ("1h30m", 5400), ("1.5", 1.5), ("2m30s", 150)]
)
def test_times_are_read(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5s", "5 m", "1d", "5m5h", "²s"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        parse_seconds(text)


def test_one_length_is_a_ladder_and_a_list_is_itself() -> None:
    assert profile_lengths("1048576") == (4096, 16384, 65536, 262144, 1048576)
    assert profile_lengths("4k,1m") == (4096, 1048576)
    assert profile_lengths("64k-64k*2") == (65536,)


def test_the_lengths_of_a_run_are_among_those_of_a_profile() -> None:
    assert set(parse_lengths(run.DEFAULT_CTX)) < set(profile_lengths(DEFAULT_CTX))


def test_a_dry_run_prints_the_plan_with_seconds_and_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*SMALL, "--dry-run", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert any(row["point"].startswith("prefill/full/mla@nano/256/") for row in rows)
    assert all(float(row["seconds"]) >= 0 and row["state_bytes"] for row in rows)
    assert list(Path.cwd().iterdir()) == []


def test_every_line_of_json_names_its_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*SMALL, "--dry-run", "--json"]) == 0
    records = [json.loads(line)["record"] for line in capsys.readouterr().out.splitlines()]
    assert records[0] == "launch"
    assert records[-1] == "done"
    assert set(records[1:-1]) == {"planned"}


def test_a_profile_stores_points_prints_rows_and_writes_its_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*SMALL, "--out", "here", "--format", "jsonl"]) == 0
    said = capsys.readouterr()
    rows = [json.loads(line) for line in said.out.splitlines()]
    kinds = {(row["kind"], row["protocol"]) for row in rows}
    assert {("prefill", "full"), ("prefill", "sampled"), ("decode", "batch-1"), ("decode", "largest-batch")} <= kinds
    assert all(row["estimate"] == (row["protocol"] == "sampled") for row in rows)
    compared = [row for row in rows if row["model"] == "kimi-linear@nano" and row["kind"] in ("prefill", "decode")]
    assert compared
    assert all(row["ratio"] > 0 and row["ratio_low"] is not None and row["baseline"] == "mla@nano" for row in compared)
    for name in ("run.json", "points.jsonl", "report.html", "profile.csv"):
        assert Path("here", name).is_file(), name
    assert "random weights" in said.err
    assert "sampled prefill is an estimate" in said.err


def test_tables_call_an_estimate_an_estimate(capsys: pytest.CaptureFixture[str]) -> None:
    for format in ("table", "md"):
        assert call([*SMALL, "--out", "here", "--format", format]) == 0
        lines = capsys.readouterr().out.splitlines()
        sampled = [line for line in lines if "sampled" in line]
        assert sampled
        assert all("(estimate)" in line for line in sampled)
        assert sum("of full" in line for line in sampled) == 4
        assert sum("equal" in line for line in lines) == 4


def test_json_lines_have_launch_points_and_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*SMALL, "--out", "here", "--json", "--quiet"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[0]["record"] == "launch"
    assert {record["record"] for record in records[1:-1]} == {"point"}
    assert (records[-1]["record"], records[-1]["status"], records[-1]["exit_code"]) == ("done", "complete", 0)
    assert records[-1]["counts"]["planned"] == len(records) - 2


def test_interrupted_it_says_how_to_go_on_and_the_same_command_does(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kleval.profiler import native

    real = native.decode_steps
    calls: list[int] = []

    def interrupted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(native, "decode_steps", interrupted)
    assert call(SMALL) == 130
    said = capsys.readouterr().err
    assert "interrupted" in said
    assert "continue  kleval profile" in said
    (stopped,) = Path("runs").iterdir()
    kept = len(list(RunStore.open(stopped).points()))
    assert kept > 0
    assert call(SMALL) == 0
    assert f"({kept} are there already)" in capsys.readouterr().err
    assert list(Path("runs").iterdir()) == [stopped]
    assert RunStore.open(stopped).status == "complete"
    assert call(SMALL) == 0
    assert len(list(Path("runs").iterdir())) == 2


def test_another_command_on_the_same_directory_is_refused(
    one_line: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([*SMALL, "--out", "here"]) == 0
    capsys.readouterr()
    words = [word if word != "128,256" else "128" for word in SMALL]
    assert "ctx: 128,256 -> 128" in one_line([*words, "--out", "here"])


def test_report_and_leaderboard_know_a_profile(
    one_line: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call([*SMALL, "--out", "runs/one"]) == 0
    Path("runs/one/report.html").unlink()
    capsys.readouterr()
    assert call(["report", "runs"]) == 0
    assert capsys.readouterr().out.split() == [str(Path("runs/one/report.html"))]
    assert Path("runs/one/report.html").is_file()
    assert "is a profile" in one_line(["leaderboard", "runs"])


def test_other_families_cost_what_their_config_says(capsys: Capture, tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    file.write_text(json.dumps(LLAMA))
    words = ["profile", "memory", "--model", f"{file},kimi-k3", "--ctx", "4k", "--weights", "fp8", "--kv", "fp8"]
    assert call([*words, "--tp", "2", "--json"]) == 0
    out, err = capsys.readouterr()
    llama, k3 = (json.loads(line) for line in out.splitlines())
    assert llama["grouped_bytes"] == 2 * 2 * 4096 * 16  # of one of two key-value heads
    assert (llama["devices"], llama["weights"], llama["kv"]) == (2, "fp8", "fp8")
    assert [gpu["gpu"] for gpu in k3["gpus"]] == ["h100", "h200", "b200", "rtx-5090"]
    assert k3["gpus"][0]["largest_batch"] == 0
    assert "kimi-k3: not counted: vision_config" in err
    assert call(words) == 0
    assert "What fits at most beside the weights" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read as JSON"),
        ('{"model_type": "mamba2"}', "model_type is 'mamba2', whose costs kleval does not know"),
        (json.dumps({**LLAMA, "num_key_value_heads": 3}), "num_key_value_heads 3 does not divide"),
        (json.dumps({**LLAMA, "shared_kv_layers": 2}), "shared_kv_layers is unknown"),
    ],
)
@pytest.mark.parametrize("words", [["profile", "memory", "--model"], ["ls", "models"]])
def test_a_config_that_is_not_understood_is_one_line(
    words: list[str], text: str, said: str, capsys: Capture, tmp_path: Path
) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    assert call([*words, str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
