"""CRUXEval with chain of thought (facebookresearch/cruxeval, MIT, arXiv 2401.03065): predict a function's output, or an
input that gives an output. A prediction is right when the assertion made of it holds.

Protocol `lm-eval-0.4.13`: prompts, ten answers at temperature 0.2, reading and scoring as lm-eval's cruxeval_input_cot and
cruxeval_output_cot (tasks/cruxeval, MIT), defects included. Protocol `kleval-1`: the same, but the predicted literal is
taken as it is written. Prompts are the benchmark's own.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from kleval.tasks import packaged, tables
from kleval.tasks.answers import asserted, equates
from kleval.tasks.code import files
from kleval.tasks.code.running import verdict
from kleval.tasks.code.task import LM_EVAL, Problem, Reading, pass_at_k

# What an input may be made with.
_MAKERS = {
    kind.__name__
    for kind in (bool, bytearray, bytes, complex, dict, float, frozenset, int, list, range, set, str, tuple)
}
_MAKERS |= {make.__name__ for make in (abs, chr, enumerate, len, max, min, ord, reversed, round, sorted, sum, zip)}

Reader = Callable[[dict[str, Any], str], str]


def _problem(backwards: bool, protocol: str, where: str, row: dict[str, Any]) -> Problem:
    code, given, result = (tables.text(where, row, name) for name in ("code", "input", "output"))
    about = packaged.load("code/prompts.toml")["cruxeval"]["input" if backwards else "output"]
    asked = f"f(??) == {result}" if backwards else f"f({given}) == ??"
    text = f"[PYTHON]\n{code}\nassert {asked}\n[/PYTHON]\n[THOUGHT]\n"
    return Problem(
        name=str(row.get("id", where.rpartition(" ")[2])),
        plain=about + text,
        chat=({"role": "system", "content": about}, {"role": "user", "content": text}),
        data={"code": code, "input": given, "output": result},
        solution=f"f is called.\n[/THOUGHT]\n[ANSWER]\nassert f({given}) == {result}\n",
    )


def _grade(backwards: bool, protocol: str, problem: Problem, answers: Sequence[str]) -> Reading:
    reader: Reader = partial(_own_test, backwards)
    if protocol == LM_EVAL:
        reader = test_of_input if backwards else test_of_output
    programs = [reader(dict(problem.data), answer) for answer in answers]
    found = {program: verdict(program) for program in dict.fromkeys(programs)}
    passed = sum(found[program].passed for program in programs)
    wanted = (1, 5) if backwards else (1,)
    scores = {f"pass@{k}": pass_at_k(len(programs), passed, k) for k in wanted if k <= len(programs)}
    asserted = [program[len(problem.data["code"]) + 1 :] for program in programs]
    extracted = [{"test": test, "result": found[p].reason} for test, p in zip(asserted, programs, strict=True)]
    return scores, extracted


def test_of_output(row: dict[str, Any], answer: str) -> str:
    """The program that lm-eval makes of an answer: the function, and the assertion that it gives what was predicted."""
    answer = _tagged(answer)
    predicted = (answer.split("==")[1] if "==" in answer else answer).strip()
    predicted = predicted.strip("\"'").split("\n")[0].split("#")[0].strip()
    return f"{row['code']}\nassert f({row['input']})=={predicted}"


def test_of_input(row: dict[str, Any], answer: str) -> str:
    """The same for a predicted input."""
    answer = _tagged(answer)
    if "assert f" in answer:
        predicted = _arguments(answer)
    elif "==" in answer:
        predicted = _left_side(answer)
    else:
        predicted = answer.strip()
        if predicted.startswith("f(") and predicted.endswith(")"):
            predicted = predicted[2:-1]
    predicted = predicted.split("\n")[0].split("#")[0].strip()
    return f"{row['code']}\nassert f({predicted})=={row['output']}"


def _tagged(answer: str) -> str:
    """What stands in the first pair of answer tags, else everything."""
    if "[ANSWER]" not in answer:
        return answer
    answer = answer.split("[ANSWER]")[1].strip()
    return answer.split("[/ANSWER]")[0].strip() if "[/ANSWER]" in answer else answer


def _left_side(answer: str) -> str:
    return answer.split("==")[0].replace("assert f", "").strip("()").strip()


def _arguments(answer: str) -> str:
    """What stands between the parentheses of the first `assert f(…)`, brackets in texts counted like any."""
    begin = answer.find("assert f(")
    if begin < 0:
        return _left_side(answer)
    begin += len("assert f(")
    depth = 1
    for at in range(begin, len(answer)):
        depth += (answer[at] == "(") - (answer[at] == ")")
        if depth == 0:
            return answer[begin:at].strip()
    return answer[begin:].split(")")[0].strip()


def _own_test(backwards: bool, row: dict[str, Any], answer: str) -> str:
    """The assertion as the model wrote it, with the side that was given put back; one that fails where what was predicted is
    no literal (an output), or more than plain values and what is made of them (an input): anything else could pass by
    calling f, or an object that equals everything.
    """
    line, left, right = _sides(_tagged(answer).strip().split("\n")[0], backwards)
    code = row["code"]
    if backwards and isinstance(left, ast.Call) and _is_plain(left, code):
        return f"{code}\nassert {ast.get_source_segment(line, left)}=={row['output']}"
    if not backwards and right is not None and _is_literal(right):
        return f"{code}\nassert f({row['input']})==({ast.get_source_segment(line, right)})"
    return f"{code}\nassert False, 'what is predicted is no plain value'"


def _sides(line: str, backwards: bool) -> tuple[str, ast.expr | None, ast.expr | None]:
    """What `assert LEFT == RIGHT` compares, and the text that it stands in. A line that is no comparison is the predicted
    side alone.
    """
    for form in (line, f"f({line}\n)") if backwards else (line,):
        made = asserted(form)
        if isinstance(made, ast.Compare):
            return (form, made.left, made.comparators[0]) if equates(made) else (form, None, None)
        if not backwards or (isinstance(made, ast.Call) and isinstance(made.func, ast.Name) and made.func.id == "f"):
            return form, made, made
    return line, None, None


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return False
    return True


def _is_plain(call: ast.Call, code: str) -> bool:
    """Whether f is called, with arguments made of values, operators, functions without names, harmless functions of
    Python's and what the code beside f defines.
    """
    given = {
        name.id
        for node in ast.parse(code).body
        if isinstance(node, ast.Assign)
        for name in node.targets
        if isinstance(name, ast.Name)
    }
    nodes = [node for part in (*call.args, *(word.value for word in call.keywords)) for node in ast.walk(part)]
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    hidden = any(isinstance(node, ast.Attribute) and node.attr.startswith("_") for node in nodes)
    return (
        used <= (own - {"f"}) | given | _MAKERS
        and not hidden
        and not any(isinstance(node, ast.NamedExpr) for node in nodes)
    )


input_cot = partial(files.load, "cruxeval_input_cot", partial(_problem, True), partial(_grade, True))
output_cot = partial(files.load, "cruxeval_output_cot", partial(_problem, False), partial(_grade, False))
