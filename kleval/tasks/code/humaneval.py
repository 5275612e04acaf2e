"""HumanEval+ (EvalPlus, evalplus/humanevalplus, MIT / Apache-2.0, arXiv 2305.01210): finish a function from its docstring.

Protocol `lm-eval-0.4.13` is lm-eval's humaneval_plus: the prompt alone, greedy, the answer put after it and run with the
problem's tests. Protocol `lm-eval-0.4.13-instruct` is its humaneval_instruct on the same data, for chat models: the answer
is made to begin with the function's head, and ends at the fence.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from kleval.tasks import packaged, tables
from kleval.tasks.code import files, isolated_tests
from kleval.tasks.code.task import LM_EVAL, Problem, Reading, user

INSTRUCT = f"{LM_EVAL}-instruct"


def _problem(protocol: str, where: str, row: dict[str, Any]) -> Problem:
    prompt, tests, name = (tables.text(where, row, field) for field in ("prompt", "test", "entry_point"))
    text, prefix = prompt, ""
    if protocol == INSTRUCT:
        words = packaged.load("code/prompts.toml")["humaneval"]
        text, prefix = words["instruct"].format(prompt=prompt), words["prefix"].format(prompt=prompt)
    return Problem(
        name=str(row.get("task_id", name)),
        plain=text,
        chat=user(text),
        data={"prompt": prompt, "tests": f"{tests}\ncheck({name})", "function": name},
        solution=str(row.get("canonical_solution", "")),
        prefix=prefix,
    )


def _grade(protocol: str, problem: Problem, answers: Sequence[str]) -> Reading:
    written = answers[0].partition("```")[0] if protocol == INSTRUCT else answers[0]
    data = problem.data
    head = f"{data['prompt']}\n    pass\n"
    found = isolated_tests.verdict(f"{data['prompt']}{written}", data["tests"], head, data["function"])
    return {"pass@1": float(found.passed)}, found.reason


load = partial(files.load, "humaneval_plus", _problem, _grade)
