"""Benchmarks of the Kimi Linear paper (arXiv 2510.26692, Tables 3, 4, 5, 8 and 9), and the task that asks each.

Per row: what kleval asks it with (task ids, shots, metric), how the paper sampled it, the scores it prints, and what
differs; or why there is no task. Scores are in per cent. Tables 3 to 5 are of models after 1.4T tokens, none of which was
released; Tables 8 and 9 of the released ones after 5.7T beside Moonlight 16B-A3B. The paper samples everything at temperature
1.0, takes the mean of several answers where it says Avg@k, and scores base models by likelihood on MMLU, MMLU-Redux,
GPQA-Diamond and C-Eval. Its shots are printed in Table 8 alone, and taken from there for the base models of Table 3 too; what
it states nowhere is kleval's choice and marked so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kleval.types import UsageError

TEMPERATURE = 1.0
TABLES = {
    "3": "base, 1.4T tokens",
    "4": "after SFT, 1.4T tokens",
    "5": "long context, 128k, 1.4T tokens",
    "8": "released base, 5.7T tokens",
    "9": "released instruct, 5.7T tokens",
}
_COLUMNS = {
    "3": ("MLA", "GDN-H", "Kimi Linear"),
    "4": ("MLA", "GDN-H", "Kimi Linear"),
    "5": ("MLA", "GDN-H", "Kimi Linear (RoPE)", "Kimi Linear"),
    "8": ("Kimi Linear", "Moonlight"),
    "9": ("Kimi Linear", "Moonlight"),
}
_LONG_CTX = "128k"


@dataclass(frozen=True, slots=True)
class Row:
    """One benchmark of one table.

    tasks: task ids or families, several where the score is their mean; empty where there is none, and `note` says why.
    shots: as kleval asks. paper_shots: as Table 8 states for the benchmark, None where the paper does not.
    metric: the headline, as in the rows of results.
    repeats: the paper's Avg@k. ctx: for long context. scores: column -> per cent, None where the paper prints none.
    note: what differs from the paper, or why there is no task.
    """

    table: str
    benchmark: str
    tasks: tuple[str, ...]
    shots: int
    paper_shots: int | None
    metric: str
    repeats: int
    ctx: str
    scores: Mapping[str, float | None]
    note: str

    def record(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "table": self.table,
            "of": TABLES[self.table],
            "benchmark": self.benchmark,
            "tasks": list(self.tasks),
            "shots": self.shots if self.tasks else None,
            "paper_shots": self.paper_shots,
            "metric": self.metric,
            "temperature": TEMPERATURE,
            "repeats": self.repeats,
            "ctx": self.ctx,
            "scores": dict(self.scores),
            "note": self.note,
        }


_SHOTS = {  # Table 8
    "TriviaQA": 5,
    "SimpleQA": 5,
    "MMLU-Pro": 5,
    "MMLU-Redux": 5,
    "Winogrande": 5,
    "GPQA-Diamond": 5,
    "MATH": 4,
    "GSM8K": 8,
    "GSM8K-Platinum": 8,
    "CMATH": 6,
    "CRUXEval-I-cot": 0,
    "CRUXEval-O-cot": 0,
    "LiveCodeBench v6": 1,
    "C-Eval": 5,
    "CSimpleQA": 5,
}
_SAME_MODELS = ("3", "8")  # the tables of base models, which Table 8's shots are for
_CODE = "runs generated code: --allow-code-execution"
_EVALPLUS = f"mean of the two, MBPP+ with 3 examples; {_CODE}"
_LIKELIHOOD = "by likelihood, as the paper scores base models"
_GPQA = f"{_LIKELIHOOD}; one order of the choices, where the paper takes the mean of 8"
_LETTERS = "with `The answer is (X)`; the paper's prompt is not printed"


def _row(
    table: str,
    benchmark: str,
    tasks: str,
    shots: int,
    metric: str,
    scores: tuple[float | None, ...],
    note: str = "",
    repeats: int = 1,
    ctx: str = "",
) -> Row:
    columns = dict(zip(_COLUMNS[table], scores, strict=True))
    stated = _SHOTS.get(benchmark) if table in _SAME_MODELS else None
    return Row(table, benchmark, tuple(tasks.split()), shots, stated, metric, repeats, ctx, columns, note)


def _absent(table: str, benchmark: str, scores: tuple[float | None, ...], why: str) -> Row:
    return _row(table, benchmark, "", 0, "", scores, why)


def _long(benchmark: str, tasks: str, metric: str, scores: tuple[float | None, ...], note: str = "") -> Row:
    return _row("5", benchmark, tasks, 0, metric, scores, note, ctx=_LONG_CTX)


_RULER = "string_match_all / string_match_part"
_STRICT, _EXACT = "exact_match,strict-match", "exact_match"
_NO_JUDGE = "answers are graded by a judge model and its prompt, which lm-eval has no task for"

ROWS: tuple[Row, ...] = (
    _row("3", "HellaSwag", "lm_eval/hellaswag", 0, "acc_norm", (81.7, 82.2, 82.9)),
    _row("3", "ARC-Challenge", "lm_eval/arc_challenge", 0, "acc_norm", (64.6, 66.5, 67.3)),
    _row("3", "Winogrande", "lm_eval/winogrande:5shot", 5, "acc", (78.1, 77.9, 78.6)),
    _row("3", "BBH", "lm_eval/bbh", 3, "exact_match,get-answer", (71.6, 70.6, 72.9)),
    _row("3", "MMLU", "lm_eval/mmlu:5shot", 5, "acc", (71.6, 72.2, 73.8), _LIKELIHOOD),
    _row("3", "MMLU-Pro", "lm_eval/mmlu_pro", 5, "exact_match,custom-extract", (47.2, 47.9, 51.0)),
    _row("3", "TriviaQA", "lm_eval/triviaqa:5shot", 5, "exact_match,remove_whitespace", (68.9, 70.1, 71.7)),
    _row("3", "GSM8K", "lm_eval/gsm8k:8shot", 8, _STRICT, (83.7, 81.7, 83.9)),
    _row("3", "MATH", "lm_eval/minerva_math", 4, _EXACT, (54.7, 54.1, 54.7)),
    _row("3", "EvalPlus", "code/humaneval_plus code/mbpp_plus", 0, "pass@1", (59.5, 63.1, 60.2), _EVALPLUS),
    _row("3", "CRUXEval-I-cot", "code/cruxeval_input_cot", 0, "pass@1", (51.6, 56.0, 56.6), _CODE),
    _row("3", "CRUXEval-O-cot", "code/cruxeval_output_cot", 0, "pass@1", (61.5, 58.1, 62.0), _CODE),
    _row("3", "C-Eval", "lm_eval/ceval-valid:5shot", 5, "acc_norm", (79.3, 79.1, 79.5), "validation split"),
    _row("3", "CMMLU", "lm_eval/cmmlu:5shot", 5, "acc_norm", (79.5, 80.7, 80.8)),
    _row("4", "BBH", "lm_eval/bbh", 3, "exact_match,get-answer", (68.2, 68.5, 69.4)),
    _row("4", "MMLU", "lm_eval/mmlu_generative:5shot", 5, "exact_match,get_response", (75.7, 75.6, 77.0)),
    _row("4", "MMLU-Pro", "lm_eval/mmlu_pro", 5, "exact_match,custom-extract", (65.7, 64.8, 67.4)),
    _row("4", "MMLU-Redux", "lm_eval/mmlu_redux_generative", 0, "exact_match,default", (79.2, 78.7, 80.3)),
    _row("4", "GPQA-Diamond", "lm_eval/gpqa_diamond_cot_zeroshot", 0, _STRICT, (57.1, 58.6, 62.1), _LETTERS, 8),
    _absent(
        "4", "LiveBench", (45.7, 46.4, 45.2), "questions change and each kind has a grader of its own; not in lm-eval"
    ),
    _row("4", "AIME 2025", "lm_eval/aime25", 0, _EXACT, (20.6, 21.1, 21.3), repeats=64),
    _row("4", "MATH500", "lm_eval/minerva_math500", 4, _EXACT, (80.8, 83.0, 81.2)),
    _row("4", "HMMT 2025", "short/hmmt25", 0, _EXACT, (11.3, 11.3, 12.5), "February 2025, 30 problems", 32),
    _row("4", "PolyMath-en", "short/polymath_en", 0, _EXACT, (41.3, 41.5, 43.6), "plain accuracy, not DW-ACC", 4),
    _row("4", "LiveCodeBench v6", "code/livecodebench_v6", 0, "pass@1", (25.1, 25.4, 26.0), _CODE),
    _row("4", "EvalPlus", "code/humaneval_plus code/mbpp_plus", 0, "pass@1", (62.6, 62.5, 61.0), _EVALPLUS),
    _long("RULER", "ruler", _RULER, (81.3, 80.5, 78.8, 84.3), "all 13 tasks; the paper does not say which"),
    _long("MRCR", "mrcr", "match", (22.6, 23.9, 22.0, 29.6), "2, 4 and 8 needles; the paper does not say which"),
    _long("HELMET-ICL", "helmet_icl", "exact_match", (88.0, 85.5, 88.0, 90.0)),
    _long("LongBench v2", "longbench2/mcq", "accuracy", (36.1, 32.6, 35.4, 35.0)),
    _long(
        "FRAMES",
        "frames/oracle",
        "accuracy",
        (60.5, 58.7, 59.9, 58.8),
        "pages given; --protocol judge --judge-model NAME",
    ),
    _long("RepoQA", "repoqa/snf", "pass@0.8", (63.0, 63.0, 66.5, 68.5)),
    _long("Long Code Arena: Lib", "lca/lib", "api_recall", (32.8, 34.7, 31.3, 37.1)),
    _long("Long Code Arena: Commit", "lca/commit", "chrf", (33.2, 30.5, 32.5, 32.7)),
    _row("8", "TriviaQA", "lm_eval/triviaqa:5shot", 5, "exact_match,remove_whitespace", (75.2, 66.2)),
    _absent("8", "SimpleQA", (10.1, 5.6), _NO_JUDGE),
    _row("8", "MMLU-Pro", "lm_eval/mmlu_pro", 5, "exact_match,custom-extract", (54.8, 42.4)),
    _row("8", "MMLU-Redux", "short/mmlu_redux", 5, "acc", (79.7, 73.8), _LIKELIHOOD),
    _row("8", "Winogrande", "lm_eval/winogrande:5shot", 5, "acc", (81.5, 74.6)),
    _row("8", "GPQA-Diamond", "lm_eval/gpqa_diamond_n_shot:5shot", 5, "acc_norm", (40.4, 35.2), _GPQA, 8),
    _row("8", "MATH", "lm_eval/minerva_math", 4, _EXACT, (58.5, 45.3)),
    _row("8", "GSM8K", "lm_eval/gsm8k:8shot", 8, _STRICT, (86.3, 77.2)),
    _row("8", "GSM8K-Platinum", "lm_eval/gsm8k_platinum:8shot", 8, _STRICT, (89.6, 79.4)),
    _row("8", "CMATH", "short/cmath", 6, _EXACT, (85.5, 79.6), "one problem of each grade shown"),
    _row("8", "CRUXEval-I-cot", "code/cruxeval_input_cot", 0, "pass@1", (61.0, 45.9), _CODE),
    _row("8", "CRUXEval-O-cot", "code/cruxeval_output_cot", 0, "pass@1", (67.0, 46.6), _CODE),
    _row("8", "LiveCodeBench v6", "code/livecodebench_v6", 0, "pass@1", (20.0, 14.3), _CODE),
    _row("8", "EvalPlus", "code/humaneval_plus code/mbpp_plus", 0, "pass@1", (64.9, 50.3), _EVALPLUS),
    _row("8", "C-Eval", "lm_eval/ceval-valid:5shot", 5, "acc_norm", (83.3, 77.6), "validation split"),
    _absent("8", "CSimpleQA", (53.5, 34.7), _NO_JUDGE),
    _row("9", "RULER, 128k", "ruler", 0, _RULER, (95.4, None), ctx="128k"),
    _row("9", "RULER, 1M", "ruler", 0, _RULER, (94.8, None), ctx="1m"),
    _row("9", "GPQA-Diamond", "lm_eval/gpqa_diamond_cot_zeroshot", 0, _STRICT, (71.7, 24.7), _LETTERS, 8),
    _row("9", "MMLU-Redux", "lm_eval/mmlu_redux_generative", 0, "exact_match,default", (86.9, 66.9)),
    _row("9", "MMLU-Pro", "lm_eval/mmlu_pro", 5, "exact_match,custom-extract", (72.7, 43.8)),
    _absent("9", "FaithJudge", (64.2, 56.0), "summaries are graded by a judge model with examples; not in lm-eval"),
    _row("9", "AIME 2025", "lm_eval/aime25", 0, _EXACT, (58.6, None), repeats=64),
    _row("9", "MATH500", "lm_eval/minerva_math500", 4, _EXACT, (94.6, 58.0)),
    _row("9", "HMMT 2025", "short/hmmt25", 0, _EXACT, (44.5, None), "February 2025, 30 problems", 32),
    _row("9", "LiveCodeBench v6", "code/livecodebench_v6", 0, "pass@1", (45.7, 11.9), _CODE),
    _absent("9", "OJBench", (14.2, None), "needs the judge servers of two contests' problems, in C++ and Python"),
    _row("9", "HumanEval+", "code/humaneval_plus", 0, "pass@1", (70.9, 46.3), _CODE),
    _row("9", "MBPP+", "code/mbpp_plus", 3, "pass@1", (72.4, 56.3), _CODE),
)


def rows(table: str | None = None) -> tuple[Row, ...]:
    """All rows, or those of one table. UsageError for a table that has none."""
    if table is None:
        return ROWS
    if table not in TABLES:
        raise UsageError(f"the paper's tables are {', '.join(TABLES)}, not {table!r}")
    return tuple(row for row in ROWS if row.table == table)


def tasks(table: str, code: bool = True) -> tuple[str, ...]:
    """Task ids of a table, in its order. code: with those that run what a model writes."""
    found = [task for row in rows(table) for task in row.tasks if code or not task.startswith("code/")]
    return tuple(dict.fromkeys(found))
