"""The same prompts, programs and verdicts as lm-eval's own tasks, to the sample; on answers made up for the purpose."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval import sandbox
from kleval.tasks.code import cruxeval, mbpp
from kleval.tasks.code.running import verdict
from kleval.tasks.registry import load_task
from kleval.types import Completion, Score

lm_eval = pytest.importorskip("lm_eval")
isolated = pytest.mark.skipif(bool(sandbox.available()), reason=f"no isolation here: {sandbox.available()}")
TASKS_FOLDER = Path(lm_eval.__file__).parent / "tasks"


@pytest.fixture(scope="module")
def no_download() -> Any:
    """lm-eval's code tasks load `code_eval` from the hub when they are imported; nothing here runs it."""
    module = types.ModuleType("evaluate")
    module.load = lambda name: types.SimpleNamespace(compute=lambda **options: ({"pass@1": 0.0}, {}))  # type: ignore[attr-defined]
    kept = sys.modules.get("evaluate")
    sys.modules["evaluate"] = module
    yield
    sys.modules.pop("evaluate")
    if kept is not None:
        sys.modules["evaluate"] = kept


def official_utils(folder: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"official_{folder}", TASKS_FOLDER / folder / "utils.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def theirs(name: str, row: dict[str, Any], chat: bool) -> tuple[Any, Any]:
    """lm-eval's context for the row (text, or messages), and its task object."""
    datasets = pytest.importorskip("datasets")
    from kleval.tasks.lm_eval import loading

    data = datasets.DatasetDict({"test": datasets.Dataset.from_list([row])})
    task = loading._build(name, data)
    doc = task.task_docs[0]
    context = task.fewshot_context(
        doc,
        num_fewshot=task.config.num_fewshot or 0,
        system_instruction=None,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        chat_template=(lambda messages, **options: json.dumps(messages)) if chat else None,
        gen_prefix=task.doc_to_prefix(doc),
    )
    return (json.loads(context) if chat else context), task


HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def f(x):\n    """doc\n    """\n',
    "entry_point": "f",
    "canonical_solution": "    return 1\n",
    "test": "def check(c):\n    assert c(1) == 1\n",
}
MBPP = {
    "task_id": 2,
    "code": "def f(x): return x",
    "prompt": "Write f.",
    "test_list": ["assert f(1)==1", "assert f(2)==2", "assert f(3)==3", "assert f(4)==4"],
    "test": "assert f(9)==9",
}
CRUX = {"code": "def f(x):\n    return x + 'a'", "input": "'b'", "output": "'ba'", "id": "sample_0"}
CASES = [
    ("humaneval_plus", "code/humaneval_plus", "lm-eval-0.4.13", HUMANEVAL, "humaneval_plus/test.jsonl"),
    ("humaneval_instruct", "code/humaneval_plus", "lm-eval-0.4.13-instruct", HUMANEVAL, "humaneval_plus/test.jsonl"),
    ("mbpp_plus", "code/mbpp_plus", "lm-eval-0.4.13", MBPP, "mbpp_plus/test.jsonl"),
    ("mbpp_plus_instruct", "code/mbpp_plus", "lm-eval-0.4.13-instruct", MBPP, "mbpp_plus/test.jsonl"),
    ("cruxeval_input_cot", "code/cruxeval_input_cot", "lm-eval-0.4.13", CRUX, "cruxeval/cruxeval.jsonl"),
    ("cruxeval_output_cot", "code/cruxeval_output_cot", "lm-eval-0.4.13", CRUX, "cruxeval/cruxeval.jsonl"),
]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize(("name", "task_id", "protocol", "row", "file"), CASES)
def test_prompts_and_settings_are_theirs(
    name: str, task_id: str, protocol: str, row: Any, file: str, chat: bool, tmp_path: Path, no_download: None
) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(json.dumps(row) + "\n")
    task: Any = load_task(task_id, "official", protocol, tmp_path)
    problem, benchmark = task.problems[0], task.benchmark
    context, official = theirs(name, row, chat)
    if chat:
        messages = [dict(message) for message in problem.chat]
        ours = [*messages, {"role": "assistant", "content": problem.prefix}] if problem.prefix else messages
    else:
        ours = problem.plain + problem.prefix
    assert ours == context
    given_kwargs = official.config.generation_kwargs
    assert list(benchmark.stop) == given_kwargs["until"]
    assert benchmark.max_new_tokens == given_kwargs.get("max_gen_toks", 256)
    assert benchmark.temperature == given_kwargs.get("temperature", 0.0)
    assert benchmark.top_p == given_kwargs.get("top_p", 1.0)
    assert benchmark.repeats == official.config.repeats
    if not name.startswith("cruxeval"):
        assert problem.data["tests"] == official.doc_to_target(official.task_docs[0])


