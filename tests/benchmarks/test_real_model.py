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
from stored_runs import write_run

FOLDER = Path(__file__).parents[2] / "benchmarks"
HOME = FOLDER.parent / ".venv-real"
FILE, COPY = "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-hf"
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


def answered(run: Path, *rows: dict[str, Any]) -> None:
    write(run / "samples" / "m" / "t.jsonl", *rows)
    (run / "run.json").write_text("{}", encoding="utf-8")


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
    (tmp_path / "vllm-server").mkdir()
    (tmp_path / "vllm-server" / "server.log").write_text("INFO CPU KV cache size: 11,648 tokens, Maximum", "utf-8")
    assert tables.state(tmp_path) == [
        ["llama.cpp", "allocated", "4352 cells, 95.62 MiB", "22.5"],
        ["vllm-server", "allocated", "11648 cells, 512.00 MiB", "45.0"],
    ]


def test_engines_are_compared_on_the_same_prompts_alone(tables: ModuleType, tmp_path: Path) -> None:
    answered(tmp_path / "llama.cpp" / "long-1k", row(0, "12", 1), row(1, "34", 1), row(2, "5", 0))
    answered(tmp_path / "hf" / "long-1k", row(0, "12", 1), row(1, "35", 0), row(2, "5", 0, "other"))
    assert tables.agreement(tmp_path, ["long", "chat"]) == [
        ["long-1k", "llama.cpp", "hf", "1 of 2", "75 %", "1 of 2", "100.0", "50.0", "", "", ""]
    ]


def test_log_probabilities_of_the_same_continuations_are_compared_in_nats(tables: ModuleType, tmp_path: Path) -> None:
    def choice(*logprobs: float) -> dict[str, Any]:
        outcomes = [{"kind": "loglikelihood", "text": "", "logprob_sum": value} for value in logprobs]
        return row(0, "", 1) | {"outcomes": outcomes}

    answered(tmp_path / "hf" / "short", choice(-1.0, -2.0, -3.0))
    answered(tmp_path / "vllm" / "short", choice(-1.25, -2.0, -3.125))
    (line,) = tables.agreement(tmp_path, ["short"])
    assert line[-3:] == ["3", "0.12", "0.25"]


def test_runs_of_a_part_are_found_by_length_and_shortest_first(tables: ModuleType, tmp_path: Path) -> None:
    for name in ("long-2k", "long-16k", "long-1k", "long-penalised", "lm-eval-1k"):
        answered(tmp_path / "hf" / name)
    assert tables.run_names(tmp_path, ["long"]) == ["long-1k", "long-2k", "long-16k"]


def test_lm_evals_own_answers_stand_beside_klevals(tables: ModuleType, tmp_path: Path) -> None:
    run = tmp_path / "llama.cpp" / "lm-eval-1k"
    write_run(run, lambda *at: float(at[-1] == 0), ["m"], ["ruler/vt"], [1024], 2, text=lambda *at: "a")
    own = tmp_path / "llama.cpp" / "lm-eval-own" / "1k" / "2" / "ruler_vt" / "model" / "samples_ruler_vt_now.jsonl"
    theirs = [
        {"doc_id": i, "arguments": {"gen_args_0": {"arg_0": asked}}, "resps": [["a "]], "1024": 1.0}
        for i, asked in enumerate(("ruler/vt at 1024, number 0? Answer:", "another question"))
    ]
    write(own, *theirs)
    line = tables.against_lm_eval(tmp_path, lambda prompt, prefix: prompt + prefix)
    assert line == [["llama.cpp", "1k", "vt", "2", "1", "2", "1", "100.0", "50.0"]]


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
    given = script.argparse.Namespace(home=Path("home"), vllm=Path("vllm"), port=9000, threads=3)
    files = {str(given.home / script.FILE), str(given.home / script.COPY)}
    for engine in script.ENGINES.values():
        if engine.server is not None:
            command = engine.served_by(given, str(given.port + engine.server))
            files.add(engine.model(given))
            assert {engine.model(given), str(given.port + engine.server)} <= {*command}
            assert files & {*command}
            assert f"http://127.0.0.1:{given.port + engine.server}/v1" in engine.asked_by(given)


def test_no_two_engines_answer_under_one_name_as_costs_join_scores_by_it(script: ModuleType) -> None:
    given = script.argparse.Namespace(home=Path("home"), vllm=Path("vllm"), port=9000, threads=3)
    assert len({engine.model(given) for engine in script.ENGINES.values()}) == len(script.ENGINES)


def test_without_the_environment_it_is_said_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER / "real_model.py", "--home", tmp_path, "--out", tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "make real" in done.stderr


def ask(home: Path, out: Path, port: int, *more: str) -> subprocess.CompletedProcess[str]:
    size = ["--only", "llama.cpp", "--parts", "long", "--ctx", "1k", "--limit", "1", "--tasks", "ruler/niah_single_1"]
    command = [sys.executable, FOLDER / "real_model.py", *size, "--port", str(port), "--home", home, "--out", out]
    return subprocess.run([*command, *more], capture_output=True, text=True)


def home_whose_server(script: str, home: Path) -> Path:
    """An environment with a program in the place of llama.cpp's server."""
    program = home / "build" / "bin" / "llama-server"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!{sys.executable}\n{script}", encoding="utf-8")
    program.chmod(0o755)
    (home / COPY).mkdir()
    for file in (home / "installed", home / FILE, home / COPY / "config.json"):
        file.touch()
    return home


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_server_that_cannot_read_the_model_is_one_line_with_its_own_words(tmp_path: Path) -> None:
    home = home_whose_server("raise SystemExit('E load: failed to load model, x.gguf')", tmp_path / "home")
    done = ask(home, tmp_path / "out", free_port())
    (line,) = [line for line in done.stdout.splitlines() if line]
    assert line.startswith("llama.cpp: skipped: the server did not start: E load: failed to load model, x.gguf (see ")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_port_in_use_is_one_line_and_nothing_is_asked_there(tmp_path: Path) -> None:
    home = home_whose_server("raise SystemExit('never started')", tmp_path / "home")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = ask(home, tmp_path / "out", port)
    assert done.stdout.strip() == f"llama.cpp: skipped: port {port} is in use: --port names another"
    assert not (tmp_path / "out").exists()


def test_an_engine_without_its_environment_is_skipped_and_named(tmp_path: Path) -> None:
    home = home_whose_server("", tmp_path / "home")
    done = ask(home, tmp_path / "out", free_port(), "--only", "vllm", "--vllm", str(tmp_path / "none"))
    assert done.stdout.strip() == f"vllm: skipped: {tmp_path / 'none'} has no vllm: make real says why"


@pytest.mark.slow
@pytest.mark.skipif(
    not (HOME / "installed").is_file(), reason="the pretrained model and llama.cpp are not here: make real"
)
def test_a_pretrained_model_behind_a_server_finds_a_needle(tmp_path: Path) -> None:
    done = ask(HOME, tmp_path, free_port())
    assert "llama.cpp long-1k: done\n" in done.stdout, done.stderr
    (answer,) = (tmp_path / "llama.cpp" / "long-1k").glob("samples/*/*.jsonl")
    assert json.loads(answer.read_text("utf-8"))["score"] == 1.0
