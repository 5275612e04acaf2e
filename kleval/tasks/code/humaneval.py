"""HumanEval+ (EvalPlus, evalplus/humanevalplus, MIT / Apache-2.0, arXiv 2305.01210): finish a function from its docstring.

Protocol `lm-eval-0.4.13` is lm-eval's humaneval_plus: the prompt alone, greedy, the answer put after it and run with the
problem's tests. Protocol `lm-eval-0.4.13-instruct` is its humaneval_instruct on the same data, for chat models: the answer
is made to begin with the function's head, and ends at the fence.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks import tables
from kleval.tasks.code import files, isolated_tests
from kleval.tasks.code.task import LM_EVAL, OWN, Benchmark, CodeTask, Problem, user
from kleval.tasks.registry import check_protocol

INSTRUCT = f"{LM_EVAL}-instruct"
_STOP = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")


def load(edition: str, protocol: str | None, data_dir: Path | None) -> CodeTask:
    task_id = "code/humaneval_plus"
    known = (LM_EVAL, INSTRUCT) if edition == "official" else (OWN,)
    protocol = check_protocol(f"{task_id} ({edition})", protocol, known)
    instruct = protocol == INSTRUCT
    place = ("humaneval_plus", ("test", "humanevalplus"))
    make = partial(_problem, instruct)
    problems, revision, digest = files.of_edition(task_id, edition, place, "completions", make, data_dir)
    benchmark = Benchmark(max_new_tokens=1024, stop=_STOP, grade=partial(_grade, instruct))
    return CodeTask(task_id, benchmark, problems, edition=edition, protocol=protocol, revision=revision, digest=digest)


def _problem(instruct: bool, where: str, row: dict[str, Any]) -> Problem:
    prompt, tests, name = (tables.text(where, row, field) for field in ("prompt", "test", "entry_point"))
    text, prefix = prompt, ""
    if instruct:
        text = (
            "Write a solution to the following problem and make sure that it passes the tests:\n"
            f"```python\n{prompt}\n```\n"
        )
        prefix = f"Here is the completed function:\n```python\n{prompt}\n"
    return Problem(
        name=str(row.get("task_id", name)),
        plain=text,
        chat=user(text),
        data={"prompt": prompt, "tests": f"{tests}\ncheck({name})", "function": name},
        solution=str(row.get("canonical_solution", "")),
        prefix=prefix,
    )


def _grade(instruct: bool, problem: Problem, answers: Sequence[str]) -> tuple[dict[str, float], Any]:
    written = answers[0].partition("```")[0] if instruct else answers[0]
    data = problem.data
    head = f"{data['prompt']}\n    pass\n"
    found = isolated_tests.verdict(f"{data['prompt']}{written}", data["tests"], head, data["function"])
    return {"pass@1": float(found.passed)}, found.reason
