"""`kleval demo`: quality and cost of two shipped models at the same lengths, and one page where both stand side by side."""

from __future__ import annotations

from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.console import note

MODELS, SUITE, CTX = "kimi-linear,mla", "needles", "1k-8k*2"


@click.command(short_help="Score and profile two small models; one page of both.")
@options.option("--limit", type=click.IntRange(min=1), default=2, help="Samples per task and length.")
@options.option(
    "--out",
    envvar="KLEVAL_DEMO_OUT",
    type=click.Path(path_type=Path),
    default=Path("demo"),
    metavar="DIR",
    help="A directory; the same command continues in it.",
)
def demo(limit: int, out: Path) -> int:
    """Ask two nano models RULER's needle and tracking tasks at 1k to 8k tokens, profile them there, and make one page of both.

    It takes minutes on a CPU; interrupted, the same command goes on where it stopped.
    """
    from kleval.cli.main import call

    run, profile, page = out / "run", out / "profile", out / "page.html"
    run_words = ["--suite", SUITE, "--ctx", CTX, "--limit", str(limit), "--out", str(run)]
    profile_words = ["--ctx", CTX, "--repeats", "3", "--prefill", "full", "--out", str(profile)]
    for words in (["run", "--model", MODELS, *run_words], ["profile", "--model", MODELS, *profile_words]):
        code = call(words)
        if code not in (0, 3):  # what is there is shown, with what failed in it
            return code
    note(f"other families: kleval run --model {MODELS} --suite long")
    note("quality and cost side by side:")
    return call(["report", str(run), str(profile), "--out", str(page)])
