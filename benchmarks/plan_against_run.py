"""What `kleval plan` says of a run on this machine's CPU beside what that run takes: the rates are those of a profile made just before.

    python benchmarks/plan_against_run.py [--rounds 2] [--ctx 4k,16k] [--limit 4] [--time-budget 40s]

Each round profiles kimi-linear@nano, plans the run by the rows of that profile, and runs it on samples that were made before, in
processes of one thread. All times are CPU seconds, the profile's too, so that other work on the machine does not count; what the same
command takes once nothing is left to ask (starting, tables, the page) is taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from common import ONE_THREAD, print_environment

GOAL = 0.25
CPU_CLOCK = "import time; time.perf_counter = time.process_time; from kleval.cli.main import main; main()"


def kleval(*words: str) -> tuple[str, float]:
    """What it writes to stdout, and its CPU seconds."""
    command = [sys.executable, "-c", CPU_CLOCK, *words]
    with tempfile.TemporaryFile("w+") as out:
        done = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=os.environ | ONE_THREAD)
        _, status, spent = os.wait4(done.pid, 0)
        done.returncode = os.waitstatus_to_exitcode(status)
        if done.returncode:
            sys.exit(f"kleval {' '.join(words)} failed")
        out.seek(0)
        return out.read(), spent.ru_utime + spent.ru_stime


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
    print("round  planned s  took s  took / planned  tokens written, planned and asked", flush=True)
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        cache = ["--sample-cache", str(root / "samples"), "--workers", "0"]
        kleval("run", *asked, *cache, "--out", str(root / "first"))
        for n in range(given.rounds):
            profile, run = str(root / f"profile-{n}"), root / f"run-{n}"
            budget = ["--time-budget", given.time_budget, "--out", profile]
            kleval("profile", "--model", "kimi-linear", "--ctx", given.ctx, "--prefill", "full", *budget)
            whole, rest = (kleval("run", *asked, *cache, "--out", str(run))[1] for _ in range(2))
            *_, last = kleval("plan", *asked, "--measured", profile, "--json")[0].splitlines()
            planned = json.loads(last)
            seconds, took = 3600 * planned["wall_hours"][0], whole - rest
            spent = json.loads((run / "run.json").read_text("utf-8"))["sessions"][0]["spent"]
            ratios.append(took / seconds)
            tokens = f"{planned['written']:,} {spent['output_tokens']:,}"
            print(f"{n + 1:>5}  {seconds:>9.1f}  {took:>6.1f}  {ratios[-1]:>14.2f}  {tokens}", flush=True)
    off = median(ratios) - 1
    reached = "reached" if abs(off) <= GOAL else "missed"
    print(f"median {median(ratios):.2f}: {off:+.0%} (goal: within {GOAL:.0%}: {reached})")


if __name__ == "__main__":
    main()
