"""Every builtin task: right answers score 1 and others 0, its items are true, and its prompts hold no answer to themselves."""

from __future__ import annotations

import ast
import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks import packaged
from kleval.tasks.registry import load_task
from kleval.tasks.short import builtin
from kleval.tasks.short.form import placed
from kleval.tasks.short.question import Item
from kleval.tasks.short.task import ShortTask
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, Failure, Prompt, Request, Sample, Score, Unfit, UsageError

WORDS = load_tokenizer("words")
CTX = 4096
FRUIT = ("apple", "banana", "pear", "plum", "orange", "peach")


class Chatting:
    """The word tokenizer with a chat template."""

    name, digest, chat_template_digest = WORDS.name, WORDS.digest, "chat"

    def encode(self, text: str) -> list[int]:
        return WORDS.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        return WORDS.decode(ids)

    def count(self, text: str) -> int:
        return WORDS.count(text)

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        assert not isinstance(prompt, str)
        return f"<user> {prompt[0]['content']} <assistant> {answer_prefix}"


def loaded(name: str) -> ShortTask:
    task = builtin.load(name)
    assert isinstance(task, ShortTask)
    return task


def made(task: ShortTask, n: int = 100) -> list[Sample]:
    return [sample for sample in task.samples(WORDS, CTX, n, 42) if isinstance(sample, Sample)]


def said(text: str) -> Completion:
    return Completion(text, 1, 1)


def likely(sample: Sample, requests: Sequence[Request], favourite: int) -> list[Completion]:
    """Answers of a model to which one choice is the likeliest, per character too."""
    return [
        replace(
            said(""),
            logprob_sum=-0.1 * len(request.continuation) if i == favourite else -9.0 * len(request.continuation),
        )
        for i, request in enumerate(requests)
    ]


def asked(task: ShortTask, sample: Sample) -> list[Request]:
    step = task.step(sample, ())
    assert not isinstance(step, Score | Failure)
    return list(step)


def scored(task: ShortTask, sample: Sample, outcomes: Sequence[Completion]) -> float:
    score = task.step(sample, outcomes)
    assert isinstance(score, Score)
    return score.metrics[task.metric]


def item_of(task: ShortTask, sample: Sample) -> Item:
    return task._benchmark.items[sample.index]


@pytest.mark.parametrize("name", builtin.NAMES)
def test_right_answers_score_one_and_others_nothing(name: str) -> None:
    task = loaded(name)
    samples = made(task)
    assert len(samples) >= 8
    for sample in samples:
        requests = asked(task, sample)
        if requests[0].kind == "loglikelihood":
            gold = sample.meta["gold"]
            assert scored(task, sample, likely(sample, requests, gold)) == 1
            for other in range(len(requests)):
                if other != gold:
                    assert scored(task, sample, likely(sample, requests, other)) == 0
            continue
        # What a shot would show is a right answer, cut where the stops cut it.
        answer = item_of(task, sample).answer
        for stop in sample.stop:
            answer = answer.partition(stop)[0]
        assert scored(task, sample, [said(answer)]) == 1
        for wrong in ("", " ", "no idea", "nothing \\boxed{no}", "#### 123456789", "The answer is (Z)."):
            assert scored(task, sample, [said(wrong)]) == 0


@pytest.mark.parametrize("name", builtin.NAMES)
def test_samples_are_the_same_each_time_and_fit(name: str) -> None:
    first, second = made(loaded(name)), made(loaded(name))
    assert first == second
    assert len({sample.id for sample in first}) == len(first)
    assert all(sample.prompt_tokens + sample.max_new_tokens <= CTX for sample in first)
    assert made(loaded(name), 3) == first[:3]


@pytest.mark.parametrize("name", builtin.NAMES)
def test_a_shot_is_never_the_question_itself(name: str) -> None:
    task = loaded(name)
    benchmark = task._benchmark
    questions = {item.text for item in benchmark.items}
    assert len(questions) == len(benchmark.items)
    for item in benchmark.items:
        assert item.text not in {shot.text for shot in benchmark.pool(item)}
    assert not questions & {shot.text for shot in benchmark.shots}


@pytest.mark.parametrize("name", builtin.NAMES)
def test_a_budget_holds_the_longest_right_answer(name: str) -> None:
    task = loaded(name)
    if task._shape.read is not None:
        longest = max(WORDS.count(item.answer) for item in (*task._benchmark.items, *task._benchmark.shots))
        assert {sample.max_new_tokens for sample in made(task)} == {math.ceil(longest * 1.5) + 16}


@pytest.mark.parametrize(("name", "shots"), [("lm_eval/mmlu:5shot", 5), ("lm_eval/gsm8k:8shot", 8), ("lm_eval/bbh", 3)])
def test_shots_stand_before_the_question_and_are_shared(name: str, shots: int) -> None:
    task = loaded(name)
    groups: dict[str, list[str]] = {}
    for sample in made(task):
        assert isinstance(sample.prompt, str)
        item = item_of(task, sample)
        assert sample.prompt.endswith(item.text)
        groups.setdefault(item.group, []).append(sample.prompt.removesuffix(item.text))
        assert sample.meta["shots"] == task.shots == shots
    for heads in groups.values():
        assert len(set(heads)) == 1
        assert heads[0].count("\n\n") >= shots


