"""Named lists of tasks. A name in `tasks` is a task id or a family, which stands for all of its tasks."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from kleval import paper
from kleval.types import UsageError


@dataclass(frozen=True, slots=True)
class Suite:
    """What is not None, the user's own options override: limit, samples per task and length; ctx, lengths as `--ctx` takes
    them, and official_ctx, those of the official edition, whose generation budgets are larger; temperature. edition: the
    one that the suite is of; None leaves it to the user.

    repeats: task -> the answers per sample that a paper's number is the mean of. A run asks every task equally often, so it
    is for the record: such a task is run by itself with `--repeats`.
    """

    name: str
    description: str
    tasks: tuple[str, ...]
    limit: int | None = None
    edition: str | None = None
    ctx: str | None = None
    official_ctx: str | None = None
    temperature: float | None = None
    repeats: Mapping[str, int] = field(default_factory=dict)

    def lengths(self, edition: str) -> str | None:
        """The lengths that it is asked at when the user names none; None leaves the command's own."""
        return (self.official_ctx if edition == "official" else None) or self.ctx


# The columns of arXiv 2510.26692, Table 5.
_LONG = ("ruler", "mrcr", "helmet_icl", "longbench2", "frames", "repoqa", "lca")
_NEEDLES = (
    *(f"ruler/niah_{kind}" for kind in ("single_1", "single_2", "single_3", "multikey_1", "multikey_2", "multikey_3")),
    *("ruler/niah_multivalue", "ruler/niah_multiquery", "ruler/vt"),
)
_MORE = "BABILong, OOLONG, NoLiMa"
_EIGHT = "RULER, MRCR, HELMET-ICL, LongBench v2, FRAMES, RepoQA, Long Code Arena"

# The short benchmarks of Tables 3, 4 and 8 that run no generated code; CRUXEval's outputs are compared instead of run.
_SHORT = (
    *paper.tasks("3", code=False),
    "short/cruxeval_output_cot",
    *(task for task in paper.tasks("4", code=False) if task not in paper.tasks("3")),
    *(task for task in paper.tasks("8", code=False) if task not in (*paper.tasks("3"), *paper.tasks("4"))),
)
_BUILTIN = "4k"  # no prompt grows with ctx: one length is enough
_BASE = "8k"  # MMLU-Pro: five worked examples and 2,048 tokens
_SOLUTION = "32k"  # LiveCodeBench: 16,384 tokens
_SOLUTIONS = "64k"  # AIME, HMMT and PolyMath may take 32,768 tokens to answer


def _repeats(table: str) -> dict[str, int]:
    return {task: row.repeats for row in paper.rows(table) if row.repeats > 1 for task in row.tasks}


SUITES: dict[str, Suite] = {
    suite.name: suite
    for suite in (
        Suite("long", f"the eight long-context columns of the paper: {_EIGHT}", _LONG),
        Suite("long-official", "the same on their official data", _LONG, edition="official"),
        Suite(
            "long-more",
            f"long-context benchmarks that the paper does not report: {_MORE}",
            ("babilong", "oolong", "nolima/full"),
        ),
        Suite(
            "smoke",
            "one sample of every long-context task at one length, to see that a model runs",
            _LONG,
            limit=1,
            ctx="2k",
            official_ctx="8k",
        ),
        Suite(
            "needles",
            "RULER's needle and tracking tasks",
            _NEEDLES,
            ctx="1k-8k*2",
        ),
        Suite(
            "graph",
            "GraphWalks: searches and parents in graphs as long as the context",
            ("graphwalks",),
            ctx="2k-128k*2",
        ),
        Suite("synthetic", "palindromes, MQAR and stacks (the paper's section 5.1) in words", ("synthetic",)),
        Suite(
            "short",
            "the paper's short benchmarks, without those that run generated code",
            _SHORT,
            ctx=_BUILTIN,
            official_ctx=_SOLUTIONS,
        ),
        Suite(
            "paper-base",
            "the paper's Table 3, base models, with its shots at temperature 1",
            paper.tasks("3"),
            ctx=_BUILTIN,
            official_ctx=_BASE,
            temperature=paper.TEMPERATURE,
        ),
        Suite(
            "paper-sft",
            "the paper's Table 4, models after SFT, at temperature 1",
            paper.tasks("4"),
            ctx=_BUILTIN,
            official_ctx=_SOLUTIONS,
            temperature=paper.TEMPERATURE,
            repeats=_repeats("4"),
        ),
        Suite(
            "paper-released-base",
            "the paper's Table 8, the released base model, with its shots at temperature 1",
            paper.tasks("8"),
            ctx=_BUILTIN,
            official_ctx=_SOLUTION,
            temperature=paper.TEMPERATURE,
            repeats=_repeats("8"),
        ),
        Suite(
            "paper-released",
            "the paper's Table 9, the released model, at temperature 1, without RULER at 128k and 1M",
            tuple(task for task in paper.tasks("9") if task != "ruler"),
            ctx=_BUILTIN,
            official_ctx=_SOLUTIONS,
            temperature=paper.TEMPERATURE,
            repeats=_repeats("9"),
        ),
    )
}


def suite(name: str) -> Suite:
    """The suite of that name; UsageError with the nearest names when there is none."""
    if name in SUITES:
        return SUITES[name]
    near = difflib.get_close_matches(name, SUITES, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(SUITES)}"
    raise UsageError(f"unknown suite {name!r}: {hint}")
