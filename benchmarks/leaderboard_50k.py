"""What `kleval leaderboard` takes over one cell of many fractional scores: CPU seconds and peak memory of the whole command.

    python benchmarks/leaderboard_50k.py [--rows 50000]

The run directory is made here: the given number of answers of one model to one task, scores drawn from a skewed distribution. Every
row is read and checked, so most of the time is reading; the interval is `abc`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from common import MIB, print_environment

TASK, CTX = "ruler/vt", 4096
START = {"status": "running", "started": "2026-01-01T00:00:00+00:00"}


def write_run(folder: Path, n: int) -> None:
    from kleval.store import Row, RunStore
    from kleval.store.records import to_line

    rng = random.Random(0)
    about = {"edition": "builtin", "protocol": "nvidia-c3f5e3b"}
    with RunStore.create(
        folder, {**START, "models": {"one@nano": {}}, "tasks": {TASK: about}, "settings": {}}
    ) as store:
        outcome = {
            "kind": "generate",
            "text": "an answer",
            "finish_reason": "eos",
            "output_tokens": 3,
            "temperature": 0.0,
        }
        lines = [
            Row(
                model="one@nano",
                id=f"{TASK}/{index}",
                task=TASK,
                ctx=CTX,
                index=index,
                repeat=0,
                **about,
                task_version="1",
                data_revision="1",
                data_digest="d" * 64,
                prompt_hash=f"{index:064x}",
                prompt_tokens=CTX - 32,
                max_new_tokens=32,
                references=("the answer",),
                metric="string_match_all",
                score=round(rng.random() ** 2, 4),
                outcomes=(outcome,),
            )
            for index in range(n)
        ]
        store.append(lines[0])
        (file,) = (folder / "samples").rglob("*.jsonl")
        with file.open("ab") as out:  # not appended one by one: what is measured is reading
            out.writelines(to_line(row) for row in lines[1:])
        store.update(status="complete")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        write_run(folder, given.rows)
        command = [sys.executable, "-m", "kleval", "leaderboard", str(folder), "--format", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    (row,) = json.loads(done.stdout)
    print_environment()
    print(
        f"rows         {row['n']}\n"
        f"interval     {row['ci_method']}: {row['value']} [{row['ci_low']}, {row['ci_high']}]\n"
        f"CPU          {spent.ru_utime + spent.ru_stime:.1f} s (goal 3 s)\n"
        f"peak memory  {spent.ru_maxrss * (1 if sys.platform == 'darwin' else 1024) / MIB:.0f} MiB (goal 300 MiB)"
    )


if __name__ == "__main__":
    main()
