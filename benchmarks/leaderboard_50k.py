"""What stores of many rows take: `kleval leaderboard`, `report`, `compare` and `merge`, and the scan of a run that goes on. CPU seconds
and peak memory of the whole command, each in a process of its own.

    python benchmarks/leaderboard_50k.py [--rows 50000] [--cells 1] [--what leaderboard,report,resume,compare,merge] [--compacted]

The run directory is made here: the given number of answers of one model, scores drawn from a skewed distribution, in so many cells.
Every row is read and checked, so most of the time is reading; the interval is `abc`. Prompts are not stored.
compare: with a second run over the same samples, of which one in twenty failed, so that both bounds are taken. merge: of SHARDS shards
that have as many rows together.
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
SHARDS = 8
MODEL, START = "one@nano", {"status": "running", "started": "2026-01-01T00:00:00+00:00"}
ABOUT = {"edition": "builtin", "protocol": "nvidia-c3f5e3b"}
RESUME = """
import sys
from kleval.store import RunStore
print(RunStore.create(sys.argv[1], RunStore.open(sys.argv[1]).manifest).counts())
"""
GOALS = {50_000: "goals at 50,000 rows in one cell: 3 s, 300 MiB", 1_000_000: "goal at 1,000,000 rows: below 1,000 MiB"}


def write_run(folder: Path, n: int, cells: int = 1, seed: int = 0, failed: float = 0.0, shard: int = 0) -> None:
    """failed: share of the answers. shard: which of SHARDS it is, from 1; 0: the whole run."""
    from kleval.store import Row, RunStore
    from kleval.store.records import to_line

    rng = random.Random(seed)
    settings = {"shard": f"{shard}/{SHARDS}"} if shard else {}
    numbers = range(shard - 1, n // cells, SHARDS) if shard else range(n // cells)
    planned = [cells * len(range(first, n // cells, SHARDS)) for first in range(SHARDS)]
    manifest = {**START, "models": {MODEL: {}}, "tasks": dict.fromkeys(TASKS[:cells], ABOUT), "settings": settings}
    manifest["shards"] = planned if shard else None
    asked = {"kind": "generate", "temperature": 0.0}
    outcome = {**asked, "text": "an answer", "finish_reason": "eos", "output_tokens": 3}
    with RunStore.create(folder, manifest) as store:
        for cell in range(cells):
            task, ctx = TASKS[cell % len(TASKS)], SHORTEST * (1 + cell // len(TASKS))

            def row(index: int, task: str = task, ctx: int = ctx) -> Row:
                amiss = (
                    {"kind": "timeout", "message": "no answer in 600 s"} if failed and rng.random() < failed else None
                )
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
                    score=None if amiss else round(rng.random() ** 2, 4),
                    outcomes=({**asked, "failure": amiss} if amiss else outcome,),
                    failure=amiss,
                )

            first = row(numbers[0])
            store.append(first)
            with (folder / first.file).open("ab") as out:  # not appended one by one: what is measured is reading
                out.writelines(to_line(row(index)) for index in numbers[1:])
        store.update(status="complete", counts={"planned": cells * len(numbers)})


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
    parser.add_argument("--compacted", action="store_true", help="the runs are in their compact form (kleval compact)")
    given = parser.parse_args()
    kleval = [sys.executable, "-m", "kleval"]
    print_environment()
    print(f"rows {given.rows:,} in {given.cells} cells")
    with tempfile.TemporaryDirectory() as name:
        folder, other, merged, out = (Path(name) / part for part in ("run", "other", "merged", "out"))
        shards, whats = [Path(name) / "shards" / str(i) for i in range(1, SHARDS + 1)], given.what.split(",")
        if set(whats) != {"merge"}:
            write_run(folder, given.rows, given.cells)
        if "compare" in whats:
            write_run(other, given.rows, given.cells, seed=1, failed=0.05)
        for number, shard in enumerate(shards if "merge" in whats else (), 1):
            write_run(shard, given.rows, given.cells, seed=number, shard=number)
        for run in (folder, other, *shards):
            if given.compacted and run.exists():
                seconds, peak = measured([*kleval, "compact", str(run)], out)
                print(f"{'compact':<11}  CPU {seconds:>6.1f} s  of {run.name}  peak {peak:>5.0f} MiB")
        commands = {
            "leaderboard": [*kleval, "leaderboard", str(folder), "--format", "json"],
            "report": [*kleval, "report", str(folder), "--out", str(Path(name) / "page.html")],
            "compare": [*kleval, "compare", str(folder), str(other), "--format", "json"],
            "merge": [*kleval, "merge", str(shards[0].parent), "--out", str(merged)],
            "resume": [sys.executable, "-c", RESUME, str(folder)],
        }
        for what in whats:
            seconds, peak = measured(commands[what], out)
            print(
                f"{what:<11}  CPU {seconds:>6.1f} s  {1e6 * seconds / given.rows:>5.0f} us per row  peak {peak:>5.0f} MiB"
            )
            if what == "leaderboard":
                row = json.loads(out.read_text("utf-8"))[0]
                print(f"{'':<11}  interval {row['ci_method']}: {row['value']} [{row['ci_low']}, {row['ci_high']}]")
            if what == "report":
                print(f"{'':<11}  page {(Path(name) / 'page.html').stat().st_size / MIB:.1f} MiB")
            if what == "merge":
                print(f"{'':<11}  {json.loads((merged / 'run.json').read_text('utf-8'))['counts']}")
            if what == "compare":
                for line in json.loads(out.read_text("utf-8"))[-3:]:
                    print(f"{'':<11}  {line}")
    if goal := GOALS.get(given.rows):
        print(goal)


if __name__ == "__main__":
    main()
