"""MBPP+ (EvalPlus, evalplus/mbppplus, Apache-2.0, arXiv 2305.01210): write a function from a sentence and three assertions.

Protocol `lm-eval-0.4.13` is lm-eval's mbpp_plus: three worked examples, greedy, the answer run with the three assertions that
the prompt shows. Protocol `lm-eval-0.4.13-instruct` is its mbpp_plus_instruct, without examples. Neither runs the tests that
EvalPlus adds; protocol `evalplus-tests` asks as the first and runs those (`test` in the data).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from kleval.sandbox import Limits
from kleval.tasks import packaged, tables
from kleval.tasks.code import files, isolated_tests, running
from kleval.tasks.code.task import LM_EVAL, Problem, Reading, user
from kleval.types import UsageError

INSTRUCT = f"{LM_EVAL}-instruct"
EVALPLUS = "evalplus-tests"
_FENCED = re.compile(r"```(?:\w+)?\n?(.*?)\n?```", re.DOTALL)
# EvalPlus: 4 GiB; for each input 4 s or four times the solution's own, for a problem 60 s in all, and a second to end.
_EVALPLUS_LIMITS = Limits(seconds=61.0, memory_bytes=4 << 30)


def _problem(protocol: str, where: str, row: dict[str, Any]) -> Problem:
    asked = tables.text(where, row, "prompt" if "prompt" in row else "text")
    tests = tables.texts(where, row, "test_list")
    if len(tests) < 3:
        raise UsageError(f"{where}: test_list must hold three assertions or more")
    name = str(row.get("task_id", where.rpartition(" ")[2]))
    code = str(row.get("code", ""))
    if protocol == INSTRUCT:
        words = packaged.load("code/prompts.toml")["mbpp"]
        text = words["instruct"].format(asked=asked, test=tests[0])
        return Problem(name, text, user(text), {"tests": tests[0], "code": code}, code, words["prefix"])
    turns: list[Mapping[str, str]] = []
    for shot in files.bank("mbpp_shots"):
        turns.append({"role": "user", "content": _ask(shot["text"], shot["test_list"])})
        turns.append({"role": "assistant", "content": f"{shot['code']}\n[DONE]"})
    turns.append({"role": "user", "content": _ask(asked, tests)})
    plain = "".join(turn["content"] + ("\n\n" if turn["role"] == "assistant" else "") for turn in turns)
    checked = tables.text(where, row, "test") if protocol == EVALPLUS else "\n".join(tests[:3])
    return Problem(name, plain, tuple(turns), {"tests": checked, "code": code}, f"{code}\n[DONE]" if code else "")


def _ask(text: str, tests: Sequence[str]) -> str:
    said: str = packaged.load("code/prompts.toml")["mbpp"]["ask"].format(text=text, tests="\n".join(tests[:3]))
    return said


def fenced(answer: str) -> str:
    """The first fenced block, the fence of the answer's prefix counted; empty when there is none. As lm-eval does it."""
    found = _FENCED.findall(f"```{answer}") or _FENCED.findall(answer.replace("```python", "```"))
    return found[0] if found else ""


def _grade(protocol: str, problem: Problem, answers: Sequence[str]) -> Reading:
    written = fenced(answers[0]) if protocol == INSTRUCT else answers[0]
    limits = _EVALPLUS_LIMITS if protocol == EVALPLUS else running.LIMITS
    found = isolated_tests.verdict(written, problem.data["tests"], problem.data["code"], limits=limits)
    return {"pass@1": float(found.passed)}, found.reason


load = partial(files.load, "mbpp_plus", _problem, _grade)