def test_no_shots_are_shown_where_none_are_asked_for() -> None:
    for sample in made(loaded("lm_eval/gsm8k:0shot")):
        assert isinstance(sample.prompt, str)
        assert sample.prompt.count("Question:") == 1


def test_the_two_sentences_of_winogrande_differ_and_their_ends_do_not() -> None:
    task = loaded("lm_eval/winogrande:5shot")
    for sample in made(task):
        requests = asked(task, sample)
        assert len({request.prompt for request in requests}) == 2
        assert len({request.continuation for request in requests}) == 1
        assert all(isinstance(request.prompt, str) for request in requests)


def test_acc_is_by_sum_and_acc_norm_per_character() -> None:
    task = loaded("lm_eval/hellaswag")
    seen = 0
    for sample in made(task):
        gold, lengths = sample.meta["gold"], [len(choice) for choice in sample.meta["choices"]]
        short = lengths.index(min(lengths))
        if 1.1 * lengths[short] >= lengths[gold]:
            continue
        rates = [-100.0] * 4
        rates[gold], rates[short] = -1.0, -1.1
        sums = [rate * length for rate, length in zip(rates, lengths, strict=True)]
        score = task.step(sample, [replace(said(""), logprob_sum=value) for value in sums])
        assert isinstance(score, Score)
        assert (score.metrics["acc"], score.metrics["acc_norm"]) == (0, 1)
        seen += 1
    assert seen


def test_a_choice_without_a_probability_is_a_failure() -> None:
    task = loaded("lm_eval/mmlu")
    assert isinstance(task.step(made(task)[0], [said("")] * 4), Failure)


def test_groups_have_scores_of_their_own() -> None:
    task = loaded("lm_eval/mmlu")
    sample = made(task)[0]
    score = task.step(sample, likely(sample, asked(task, sample), sample.meta["gold"]))
    assert isinstance(score, Score)
    assert score.metrics[f"acc {sample.meta['group']}"] == 1


def test_what_does_not_fit_is_told_and_never_cut() -> None:
    found = list(loaded("lm_eval/gsm8k:8shot").samples(WORDS, 50, 3, 0))
    assert found
    assert all(isinstance(one, Unfit) for one in found)
    least = min(one.minimum_tokens for one in found if isinstance(one, Unfit))
    assert any(isinstance(one, Sample) for one in loaded("lm_eval/gsm8k:8shot").samples(WORDS, least, 10, 0))


def test_a_chat_template_makes_the_prompt_a_message() -> None:
    task = loaded("lm_eval/mmlu:5shot")
    sample = next(iter(task.samples(Chatting(), CTX, 1, 0)))
    assert isinstance(sample, Sample)
    assert not isinstance(sample.prompt, str)
    assert [request.continuation for request in asked(task, sample)] == ["A", "B", "C", "D"]
    assert all(request.prompt == sample.prompt for request in asked(task, sample))


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("lm_eval/arc_easy", "--edition official, or take lm_eval/arc_challenge"),
        ("lm_eval/gsm8k:8", "--edition official"),
        ("lm_eval/mmlu:99shot", "at most"),
    ],
)
def test_what_there_is_not_is_one_line(name: str, part: str) -> None:
    with pytest.raises(UsageError, match=part) as caught:
        builtin.load(name)
    assert "\n" not in str(caught.value)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match="kleval-1"):
        builtin.load("lm_eval/gsm8k", "kleval-2")


def test_the_registry_knows_the_short_family() -> None:
    for name in builtin.NAMES:
        if name.startswith("short/"):
            assert load_task(name).id == name


def test_the_programs_return_what_their_items_say() -> None:
    for code, arguments, output in packaged.load("short/items.toml")["programs"]:
        scope: dict[str, object] = {}
        exec(code, scope)  # noqa: S102
        assert eval(f"f({arguments})", scope) == ast.literal_eval(output)  # noqa: S307


def test_the_boolean_expressions_have_the_values_that_are_said() -> None:
    values = [item for item in loaded("lm_eval/bbh")._benchmark.items if item.group == "boolean_expressions"]
    assert values
    for item in values:
        expression = item.text.removeprefix("Q: ").partition(" is\n")[0]
        assert str(eval(expression)) == item.references[0]  # noqa: S307


def test_words_are_sorted_and_fruit_is_counted() -> None:
    benchmark = loaded("lm_eval/bbh")._benchmark
    for item in (*benchmark.shots, *benchmark.items):
        asked_text = item.text.partition("\n")[0]
        if item.group == "word_sorting":
            assert " ".join(sorted(asked_text.partition("words: ")[2].split())) == item.references[0]
        if item.group == "object_counting":
            assert item.references[0] == str(sum(fruit in asked_text for fruit in FRUIT))


