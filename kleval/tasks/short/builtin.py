"""The builtin edition: every benchmark of the short suites with a handful of items of our own (`items/`).

They show that a model, a backend and the scoring work, and how fast they are. They are easy, few and public: their scores
are no estimate of the benchmark's, and every row says `builtin`. Nothing of lm-eval is needed.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable
from functools import cache

from kleval.tasks.registry import check_protocol
from kleval.tasks.short import shapes, task_ids
from kleval.tasks.short.items import chinese, choices, exams, reasoning, sums
from kleval.tasks.short.question import Benchmark
from kleval.tasks.short.task import ShortTask
from kleval.types import Task, UsageError

REVISION = "kleval-short-1"
PROTOCOL = "kleval-1"
SOURCES = {
    "hmmt25": "HMMT February 2025, MathArena/hmmt_feb_2025 (CC BY-NC-SA 4.0)",
    "polymath_en": "PolyMath, QwenLM/PolyMath @ fab12d6 (Apache-2.0), arXiv 2504.18428",
    "mmlu_redux": "MMLU-Redux 2.0, edinburgh-dawg/mmlu-redux-2.0 (CC BY 4.0), arXiv 2406.04127",
    "cmath": "CMATH, XiaoMi/cmath @ 06577be (data CC BY 4.0), arXiv 2306.16636",
    "cruxeval_output_cot": "CRUXEval, facebookresearch/cruxeval (MIT), arXiv 2401.03065",
}
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
        protocol=check_protocol(task_id, protocol, (PROTOCOL,)),
        revision=REVISION,
        digest=hashlib.sha256(benchmark.serialised()).hexdigest(),
        deviations=(*_DEVIATIONS, *benchmark.notes),
    )


def has(task_id: str) -> bool:
    """Whether there is a builtin edition of it, shots aside."""
    parsed = task_ids.parse(task_id)
    return parsed is not None and parsed[0] in _BENCHMARKS


def _source(name: str) -> str:
    family, _, task = name.partition("/")
    return f"lm-eval 0.4.13's {task}" if family == "lm_eval" else SOURCES[task]


@cache
def _benchmark(name: str) -> Benchmark:
    return _BENCHMARKS[name](name)


def _nearest(task_id: str) -> str:
    near = difflib.get_close_matches(task_id.partition(":")[0], NAMES, n=1)
    return f", or take {near[0]}" if near else ""


def _hellaswag(name: str) -> Benchmark:
    return Benchmark(name, "HellaSwag: how a scene goes on", _source(name), shapes.CONTINUATION, choices.scenes())


def _arc(name: str) -> Benchmark:
    return Benchmark(name, "ARC-Challenge: school science", _source(name), shapes.CONTINUATION, choices.science())


def _winogrande(name: str) -> Benchmark:
    made = choices.gaps()
    shots, items = made[: choices.WINOGRANDE_SHOTS], made[choices.WINOGRANDE_SHOTS :]
    return Benchmark(name, "Winogrande: what a gap stands for", _source(name), shapes.PRONOUN, items, shots)


def _mmlu(name: str) -> Benchmark:
    return Benchmark(name, "MMLU: exam questions by subject", _source(name), shapes.EXAM, exams.exam(1), exams.exam(0))


def _mmlu_generated(name: str) -> Benchmark:
    return Benchmark(name, "MMLU, generated letter", _source(name), shapes.EXAM_GENERATED, exams.exam(1), exams.exam(0))


def _redux_generated(name: str) -> Benchmark:
    return Benchmark(
        name, "MMLU-Redux, generated letter", _source(name), shapes.REDUX_GENERATED, exams.exam(2), exams.exam(0)
    )


def _redux(name: str) -> Benchmark:
    title = "MMLU-Redux by likelihood: exam questions by subject"
    return Benchmark(name, title, _source(name), shapes.REDUX, exams.exam(2), exams.exam(0))


def _mmlu_pro(name: str) -> Benchmark:
    made = exams.professional()
    shots, items = made[: exams.PRO_SHOTS], made[exams.PRO_SHOTS :]
    note = "shots are the same for all subjects; the benchmark has its own for each"
    return Benchmark(
        name, "MMLU-Pro: ten options, reasoning first", _source(name), shapes.PROFESSIONAL, items, shots, (note,)
    )


def _gpqa(name: str) -> Benchmark:
    made = exams.graduate()
    shots, items = made[: exams.GRADUATE_SHOTS], made[exams.GRADUATE_SHOTS :]
    return Benchmark(name, "GPQA-Diamond by likelihood: natural science", _source(name), shapes.GRADUATE, items, shots)


def _gpqa_reasoned(name: str) -> Benchmark:
    items = exams.graduate_reasoned()[exams.GRADUATE_SHOTS :]
    return Benchmark(
        name, "GPQA-Diamond: natural science, reasoning first", _source(name), shapes.GRADUATE_REASONED, items
    )


def _triviaqa(name: str) -> Benchmark:
    made = choices.trivia()
    shots, items = made[: choices.TRIVIA_SHOTS], made[choices.TRIVIA_SHOTS :]
    return Benchmark(name, "TriviaQA: short answers from memory", _source(name), shapes.TRIVIA, items, shots)


def _bbh(name: str) -> Benchmark:
    shots, items = reasoning.hard()
    note = "three kinds of subtask; the benchmark has 27"
    return Benchmark(name, "BIG-Bench Hard: reasoning first", _source(name), shapes.HARD, items, shots, (note,))


def _stories(title: str) -> Callable[[str], Benchmark]:
    def make(name: str) -> Benchmark:
        shots, items = sums.stories(name)
        return Benchmark(name, f"{title}: word problems", _source(name), shapes.STORIES, items, shots)

    return make


def _exercises(title: str) -> Callable[[str], Benchmark]:
    def make(name: str) -> Benchmark:
        shots, items = sums.exercises(name)
        return Benchmark(name, f"{title}: exercises in LaTeX", _source(name), shapes.EXERCISES, items, shots)

    return make


def _aime(name: str) -> Benchmark:
    return Benchmark(
        name, "AIME 2025: competition, whole numbers", _source(name), shapes.COMPETITION, sums.competition()
    )


def _hmmt(name: str) -> Benchmark:
    return Benchmark(
        name, "HMMT 2025: competition, expressions", _source(name), shapes.TOURNAMENT, sums.tournament(shapes.BOXED)
    )


def _polymath(name: str) -> Benchmark:
    title = "PolyMath in English: four levels"
    return Benchmark(name, title, _source(name), shapes.LEVELLED, sums.levelled(shapes.POLYMATH_NOTE))


def _ceval(name: str) -> Benchmark:
    shots, items = chinese.ceval()
    return Benchmark(name, "C-Eval: Chinese exam questions", _source(name), shapes.CEVAL, items, shots)


def _cmmlu(name: str) -> Benchmark:
    shots, items = chinese.cmmlu()
    return Benchmark(name, "CMMLU: Chinese exam questions", _source(name), shapes.CMMLU, items, shots)


def _cmath(name: str) -> Benchmark:
    shots, items = chinese.word_problems()
    return Benchmark(name, "CMATH: Chinese word problems", _source(name), shapes.WORD_PROBLEM, items, shots)


def _cruxeval(name: str) -> Benchmark:
    title = "CRUXEval-O: what a program returns, nothing is run"
    return Benchmark(name, title, _source(name), shapes.PROGRAM, reasoning.programs())


_BENCHMARKS: dict[str, Callable[[str], Benchmark]] = {
    "lm_eval/hellaswag": _hellaswag,
    "lm_eval/arc_challenge": _arc,
    "lm_eval/winogrande": _winogrande,
    "lm_eval/mmlu": _mmlu,
    "lm_eval/mmlu_generative": _mmlu_generated,
    "lm_eval/mmlu_redux_generative": _redux_generated,
    "lm_eval/mmlu_pro": _mmlu_pro,
    "lm_eval/gpqa_diamond_n_shot": _gpqa,
    "lm_eval/gpqa_diamond_cot_zeroshot": _gpqa_reasoned,
    "lm_eval/triviaqa": _triviaqa,
    "lm_eval/bbh": _bbh,
    "lm_eval/gsm8k": _stories("GSM8K"),
    "lm_eval/gsm8k_platinum": _stories("GSM8K-Platinum"),
    "lm_eval/minerva_math": _exercises("MATH"),
    "lm_eval/minerva_math500": _exercises("MATH500"),
    "lm_eval/aime25": _aime,
    "lm_eval/ceval-valid": _ceval,
    "lm_eval/cmmlu": _cmmlu,
    "short/mmlu_redux": _redux,
    "short/hmmt25": _hmmt,
    "short/polymath_en": _polymath,
    "short/cmath": _cmath,
    "short/cruxeval_output_cot": _cruxeval,
}
NAMES: tuple[str, ...] = tuple(_BENCHMARKS)