ANSWERS = (
    "[ANSWER]\nassert f('b') == 'ba'\n[/ANSWER]",
    "thoughts [ANSWER] assert f('b') == 'ba'",
    "[ANSWER]f('b') == 'ba'[/ANSWER] more [ANSWER]x",
    "'ba'",
    '[ANSWER]\n"ba"\n',
    "assert f('b') == 'b' + 'a' # why",
    "[ANSWER]\nassert f(\n'b'\n) == 'ba'\n",
    "f('b')",
    "[ANSWER]assert f(('b')) == 'ba'",
    "[ANSWER]assert f('(') == 'ba'",
    "assert f",
    "assert f ('b') == 'ba'",
    "assert f()",
    "",
    "==",
    "[ANSWER]",
    "[ANSWER]x='b'[/ANSWER]",
    "[ANSWER]assert f(x='b') == 'ba'",
    "[/ANSWER] assert f(chr(98)) == 'ba'",
)
PIECES = st.sampled_from(
    ["[ANSWER]", "[/ANSWER]", "assert f(", "assert f", "f(", "(", ")", "==", "'", '"', "b", "#", "\n", " ", "a", ","]
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=14).map("".join) | st.sampled_from(ANSWERS))
def test_programs_are_read_from_answers_as_they_do(answer: str) -> None:
    official = CRUXEVAL_UTILS
    assert cruxeval.test_of_output(CRUX, answer) == official.extract_code_output(CRUX, answer, True)
    assert cruxeval.test_of_input(CRUX, answer) == official.extract_code_input(CRUX, answer, True)


CRUXEVAL_UTILS = official_utils("cruxeval")


@pytest.mark.slow
@isolated
def test_verdicts_are_theirs_to_the_sample(fixtures_dir: Path) -> None:
    """On CRUXEval's own functions: right, wrong and unreadable answers in both directions."""
    file = fixtures_dir.parent / "data" / "cruxeval" / "cruxeval.jsonl"
    if not file.is_file():
        pytest.skip("CRUXEval's data are not here")
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    shapes = (
        "[ANSWER]\nassert f({input}) == {output}\n",
        "[ANSWER]{output}[/ANSWER]",
        "[ANSWER]assert f(1) == 1",
        "f({input})",
    )
    for number, row in enumerate(rows[5:800:100]):
        for made, official in (
            (cruxeval.test_of_output, CRUXEVAL_UTILS.extract_code_output),
            (cruxeval.test_of_input, CRUXEVAL_UTILS.extract_code_input),
        ):
            answer = shapes[number % 4].format(**row)
            program = official(row, answer, True)
            assert made(row, answer) == program
            assert verdict(program).passed == CRUXEVAL_UTILS.check_correctness(program, timeout=3), program


@pytest.mark.slow
@isolated
def test_scores_are_theirs(tmp_path: Path) -> None:
    (tmp_path / "cruxeval").mkdir()
    row = {"code": "def f(x):\n    return x * 2", "input": "3", "output": "6", "id": "a"}
    (tmp_path / "cruxeval" / "cruxeval.jsonl").write_text(json.dumps(row) + "\n")
    answers = [f"[ANSWER]assert f({n}) == {2 * n}" for n in (3, 3, 1, 3, 4, 5, 6, 7, 8, 9)]
    from kleval.tokenization import load_tokenizer

    for direction, wanted in (("input", [1, 5]), ("output", [1])):
        task = load_task(f"code/cruxeval_{direction}_cot", "official", None, tmp_path)
        sample = next(iter(task.samples(load_tokenizer("words"), 8192, 1, 0)))
        score = task.step(sample, [Completion(answer, 1, 1) for answer in answers])  # type: ignore[arg-type]
        build = getattr(CRUXEVAL_UTILS, f"build_predictions_{direction}_cot")
        expected = CRUXEVAL_UTILS.pass_at_k([""], build([answers], [row]), wanted)
        assert isinstance(score, Score)
        assert dict(score.metrics) == pytest.approx(expected)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["```", "```python", "\n", "x = 1", " ", "`", "text"]), max_size=10).map("".join))
def test_fenced_code_is_read_as_they_do(answer: str) -> None:
    assert mbpp.fenced(answer) == MBPP_UTILS.extract_code_blocks(answer)


def _mbpp_utils() -> Any:
    kept = sys.modules.get("evaluate")
    sys.modules["evaluate"] = types.SimpleNamespace(  # type: ignore[assignment]
        load=lambda name: types.SimpleNamespace(compute=lambda **options: ({"pass@1": 0.0}, {}))
    )
    try:
        return official_utils("mbpp")
    finally:
        sys.modules.pop("evaluate")
        if kept is not None:
            sys.modules["evaluate"] = kept


MBPP_UTILS = _mbpp_utils()
