"""The pretrained model's benchmark: what it reads out of logs and rows, and its smallest round where its environment is."""

from __future__ import annotations

import importlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
HOME = FOLDER.parent / ".venv-real"
SLOT = "slot print_timing: id  1 | task 7 |"
LOG = f"""
{SLOT} prompt eval time =    2000.00 ms /   256 tokens (    7.81 ms per token,   128.00 tokens per second)
{SLOT}        eval time =     310.00 ms /    32 tokens (    9.69 ms per token,   103.23 tokens per second)
{SLOT}       total time =    2310.00 ms /   288 tokens
llama_kv_cache: size =   95.62 MiB (  4352 cells,  30 layers,  1/1 seqs), K (f16):   47.81 MiB, V (f16):   47.81 MiB
"""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))  # the scripts import one another, as they do when run
    return importlib.import_module("real_model")


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("real_tables")


def write(file: Path, *rows: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def row(index: int, text: str, score: float, prompt: str = "hash") -> dict[str, Any]:
    outcomes = [{"kind": "generate", "text": text}]
    return {"id": f"task/i{index}", "prompt_hash": prompt, "failure": None, "score": score, "outcomes": outcomes}


def test_help_needs_the_standard_library_only() -> None:
    done = subprocess.run([sys.executable, "-S", FOLDER / "real_model.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_servers_time_per_token_is_taken_over_the_steps_between_tokens(tables: ModuleType) -> None:
    assert tables.own_timings(LOG) == {(256, 32): [(2000.0, 10.0)]}


def test_costs_stand_beside_what_the_server_says_of_the_same_requests(tables: ModuleType, tmp_path: Path) -> None:
    values = {"ttft_ms": 2100.0, "tpot_ms": 11.0, "prompt_tokens": 256, "output_tokens": 32}
    write(tmp_path / "llama.cpp" / "profile" / "points.jsonl", {"ctx": 256, "failure": None, "values": values})
    (tmp_path / "llama.cpp" / "server.log").write_text(LOG, encoding="utf-8")
    ratios = ["2100.0", "2000.0", "1.050", "11.0", "10.0", "1.100"]
    assert tables.times(tmp_path) == [["llama.cpp", "256", "1", *ratios]]
    assert tables.state(tmp_path) == [["llama.cpp", "allocated", "4352 cells, 95.62 MiB", "22.5"]]


def test_engines_are_compared_on_the_same_prompts_alone(tables: ModuleType, tmp_path: Path) -> None:
    write(
        tmp_path / "llama.cpp" / "long" / "samples" / "a" / "t.jsonl", row(0, "12", 1), row(1, "34", 1), row(2, "5", 0)
    )
    write(
        tmp_path / "hf" / "long" / "samples" / "b" / "t.jsonl",
        row(0, "12", 1),
        row(1, "35", 0),
        row(2, "5", 0, "other"),
    )
    assert tables.agreement(tmp_path, ["long", "chat"]) == [
        ["long", "llama.cpp", "hf", "2", "1", "75 %", "1", "100.0", "50.0"]
    ]


def test_a_parting_is_sought_in_texts_whose_tokens_may_be_spelt_otherwise(tables: ModuleType) -> None:
    words = ["lead", "leader", "rer", "er", "s"]

    class Greedy:
        def encode(self, text: str) -> list[int]:
            return [words.index(text)] if text in words else [9, 9]

        def decode(self, ids: list[int]) -> str:
            return words[ids[0]]

    assert tables.parting(Greedy(), [0, 2, 4], "leaders") == (1, [3])
    assert tables.parting(Greedy(), [0, 2, 4], "leadrers and more") == (3, [])


def test_every_server_is_started_on_its_port_with_the_model(script: ModuleType) -> None:
    given = script.argparse.Namespace(home=Path("home"), port=9000, threads=3)
    for engine in script.ENGINES.values():
        if engine.server is not None:
            command = engine.served_by(given, str(given.port + engine.server))
            assert {str(given.home / script.FILE), engine.model, "3", str(given.port + engine.server)} <= {*command}
            assert f"http://127.0.0.1:{given.port + engine.server}/v1" in engine.asked_by(given)


def test_without_the_environment_it_is_said_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "real_model.py", "--home", tmp_path, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "make real" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    not (HOME / "installed").is_file(), reason="the pretrained model and llama.cpp are not here: make real"
)
def test_a_pretrained_model_behind_a_server_finds_a_needle(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    size = ["--tasks", "ruler/niah_single_1", "--ctx", "1k", "--limit", "1", "--parts", "long", "--only", "llama.cpp"]
    command = [sys.executable, FOLDER / "real_model.py", *size, "--port", port, "--home", HOME, "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "llama.cpp long: done\n" in done.stdout, done.stderr
    (answer,) = (tmp_path / "llama.cpp" / "long").glob("samples/*/*.jsonl")
    assert json.loads(answer.read_text("utf-8"))["score"] == 1.0
