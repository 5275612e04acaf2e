import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness_fakes import comparable

from kleval.store import RunStore

DRIVER = Path(__file__).parent / "killed_run.py"
REPOSITORY = Path(__file__).parents[2]


def drive(out, kills, seed):
    command = [sys.executable, str(DRIVER), str(out), str(kills), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment(), timeout=300)
    assert done.returncode == 0, done.stderr
    return [int(size) for size in done.stdout.split()]


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(DRIVER.parent), str(REPOSITORY)])}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")
def test_a_run_killed_at_many_moments_ends_as_one_that_never_was(tmp_path):
    assert drive(tmp_path / "whole", 0, 0) == []
    after = drive(tmp_path / "killed", 40, 7)
    assert len(after) >= 25
    assert len(set(after)) >= 10
    whole, killed = RunStore.open(tmp_path / "whole"), RunStore.open(tmp_path / "killed")
    assert comparable(killed) == comparable(whole)
    assert len(comparable(whole)) == 120
    assert killed.status == whole.status == "complete"
    keys = [
        (row["model"], row["id"], row["repeat"])
        for file in (tmp_path / "killed").glob("samples/*/*.jsonl")
        for row in map(json.loads, file.read_text("utf-8").splitlines())
    ]
    assert len(keys) == len(set(keys)) == 120
    assert killed.counts() == whole.counts()
    for row in killed.rows():
        assert killed.read_prompt(row) == whole.read_prompt(row)
    assert list((tmp_path / "killed" / "tmp").iterdir()) == []
