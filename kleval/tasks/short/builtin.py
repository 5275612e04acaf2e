"""The builtin edition: every benchmark of the short suites with a handful of items of our own (`items/`).

They show that a model, a backend and the scoring work, and how fast they are. They are easy, few and public: their scores
are no estimate of the benchmark's, and every row says `builtin`. Nothing of lm-eval is needed.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from functools import cache, partial

from kleval.tasks.cards import Card
from kleval.tasks.registry import check_protocol
from kleval.tasks.short import answers, shapes, task_ids
from kleval.tasks.short.items import chinese, reasoning, sums, written
from kleval.tasks.short.question import Benchmark, Items, Shape
from kleval.tasks.short.task import ShortTask
from kleval.types import Task, UsageError

REVISION = "kleval-short-1"
PROTOCOL = "kleval-1"
MATHS_PROTOCOL = "kleval-2"  # answers compared by math-verify too; PolyMath's instruction to the byte
_DEVIATIONS = (
    "items of kleval's own in the benchmark's shape: few, easy and public; their scores do not compare with the benchmark's",
)


def load(task_id: str, protocol: str | None = None) -> Task:
    """The builtin edition of `lm_eval/NAME`, `short/NAME` or the same with `:Nshot`.

    UsageError for a name without one, naming --edition official, and for more shots than there are items to show.
    """
    parsed = task_ids.parse(task_id)
    if parsed is None or parsed[0] not in _BENCHMARKS:
        raise UsageError(f"{task_id} has no builtin edition: add --edition official{_nearest(task_id)}")
    name, shots = parsed
    benchmark = _benchmark(name)
    return ShortTask(
        task_id,
        benchmark,
        shots,
        edition="builtin",
        protocol=check_protocol(task_id, protocol, (protocol_of(benchmark.shape),)),
        revision=REVISION,
        digest=hashlib.sha256(benchmark.serialised()).hexdigest(),
        deviations=(*_DEVIATIONS, *benchmark.notes),
    )


def protocol_of(shape: Shape) -> str:
    """The one protocol in which a benchmark is asked."""
    return MATHS_PROTOCOL if shape.read in (answers.minerva, answers.solution) else PROTOCOL


def has(task_id: str) -> bool:
    """Whether there is a builtin edition of it, shots aside."""
    parsed = task_ids.parse(task_id)
    return parsed is not None and parsed[0] in _BENCHMARKS


def _source(name: str) -> str:
    family, _, task = name.partition("/")
    return f"lm-eval 0.4.13's {task}" if family == "lm_eval" else Card("short", (task,), "builtin", "").text("source")


@cache
def _benchmark(name: str) -> Benchmark:
    title, shape, make, *notes = _BENCHMARKS[name]
    shots, items = make()
    return Benchmark(name, title, _source(name), shape, items, shots, tuple(notes))


def _nearest(task_id: str) -> str:
    near = difflib.get_close_matches(task_id.partition(":")[0], NAMES, n=1)
    return f", or take {near[0]}" if near else ""


# Title, shape, what makes the items, what else differs from the benchmark.
_BENCHMARKS: dict[str, tuple[str, Shape, Callable[[], Items]] | tuple[str, Shape, Callable[[], Items], str]] = {
    "lm_eval/hellaswag": ("HellaSwag: how a scene goes on", shapes.CONTINUATION, written.scenes),
    "lm_eval/arc_challenge": ("ARC-Challenge: school science", shapes.CONTINUATION, written.science),
    "lm_eval/winogrande": ("Winogrande: what a gap stands for", shapes.PRONOUN, written.gaps),
    "lm_eval/mmlu": ("MMLU: exam questions by subject", shapes.EXAM, written.mmlu),
    "lm_eval/mmlu_generative": ("MMLU, generated letter", shapes.EXAM_GENERATED, written.mmlu),
    "lm_eval/mmlu_redux_generative": ("MMLU-Redux, generated letter", shapes.REDUX_GENERATED, written.mmlu_redux),
    "lm_eval/mmlu_pro": (
        "MMLU-Pro: ten options, reasoning first",
        shapes.PROFESSIONAL,
        written.professional,
        "shots are the same for all subjects; the benchmark has its own for each",
    ),
    "lm_eval/gpqa_diamond_n_shot": (
        "GPQA-Diamond by likelihood: natural science",
        shapes.GRADUATE,
        written.graduate,
    ),
    "lm_eval/gpqa_diamond_cot_zeroshot": (
        "GPQA-Diamond: natural science, reasoning first",
        shapes.GRADUATE_REASONED,
        written.graduate_reasoned,
    ),
    "lm_eval/triviaqa": ("TriviaQA: short answers from memory", shapes.TRIVIA, written.trivia),
    "lm_eval/bbh": (
        "BIG-Bench Hard: reasoning first",
        shapes.HARD,
        reasoning.hard,
        "three kinds of subtask; the benchmark has 27",
    ),
    "lm_eval/gsm8k": ("GSM8K: word problems", shapes.STORIES, partial(sums.stories, "lm_eval/gsm8k")),
    "lm_eval/gsm8k_platinum": (
        "GSM8K-Platinum: word problems",
        shapes.STORIES,
        partial(sums.stories, "lm_eval/gsm8k_platinum"),
    ),
    "lm_eval/minerva_math": (
        "MATH: exercises in LaTeX",
        shapes.EXERCISES,
        partial(sums.exercises, "lm_eval/minerva_math"),
    ),
    "lm_eval/minerva_math500": (
        "MATH500: exercises in LaTeX",
        shapes.EXERCISES,
        partial(sums.exercises, "lm_eval/minerva_math500"),
    ),
    "lm_eval/aime25": ("AIME 2025: competition, whole numbers", shapes.COMPETITION, sums.competition),
    "lm_eval/ceval-valid": ("C-Eval: Chinese exam questions", shapes.CEVAL, partial(written.chinese, "ceval")),
    "lm_eval/cmmlu": ("CMMLU: Chinese exam questions", shapes.CMMLU, partial(written.chinese, "cmmlu")),
    "short/mmlu_redux": ("MMLU-Redux by likelihood: exam questions by subject", shapes.REDUX, written.mmlu_redux),
    "short/hmmt25": (
        "HMMT 2025: competition, expressions",
        shapes.TOURNAMENT,
        partial(sums.tournament, shapes.BOXED),
    ),
    "short/polymath_en": (
        "PolyMath in English: four levels",
        shapes.LEVELLED,
        partial(sums.levelled, shapes.PLAIN_POLYMATH_NOTE),
    ),
    "short/cmath": ("CMATH: Chinese word problems", shapes.WORD_PROBLEM, chinese.word_problems),
    "short/cruxeval_output_cot": (
        "CRUXEval-O: what a program returns, nothing is run",
        shapes.PROGRAM,
        written.programs,
    ),
}
NAMES: tuple[str, ...] = tuple(_BENCHMARKS)
