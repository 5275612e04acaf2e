"""What `kleval plan` says of a run on this machine's CPU beside what that run takes: the measured rates are a profile's, made in turns.

    python benchmarks/plan_against_run.py [--rounds 2] [--ctx 4k,16k] [--limit 4]

Each round profiles kimi-linear@nano, plans the run by the rows of that profile, and runs it on samples that were made before, in
processes of one thread. A run's time is that of its session: from before its first request to after its last row. On a machine that
does other work both times are taken by the share of a processor that their process had; the times of clocks stand beside.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from statistics import median

from common import print_environment

GOAL = 0.25


def kleval(*words: str) -> tuple[str, float]:
    """What it writes to stdout, and the share of a processor that it had."""
    command = [sys.executable, "-m", "kleval", *words]
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as out:
        done = subprocess.Popen(
            command, stdout=out, stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        _, status, spent = os.wait4(done.pid, 0)
        done.returncode = os.waitstatus_to_exitcode(status)
        share = (spent.ru_utime + spent.ru_stime) / (time.monotonic() - began)
        if done.returncode:
            sys.exit(f"kleval {' '.join(words)} failed")
        out.seek(0)
        return out.read(), share


def session_seconds(folder: Path) -> float:
    session = json.loads((folder / "run.json").read_text("utf-8"))["sessions"][-1]
    began, ended = (datetime.fromisoformat(session[name]) for name in ("started", "finished"))
    return (ended - began).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ctx", default="4k,16k")
    parser.add_argument("--limit", default="4")
    parser.add_argument("--tasks", default="ruler/niah_single_1,ruler/vt,ruler/qa_1")
    parser.add_argument("--time-budget", default="40s")
    given = parser.parse_args()
    asked = ["--model", "kimi-linear", "--tasks", given.tasks, "--ctx", given.ctx, "--limit", given.limit]
    print_environment()
    print(
        "round  planned CPU s  took CPU s  took / planned  by the clock s, planned and took  tokens written, planned and asked"
    )
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        cache = ["--sample-cache", str(root / "samples"), "--workers", "0"]
        kleval("run", *asked, *cache, "--out", str(root / "first"))
        for n in range(given.rounds):
            profile, run = str(root / f"profile-{n}"), root / f"run-{n}"
            budget = ["--time-budget", given.time_budget, "--out", profile]
            _, of_profile = kleval("profile", "--model", "kimi-linear", "--ctx", given.ctx, *budget)
            _, of_run = kleval("run", *asked, *cache, "--out", str(run))
            *_, last = kleval("plan", *asked, "--measured", profile, "--json")[0].splitlines()
            planned = json.loads(last)
            clocks = 3600 * planned["wall_hours"][0], session_seconds(run)
            seconds, took = clocks[0] * of_profile, clocks[1] * of_run
            spent = json.loads((run / "run.json").read_text("utf-8"))["sessions"][-1]["spent"]
            ratios.append(took / seconds)
            print(
                f"{n + 1:>5}  {seconds:>13.1f}  {took:>10.1f}  {ratios[-1]:>14.2f}  {clocks[0]:.1f} {clocks[1]:.1f}"
                f"  {planned['written']:,} {spent['output_tokens']:,}",
                flush=True,
            )
    off = median(ratios) - 1
    print(
        f"median {median(ratios):.2f}: {off:+.0%} (goal: within {GOAL:.0%}: {'reached' if abs(off) <= GOAL else 'missed'})"
    )


if __name__ == "__main__":
    main()
