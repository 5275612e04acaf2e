"""`kleval profile` of served models on the command line: its table and files, what it refuses, and that no secret is written."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kleval.cli.main import call
from kleval.store import RunStore

SMALL = ["--model", "tiny", "--decode-tokens", "4", "--repeats", "2"]


@pytest.fixture
def url(served_server: Any, manner: Any) -> Iterator[str]:
    with served_server.serving(manner) as address:
        yield address


def test_a_served_profile_prints_a_table_and_writes_page_and_csv(
    served_server: Any, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["profile", "--base-url", url, *SMALL, "--ctx", "32,64", "--concurrency", "1,2", "--out", "here"]
    assert call([*words, "--hardware", "8x H200"]) == 0
    said = capsys.readouterr()
    assert "TTFT ms" in said.out
    assert f"tiny at {url} (vllm 1.2.3)" in said.err
    assert "8/8 points" in said.err
    rows = list(csv.DictReader(Path("here/profile.csv").read_text("utf-8").splitlines()))
    assert [(r["protocol"], r["ctx"], float(r["prompt_tokens"]), float(r["output_tokens"])) for r in rows] == [
        ("concurrency-1", "32", 32, 4),
        ("concurrency-1", "64", 64, 4),
        ("concurrency-2", "32", 32, 8),
        ("concurrency-2", "64", 64, 8),
    ]
    assert all(float(r["ttft_ms"]) >= 1000 * served_server.FIRST_SECONDS and r["unit"] == "ms/token" for r in rows)
    assert all(r["state_bytes"] == r["bound"] == r["mbu"] == r["cpu"] == "" for r in rows)
    assert {r["hardware"] for r in rows} == {"8x H200"}
    page = Path("here/report.html").read_text("utf-8")
    assert page.count('class="figure"') == 3
    for text in ("8x H200", "Time to first token", "2 requests together", "Output throughput", "vllm 1.2.3"):
        assert text in page
    for text in ("random weights", "The paper's curves", "State bytes by component"):
        assert text not in page


@pytest.mark.parametrize("format", ["csv", "json", "jsonl", "md"])
def test_every_format_has_a_row_per_length_and_concurrency(
    url: str, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["profile", "--base-url", url, *SMALL, "--ctx", "32,64", "--out", "here", "--format", format, "--quiet"]
    assert call(words) == 0
    out = capsys.readouterr().out
    if format == "json":
        assert [(row["ctx"], row["rounds"], row["failed"]) for row in json.loads(out)] == [(32, 2, 0), (64, 2, 0)]
    else:
        rows = sum(line.startswith(("tiny,", '{"model": "tiny"', "| 32 ", "| 64 ")) for line in out.splitlines())
        assert rows == (4 if format == "md" else 2)  # in Markdown memory is a table of its own


def test_json_lines_have_launch_points_and_done(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["profile", "--base-url", url, *SMALL, "--ctx", "32,", "--out", "here", "--json", "--quiet"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["record"] for record in records] == ["launch", "point", "point", "done"]
    assert records[-1]["status"] == "complete"


def test_failed_rounds_end_with_code_3_are_shown_and_measured_by_the_same_command(
    url: str, manner: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    manner.faulty = frozenset({2})
    words = ["profile", "--base-url", url, *SMALL, "--ctx", "64,128"]
    assert call(words) == 3
    said = capsys.readouterr()
    assert "1 of 2" in said.out
    assert "HTTP 500: planned" in said.err
    (folder,) = Path("runs").iterdir()
    page = (folder / "report.html").read_text("utf-8")
    assert "1 round failed" in page
    assert "HTTP 500: planned" in page
    assert call(words) == 0
    assert list(Path("runs").iterdir()) == [folder]
    assert RunStore.open(folder).status == "complete"


def test_a_length_at_which_everything_failed_is_a_gap_on_the_page(url: str, manner: Any) -> None:
    manner.cuts_prompts_to = 40
    assert call(["profile", "--base-url", url, *SMALL, "--ctx", "32,64", "--out", "here"]) == 3
    page = Path("here/report.html").read_text("utf-8")
    assert "counts 40 tokens in a prompt of 64" in page
    assert '<td class="failed"' in page
    rows = list(csv.DictReader(Path("here/profile.csv").read_text("utf-8").splitlines()))
    assert [bool(row["value"]) for row in rows] == [True, False]


def test_credentials_in_the_address_are_written_nowhere(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    secret = url.replace("http://", "http://me:sesame9@") + "?api_key=sesame8"
    assert call(["profile", "--base-url", secret, *SMALL, "--ctx", "32,64", "--out", "here"]) == 0
    said = capsys.readouterr()
    for text in (said.out, said.err, *(f.read_text("utf-8") for f in Path("here").iterdir() if f.is_file())):
        assert "sesame" not in text


def test_a_dry_run_names_the_rounds(url: str, manner: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["profile", "--base-url", url, *SMALL, "--ctx", "32,64", "--dry-run"]) == 0
    said = capsys.readouterr()
    assert said.out.count("served/concurrency-1/tiny/") == 4
    assert "nothing was measured; 4 rounds" in said.err
    assert manner.measured == []
    assert not Path("runs").exists()


SERVED = "--base-url http://127.0.0.1:9/v1 --model tiny"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (f"{SERVED}", "no server answers at http://127.0.0.1:9/v1"),
        (f"{SERVED},other", "is of one model, not 2"),
        ("--base-url http://127.0.0.1:9/v1", "is of one model, not 0"),
        (f"{SERVED} --prefill full", "--prefill is not for a model behind a server"),
        (f"{SERVED} --tp 2", "--tp is not for a model behind a server"),
        (f"{SERVED} --concurrency 0", "'0' is not a concurrency"),
        (f"{SERVED} --decode-tokens 1", "--decode-tokens 1: at least 2"),
        (f"{SERVED} --repeats 0", "--repeats is at least 1"),
        (f"{SERVED} --backend native", "--base-url is for --backend openai, not native"),
        (f"{SERVED} --backend vllm", "--base-url is not for --backend vllm"),
        (f"{SERVED} --api-key-env NO_SUCH_KEY", "--api-key-env NO_SUCH_KEY"),
        ("--backend openai --model tiny", "add its address, --base-url"),
        ("--backend vllm --model tiny --batch 1", "--batch is not for --backend vllm"),
        ("--concurrency 4", "--concurrency is for served models"),
        ("--hardware L4", "--hardware is for served models"),
        ("--backend vllm --model tiny --hardware L4", "--hardware is not for --backend vllm"),
        ("--engine-arg a=b", "--engine-arg is for served models"),
    ],
)
def test_bad_input_is_one_line(one_line: Callable[..., str], words: str, said: str) -> None:
    assert said in one_line(["profile", *words.split()])
    assert not Path("runs").exists()


def test_a_model_that_the_server_has_not_is_named_with_those_it_has(url: str, one_line: Callable[..., str]) -> None:
    assert "--model is one of tiny" in one_line(["profile", "--base-url", url, "--model", "large"])


def test_variables_for_run_do_not_make_a_profile_one_of_a_server(
    monkeypatch: pytest.MonkeyPatch, one_line: Callable[..., str]
) -> None:
    monkeypatch.setenv("KLEVAL_BASE_URL", "http://127.0.0.1:9/v1")
    assert "--concurrency is for served models" in one_line(["profile", "--model", "tiny", "--concurrency", "2"])
    monkeypatch.setenv("KLEVAL_PROFILE_BASE_URL", "http://127.0.0.1:9/v1")
    assert "no server answers" in one_line(["profile", "--model", "tiny"])
