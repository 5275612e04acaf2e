"""The shapes of the short benchmarks: description, shots, stops, metric. They follow lm-eval 0.4.13's tasks where it has
them; the descriptions' words are kleval's where a benchmark's own are not part of what models are known to be asked."""

from __future__ import annotations

from kleval.tasks.short import answers
from kleval.tasks.short.items.reasoning import DESCRIPTIONS
from kleval.tasks.short.question import Shape

# MathArena's and PolyMath's own words.
BOXED = "\n\nPlease reason step by step, and put your final answer within \\boxed{}."
# To the byte as QwenLM/PolyMath has it (instruction.py), escaped brackets included.
POLYMATH_NOTE = "\nNote: Please put the final answer in the $\\boxed\\{\\}$."
PLAIN_POLYMATH_NOTE = "\nNote: Please put the final answer in the $\\boxed{}$."  # the builtin edition's
SOLUTION_TOKENS = 32768  # as lm-eval's aime25
CMATH_TOKENS = 512
CRUXEVAL_TOKENS = 1024
PAPER_TEMPERATURE = 1.0


def _exam(subject: str) -> str:
    about = subject.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {about}.\n\n"


def _ceval(subject: str) -> str:
    return f"以下是中国关于{subject}的单项选择题，请选出其中的正确答案。\n\n"


def _cmmlu(subject: str) -> str:
    return f"以下是关于{subject}的单项选择题，请直接给出正确答案的选项。\n\n"


def _professional(group: str) -> str:
    return (
        "The following are multiple choice questions (with answers). Think step by step and then finish your answer with "
        '"the answer is (X)" where X is the correct letter choice.\n'
    )


def _graduate(group: str) -> str:
    return "Questions from experts follow. Answer the last one in the form of those before it.\n"


def _hard(kind: str) -> str:
    return f"{DESCRIPTIONS[kind]}\n\n"


def _cruxeval(group: str) -> str:
    return (
        "You are given a Python function and an assertion with an input of it. Say what the function returns as a literal, "
        "without operations or calls, even if the function is wrong. Go through the program step by step first, then write "
        "the whole assertion between [ANSWER] and [/ANSWER].\n\n"
    )


CONTINUATION = Shape("acc_norm")
PRONOUN = Shape("acc")
EXAM = Shape("acc", describe=_exam, by_group=True)
EXAM_GENERATED = Shape(
    "exact_match,get_response", answers.first_line, describe=_exam, stop=("</s>", "\n"), by_group=True
)
REDUX_GENERATED = Shape("exact_match,default", answers.first_letter, describe=_exam, stop=("</s>",), by_group=True)
GRADUATE_REASONED = Shape("exact_match,strict-match", answers.bracketed, stop=("</s>",))
REDUX = Shape("acc", describe=_exam, by_group=True, shots=5)
GRADUATE = Shape("acc_norm", describe=_graduate)
CEVAL = Shape("acc_norm", describe=_ceval, by_group=True)
CMMLU = Shape("acc_norm", describe=_cmmlu, by_group=True)
TRIVIA = Shape("exact_match,remove_whitespace", answers.alias, stop=("\n", ".", ","))
PROFESSIONAL = Shape("exact_match,custom-extract", answers.option, _professional, stop=("Question:",), shots=5)
HARD = Shape("exact_match,get-answer", answers.reasoned, _hard, stop=("</s>", "Q", "\n\n"), shots=3, by_group=True)
STORIES = Shape("exact_match,strict-match", answers.stories, stop=("Question:", "</s>", "<|im_end|>"), shots=5)
EXERCISES = Shape("exact_match", answers.minerva, stop=("Problem:",), shots=4)
COMPETITION = Shape("exact_match", answers.solution, stop=("Question:", "</s>", "<|im_end|>"))
TOURNAMENT = Shape("exact_match", answers.solution, max_new_tokens=SOLUTION_TOKENS, temperature=PAPER_TEMPERATURE)
LEVELLED = Shape(
    "exact_match",
    answers.solution,
    by_group=True,
    max_new_tokens=SOLUTION_TOKENS,
    temperature=PAPER_TEMPERATURE,
)
WORD_PROBLEM = Shape(
    "exact_match",
    answers.word_problem,
    stop=("\n\n", "问题："),
    shots=6,
    by_group=True,
    max_new_tokens=CMATH_TOKENS,
    temperature=PAPER_TEMPERATURE,
)
PROGRAM = Shape(
    "exact_match",
    answers.literal,
    _cruxeval,
    stop=("[/ANSWER]",),
    max_new_tokens=CRUXEVAL_TOKENS,
    temperature=PAPER_TEMPERATURE,
)
