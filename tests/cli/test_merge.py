"""`kleval run --shard` and `kleval merge` as typed, and as docs/scale.md has schedulers do it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import kleval
from kleval.cli.main import call
from kleval.store import RunStore

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text("utf-8")
WHOLE = "--model kimi-linear --suite long --ctx 128k,1m"
SMALL = "--tasks ruler/niah_single_1 --ctx 512 --limit 3"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


SBATCH = next(text for text in blocks("sh") if "#SBATCH" in text)
SSH = next(text for text in blocks("sh") if "hosts=(" in text)
POD = yaml.safe_load(blocks("yaml")[0])["spec"]["template"]["spec"]["containers"][0]


@pytest.fixture
def executed(tmp_path: Path) -> Callable[..., list[str]]:
    """Run a script in bash with a `kleval` that writes down how it is called, or, real, that is kleval; what it was called with."""
    commands, called = tmp_path / "bin", tmp_path / "called"
    commands.mkdir()

    def run(script: str, *arguments: str, real: bool = False, **variables: str) -> list[str]:
        does = f'exec {sys.executable} -m kleval "$@"' if real else f'echo "$@" >> {called}'
        for name, text in (("kleval", does), ("ssh", 'shift; exec bash -c "$*"')):
            (commands / name).write_text(f"#!/bin/bash\n{text}\n")
            (commands / name).chmod(0o755)
        paths = {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(Path(kleval.__file__).parents[1])}
        called.unlink(missing_ok=True)
        command = ["bash", "-c", script.replace(WHOLE, SMALL), "job", *arguments]
        subprocess.run(command, env={**os.environ, **paths, **variables}, cwd=tmp_path, check=True)
        return sorted(called.read_text().splitlines()) if called.exists() else []

    return run


def array(of: int) -> list[dict[str, str]]:
    """The variables of each job of a SLURM array."""
    names = ("ID", "MIN", "MAX", "STEP", "COUNT")
    values = ((i, 0, of - 1, 1, of) for i in range(of))
    return [{f"SLURM_ARRAY_TASK_{n}": str(v) for n, v in zip(names, one, strict=True)} for one in values]


def test_the_scripts_of_the_page_give_every_job_its_shard(executed: Callable[..., list[str]]) -> None:
    assert executed(SBATCH, "--limit", "3", **array(8)[5]) == ["run --limit 3 --shard auto --out runs/long/5"]
    assert (
        executed(POD["args"][0], RUNS="/r", JOB_COMPLETION_INDEX="7")[0]
        == f"run {SMALL} --shard auto/8 --out /r/long/7"
    )
    told = [line for line in executed(SSH) if "/3" in line and line.startswith(f"run {SMALL} --shard")]
    assert told == [f"run {SMALL} --shard {i}/3 --out runs/long/{i}" for i in (1, 2, 3)]


@pytest.mark.slow
def test_the_scripts_of_the_page_make_the_whole_run(executed: Callable[..., list[str]], tmp_path: Path) -> None:
    assert call(["run", *SMALL.split(), "--out", "whole", "-q"]) == 0
    for job in array(2):
        executed(SBATCH, *SMALL.split(), real=True, **job)
    assert call(["merge", "runs/long", "--out", "slurm"]) == 0
    pods = POD["args"][0].replace("auto/8", "auto/2")
    for index in ("0", "1"):
        executed(pods, real=True, RUNS=str(tmp_path / "pods"), JOB_COMPLETION_INDEX=index)
    assert call(["merge", "pods/long", "--out", "kubernetes"]) == 0
    executed(SSH.replace("runs/", "ssh/"), real=True)
    answers = [
        [(row.id, row.prompt_hash, row.outcomes[0]["text"], row.score) for row in RunStore.open(tmp_path / name).rows()]
        for name in ("whole", "slurm", "kubernetes", "ssh/long-merged")
    ]
    assert answers == [answers[0]] * 4
    assert len(answers[0]) == 3


def test_shards_are_run_merged_and_what_is_missing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    whole = ["run", *SMALL.split(), "-q"]
    assert call([*whole, "--shard", "1/2", "--out", "s/1"]) == 0
    capsys.readouterr()
    assert call(["merge", "s", "--out", "m"]) == 3
    said = capsys.readouterr().err
    assert "missing   shard 2/2 is not there, 1 answer: kleval run" in said
    assert call([*whole, "--shard", "2/2", "--out", "s/2"]) == 0
    assert call(["merge", "s", "--out", "m", "--json"]) == 0
    assert '"answered": 3' in capsys.readouterr().out
    assert Path("m/report.html").is_file()
    assert Path("m/leaderboard.csv").is_file()


def test_a_line_says_what_is_wrong(one_line: Callable[..., str]) -> None:
    assert "no shard 9/8" in one_line(["run", "--shard", "9/8", "--out", "s"])
    assert "SLURM_ARRAY_TASK_ID" in one_line(["run", "--shard", "auto", "--out", "s"])
    assert "--out DIR" in one_line(["run", "--shard", "1/2"])
    assert "no such run directory" in one_line(["merge", "nowhere", "--out", "m"])
