"""Output that a terminal cannot show, a reader that goes away, and directories of two commands in one second."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kleval.cli.directory import run_directory
from kleval.cli.terminal import says_everything
from kleval.store import RunStore

ROOT = Path(__file__).resolve().parents[2]
PRINT = """
import sys
from kleval.cli import console, main, terminal
terminal.forgive()
"""


def run(code: str, encoding: str = "utf-8", stdin: str = "") -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", PRINT + code], env=env, capture_output=True, text=True, encoding=encoding, check=False
    )


@pytest.mark.parametrize("encoding", ["cp437", "cp1251", "ascii", "utf-8"])
def test_no_character_ends_a_command(encoding: str) -> None:
    done = run("print('1 – 2 × 3 … Ж ✓ 🙂 \\ud800'); print('→ Ж', file=sys.stderr)", encoding)
    assert done.returncode == 0, done.stderr
    assert "3" in done.stdout
    if encoding == "ascii":
        assert done.stdout == "1 - 2 x 3 ... \\u0416 ok \\U0001f642 \\ud800\n"


@pytest.mark.parametrize("encoding", ["cp437", "cp1251", "ascii", "utf-8"])
def test_json_lines_lose_nothing(encoding: str) -> None:
    done = run("console.emit('x', text='Ж 中 × –')", encoding)
    assert json.loads(done.stdout) == {"record": "x", "text": "Ж 中 × –"}


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_command_goes_on_when_its_reader_leaves(tmp_path: Path) -> None:
    code = f"for i in range(20000): print('line', i)\nopen({str(tmp_path / 'end')!r}, 'w').close()\nsys.exit(3)"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", PRINT + code], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), said) == (3, "")
    assert (tmp_path / "end").exists()


def test_which_encodings_say_everything() -> None:
    for name, says in (("utf-8", True), ("utf-16", True), ("cp437", False), ("ascii", False)):
        assert says_everything(io.TextIOWrapper(io.BytesIO(), encoding=name)) is says


def test_two_commands_of_one_second_have_a_directory_each(tmp_path: Path) -> None:
    made = [run_directory(f"command {i}", tmp_path / "runs") for i in range(3)]
    assert len(set(made)) == 3
    assert not (tmp_path / "runs").exists()


def test_a_command_under_another_name_or_limit_goes_on_where_it_stopped(tmp_path: Path) -> None:
    line = "kleval run --tasks ruler/vt --name first --max-requests=3 -q"
    facts = {"status": "incomplete", "started": "2026-01-01T00:00:00+00:00", "settings": {}, "spec": {"command": line}}
    with RunStore.create(tmp_path / "runs" / "a", facts):
        pass
    same = "kleval run --tasks ruler/vt --max-requests 9 --tag a=b --name=other"
    assert run_directory(same, tmp_path / "runs") == tmp_path / "runs" / "a"
    assert run_directory(f"{same} --seed 1", tmp_path / "runs") != tmp_path / "runs" / "a"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_a_full_disk_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "kleval", "ls", "suites", "--json"]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "kleval: No space left on device\n"
