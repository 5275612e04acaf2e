"""What a page of 10,000 samples takes: seconds to build, bytes of the file, seconds until its sample browser answers.

    python benchmarks/sample_browser.py [--samples 10000] [--ctx 4k,128k] [--models 1] [--keep DIR]

The run directories are made here with the store that `kleval run` writes with: ten tasks, one to five needles in a prompt of four
characters per token, every prompt another one; each model answers each. What a page shows of a prompt is text with the statistics of a
language; between lies RULER's noise, which packs fast. Building is the whole of `kleval report DIR`, opening is from
the navigation to a `file://` page until the first samples are listed, and the processor time of all the browser's processes until then,
in a headless Chromium (`pip install playwright`, and chromium on PATH); without one only that is left out.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import length, print_environment, print_table, short

TASKS = [
    f"ruler/niah_{kind}" for kind in ("single_1", "single_2", "single_3", "multikey_1", "multikey_2", "multikey_3")
]
TASKS += [f"ruler/{kind}" for kind in ("niah_multivalue", "niah_multiquery", "vt", "qa_1")]
NEEDLES = {"ruler/niah_multivalue": 4, "ruler/niah_multiquery": 4, "ruler/vt": 5}
NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
GOALS = {"build, s": 10, "page, MB": 40, "open, s": 2}


def haystack(rng: random.Random, chars: int) -> str:
    """Sentences of pseudo-words with the frequencies of a natural language (Zipf), which compress by about half."""
    words = ["".join(rng.choices("etaoinshrdlucmfwypvbgkjqxz", k=rng.randint(2, 10))) for _ in range(4000)]
    weights = [1 / (rank + 3) for rank in range(len(words))]
    made: list[str] = []
    size = 0
    while size < chars:
        made.append(" ".join(rng.choices(words, weights, k=rng.randint(6, 24))).capitalize() + ".")
        size += len(made[-1]) + 1
    return " ".join(made)


def write(folder: Path, samples: int, ctx: int, models: int) -> None:
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from stored_runs import write_run

    chars = 4 * ctx
    hay = haystack(random.Random(0), 400_000)
    noise = NOISE * (chars // len(NOISE) + 1)

    def words(own: random.Random, n: int) -> str:
        begin = own.randrange(len(hay) - n)
        return hay[begin : begin + n]

    def prompt(model: str, task: str, ctx: int, index: int) -> str:
        own = random.Random(f"{task}{index}")
        n = NEEDLES.get(task, 1)
        needle = f" One of the special magic numbers for key-{index} is: 42. "
        filler = noise[: max(0, chars - 6000 - 2000 * n) // (n + 1)]
        around = [f"{filler}{words(own, 1000)}{needle}{words(own, 1000)}" for _ in range(n)]
        return f"{words(own, 3000)}{''.join(around)}{filler}{words(own, 3000)}\nWhat are the numbers for key-{index}?"

    write_run(
        folder,
        models=[f"model-{i}@nano" for i in range(models)],
        tasks=TASKS,
        ctxs=(ctx,),
        n=samples // len(TASKS),
        answer=lambda model, task, ctx, index: float((index + len(model)) % 3 > 0),
        prompt=prompt,
        text=lambda model, task, ctx, index: f"The numbers for key-{index} are {hay[index : index + 300]} and 42.",
    )


def spent() -> float:
    """Processor seconds of the processes that this one started and that are there."""
    import psutil

    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(time.user + time.system for time in times)


def opened(page: Path) -> tuple[float, float] | None:
    """Seconds, and processor seconds of the browser, all its processes together."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    browser = shutil.which("chromium")
    if browser is None:
        return None
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-quic"])
        shown = chromium.new_page()
        shown.set_default_timeout(120_000)  # a busy machine is no failure
        shown.goto("about:blank")
        started, before = time.perf_counter(), spent()
        shown.goto(page.as_uri())
        shown.wait_for_selector("#browser[data-ready]", state="attached")
        seconds, cpu = time.perf_counter() - started, spent() - before
        chromium.close()
        return seconds, cpu


def measured(folder: Path, samples: int, ctx: int, models: int) -> list[str]:
    if not (folder / "run.json").exists():
        write(folder, samples, ctx, models)
    page = folder / "report.html"
    command = [sys.executable, "-m", "kleval", "report", str(folder)]
    started = time.perf_counter()
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    shown = opened(page)
    size = page.stat().st_size / 1e6
    return [
        short(ctx),
        f"{samples * models:,}",
        f"{seconds:.1f}",
        f"{spent:.1f}",
        f"{size:.1f}",
        *(("not measured", "") if shown is None else (f"{shown[0]:.2f}", f"{shown[1]:.2f}")),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--models", type=int, default=1)
    parser.add_argument("--ctx", default="4k,128k")
    parser.add_argument("--keep", type=Path, help="where the run directories stay, to be used again")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = given.keep or Path(name)
        rows = [
            measured(home / f"{given.samples}x{given.models}-{ctx}", given.samples, length(ctx), given.models)
            for ctx in given.ctx.split(",")
        ]
    print_environment()
    print_table(["tokens", "answers", "build, s", "CPU, s", "page, MB", "open, s", "its CPU, s"], rows)
    print("goals: " + ", ".join(f"{what} below {most}" for what, most in GOALS.items()))


if __name__ == "__main__":
    main()
