"""Runs a fake command again and again, killing it (SIGKILL) at random moments, until it finishes by itself.

argv: run directory, number of kills, seed. Prints the bytes of rows that were there after each kill.
An attempt is killed at a random moment after it has written a random number of rows, none included, so that the kills
are spread over the whole run however fast the machine is. Every attempt is a fork: the harness is imported once.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from harness_fakes import Choice, EchoBackend, OneCall, TwoStep, loader, spec

from kleval.harness import run

ROW_BYTES = 40_000
TASKS = (OneCall(), TwoStep(), Choice())


def attempt(out: Path) -> int:
    backend = EchoBackend(seconds=0.004, batch=3, padding="é" * 20_000, shuffle=random.Random())
    changes = {"tasks": tuple(task.id for task in TASKS), "limit": 10, "repeats": 2, "window_tokens": 100}
    return run(spec(out, **changes), lambda name: backend, loader(*TASKS)).exit_code


def main() -> None:
    out, kills, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    after: list[int] = []
    while True:
        target = size(out) + ROW_BYTES * rng.choice([0, 0, 1, 2, 3, 5])
        child = os.fork()
        if child == 0:
            os._exit(attempt(out))
        if len(after) < kills:
            # Without a row to wait for, the kill comes at any time from the fork to some rows later.
            moment = time.monotonic() + (rng.uniform(0, 0.1) if target == size(out) else 0)
            while (time.monotonic() < moment or size(out) < target) and not exited(child):
                time.sleep(0.0005)
            time.sleep(rng.uniform(0, 0.006))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            if os.WEXITSTATUS(status):
                sys.exit(os.WEXITSTATUS(status))
            break
        after.append(size(out))
    print(*after)


def size(out: Path) -> int:
    return sum(file.stat().st_size for file in out.glob("samples/*/*.jsonl"))


def exited(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


if __name__ == "__main__":
    main()
