"""What stores of many rows take: `kleval leaderboard`, `kleval report` and the scan of a run that goes on. CPU seconds and peak memory
of the whole command, each in a process of its own.

    python benchmarks/leaderboard_50k.py [--rows 50000] [--cells 1] [--what leaderboard,report,resume]

The run directory is made here: the given number of answers of one model, scores drawn from a skewed distribution, in so many cells.
Every row is read and checked, so most of the time is reading; the interval is `abc`. Prompts are not stored.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from pathlib import Path

from common import MIB, ONE_THREAD, print_environment

TASKS, SHORTEST = ("ruler/vt", "ruler/cwe", "ruler/fwe", "ruler/qa_1"), 4096
MODEL, START = "one@nano", {"status": "running", "started": "2026-01-01T00:00:00+00:00"}
ABOUT = {"edition": "builtin", "protocol": "nvidia-c3f5e3b"}
RESUME = """
import sys
from kleval.store import RunStore
print(RunStore.create(sys.argv[1], RunStore.open(sys.argv[1]).manifest).counts())
"""
GOALS = {50_000: "goals at 50,000 rows in one cell: 3 s, 300 MiB", 1_000_000: "goal at 1,000,000 rows: below 1,000 MiB"}


def write_run(folder: Path, n: int, cells: int = 1) -> None:
    from kleval.store import Row, RunStore
    from kleval.store.records import to_line

    rng = random.Random(0)
    manifest = {**START, "models": {MODEL: {}}, "tasks": dict.fromkeys(TASKS[:cells], ABOUT), "settings": {}}
    outcome = {"kind": "generate", "text": "an answer", "finish_reason": "eos", "output_tokens": 3, "temperature": 0.0}
    with RunStore.create(folder, manifest) as store:
        for cell in range(cells):
            task, ctx = TASKS[cell % len(TASKS)], SHORTEST * (1 + cell // len(TASKS))
            size = n // cells

            def row(index: int, task: str = task, ctx: int = ctx) -> Row:
                return Row(
                    model=MODEL,
                    id=f"{task}@builtin-1/{ctx}/s42/i{index}",
                    task=task,
                    ctx=ctx,
                    index=index,
                    repeat=0,
                    **ABOUT,
                    task_version="1",
                    data_revision="1",
                    data_digest="d" * 64,
                    prompt_hash=f"{ctx:032x}{index:032x}",
                    prompt_tokens=ctx - 32,
                    max_new_tokens=32,
                    references=("the answer",),
                    metric="string_match_all",
                    score=round(rng.random() ** 2, 4),
                    outcomes=(outcome,),
                )

            first = row(0)
            store.append(first)
            with (folder / first.file).open("ab") as out:  # not appended one by one: what is measured is reading
                out.writelines(to_line(row(index)) for index in range(1, size))
        store.update(status="complete")


def measured(command: list[str], out: Path) -> tuple[float, float]:
    """CPU seconds and MiB at most of a command, whose output goes to a file."""
    with out.open("wb") as file:
        pid = os.posix_spawn(
            command[0],
            command,
            os.environ | ONE_THREAD,
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), 1)],
        )
        _, status, spent = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    peak = spent.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / MIB
    return spent.ru_utime + spent.ru_stime, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--cells", type=int, default=1)
    parser.add_argument("--what", default="leaderboard")
    given = parser.parse_args()
    kleval = [sys.executable, "-m", "kleval"]
    print_environment()
    print(f"rows {given.rows:,} in {given.cells} cells")
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name) / "run", Path(name) / "out"
        write_run(folder, given.rows, given.cells)
        commands = {
            "leaderboard": [*kleval, "leaderboard", str(folder), "--format", "json"],
            "report": [*kleval, "report", str(folder), "--out", str(Path(name) / "page.html")],
            "resume": [sys.executable, "-c", RESUME, str(folder)],
        }
        for what in given.what.split(","):
            seconds, peak = measured(commands[what], out)
            print(
                f"{what:<11}  CPU {seconds:>6.1f} s  {1e6 * seconds / given.rows:>5.0f} us per row  peak {peak:>5.0f} MiB"
            )
            if what == "leaderboard":
                row = json.loads(out.read_text("utf-8"))[0]
                print(f"{'':<11}  interval {row['ci_method']}: {row['value']} [{row['ci_low']}, {row['ci_high']}]")
            if what == "report":
                print(f"{'':<11}  page {(Path(name) / 'page.html').stat().st_size / MIB:.1f} MiB")
    if goal := GOALS.get(given.rows):
        print(goal)


if __name__ == "__main__":
    main()