def test_elementary_sums_are_right() -> None:
    for name in ("lm_eval/mmlu", "short/mmlu_redux"):
        benchmark = loaded(name)._benchmark
        for item in (*benchmark.shots, *benchmark.items):
            if item.group == "elementary_mathematics":
                question, *options, _ = item.text.split("\n")
                a, b = (int(word.strip("?")) for word in question.split() if word.strip("?").isdigit())
                values = [int(option[3:]) for option in options]
                assert values[item.gold] == a * b
                assert len(set(values)) == 4


def latex(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def root(n: int) -> str:
    square = max(d for d in range(1, n + 1) if n % (d * d) == 0)
    rest = n // square**2
    return str(square) if rest == 1 else f"{square if square > 1 else ''}\\sqrt{{{rest}}}"


# What questions of `computed.toml` look like (# for a number) -> their answer.
COMPUTED: dict[str, Callable[..., object]] = {
    "Mia buys # notebooks for # dollars each and a bag for # dollars.": lambda n, price, more: n * price + more,
    "# children share # marbles": lambda children, total: total % children,
    "Omar has # dollars and saves # dollars a week. How many dollars does he have after # weeks": lambda a, b, n: (
        a + b * n
    ),
    "fills # trays with # rolls each and sells # rolls": lambda trays, each, sold: trays * each - sold,
    "drives # hours at # km per hour and then # km more": lambda hours, speed, rest: hours * speed + rest,
    "Solve $#x + # = #$": lambda a, b, right: (right - b) // a,
    "Compute $\\frac{#}{#} + \\frac{#}{#}$": lambda a, b, c, d: latex(Fraction(a, b) + Fraction(c, d)),
    "sides $#$ and $#$. How long is its diagonal": lambda a, b: root(a * a + b * b),
    "can $#$ people be chosen from $#$": lambda k, n: math.comb(n, k),
    "area of a disc of radius $#$": lambda r: f"{r * r}\\pi",
    "the remainder when $#^{#}$ is divided by $#$": pow,
    "How many positive divisors does $#$ have": lambda n: sum(n % d == 0 for d in range(1, n + 1)),
    "the sum of the first $#$ odd positive integers": lambda n: sum(range(1, 2 * n, 2)),
    "a grid from $(#,#)$ to $(#,#)$": lambda _, __, a, b: math.comb(a + b, b),
    "the probability that the sum is at least $#$": lambda least: latex(
        Fraction(sum(a + b >= least for a in range(1, 7) for b in range(1, 7)), 36)
    ),
    "$\\sum_{k=1}^{#} \\frac{1}{k(k+1)}$": lambda n: latex(Fraction(n, n + 1)),
    "an equilateral triangle of side $#$": lambda side: f"{side**2 // 4 if side > 2 else ''}\\sqrt{{3}}",
    "小明有#个苹果，吃了#个": lambda a, b: a - b,
    "教室里有#排座位，每排#个": lambda a, b: a * b,
    "老师把#支铅笔平均分给#个同学": lambda a, b: a // b,
    "一辆汽车每小时行#千米，#小时": lambda a, b: a * b,
    "一根绳子长#米，第一次用去#米，第二次用去#米": lambda a, b, c: a - b - c,
}


@pytest.mark.parametrize(
    "name", ["gsm8k", "gsm8k_platinum", "minerva_math", "minerva_math500", "aime25", "hmmt25", "polymath_en", "cmath"]
)
def test_computed_answers_are_those_of_their_questions(name: str) -> None:
    rows = packaged.load("short/computed.toml")[name]
    asked = [" ".join(map(str, row[:-1])) for row in rows]
    assert len(set(asked)) == len(asked)
    for question, right in zip(asked, [row[-1] for row in rows], strict=True):
        said = [
            [compute(*map(int, found.groups()))]
            for form, compute in COMPUTED.items()
            if (found := re.search(re.escape(form).replace("\\#", r"(-?\d+)"), question))
        ]
        assert said == [[right if isinstance(said[0][0], str) else int(right)]], question
        for left, value in re.findall(r"((?:\d+ [-+*] )+\d+) = (\d+)", question):
            assert eval(left) == int(value)  # noqa: S307


def test_every_level_of_polymath_comes_in_turn() -> None:
    levels = [item.group for item in loaded("short/polymath_en")._benchmark.items]
    assert levels == ["low", "medium", "high", "top"] * 3


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 500), st.integers(1, 9))
def test_the_right_option_is_where_it_is_said_to_be(number: int, n_wrong: int) -> None:
    options, gold = placed("right", [f"wrong {i}" for i in range(n_wrong)], number)
    assert options[gold] == "right"
    assert len(options) == n_wrong + 1


def test_right_letters_are_spread() -> None:
    for name in (
        "lm_eval/mmlu",
        "lm_eval/ceval-valid",
        "lm_eval/hellaswag",
        "lm_eval/winogrande",
        "lm_eval/arc_challenge",
    ):
        golds = [item.gold for item in loaded(name)._benchmark.items]
        assert max(map(golds.count, golds)) <= len(golds) * 0.6


def test_changed_items_are_a_new_revision() -> None:
    h = hashlib.sha256("".join(builtin.load(name).data_digest for name in builtin.NAMES).encode())
    assert (builtin.REVISION, h.hexdigest()[:16]) == ("kleval-short-1", "a3775970344a134b")
