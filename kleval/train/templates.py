"""Templates of the tasks: RULER's cut at the place where the text goes, for training samples, and the phrases of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from kleval.tasks.frames import official as frames_prompts
from kleval.tasks.helmet_icl.official import INSTRUCTION
from kleval.tasks.lca import prompts as lca_prompts
from kleval.tasks.longbench2 import official as exam_prompts
from kleval.tasks.mrcr import conversations
from kleval.tasks.repoqa import task as functions
from kleval.tasks.ruler.spec import NEEDLE, TEXTS


def _cut(form: str, **fields: str) -> tuple[str, str, str]:
    head, _, tail = TEXTS[form].question.partition("{context}")
    return head.format(**fields), tail.format(**fields), TEXTS[form].prefix.format(**fields)


def listed(items: Sequence[str]) -> str:
    """`a, b, and c`, as the questions list what they ask for."""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + f", and {items[-1]}"


def needle(kind: str, key: str, value: str) -> str:
    return NEEDLE.format(kind=kind, key=key, value=value)


def question(kind: str, asked: Sequence[str], n_answers: int) -> tuple[str, str, str]:
    """What comes before the text, after it, and the answer prefix, of a needle question. kind: `numbers` or `uuids`."""
    one = n_answers == 1
    fields = {"kind": kind[:-1] if one else kind, "query": listed(asked)}
    return _cut("one" if one else "many", **fields)


def track(value: str, n_names: int) -> tuple[str, str, str]:
    """The same for variable tracking."""
    return _cut("vt", value=value, count=str(n_names))


def common() -> tuple[str, str, str]:
    """The same for the most common words of a list."""
    return _cut("cwe")


def count() -> tuple[str, str, str]:
    """The same for coded words."""
    return _cut("fwe")


def article(query: str) -> tuple[str, str, str]:
    """The same for questions over documents."""
    return _cut("qa", query=query)


_HOLE = "\0"
_SHORT_MARKS = (
    " is:", "\nVAR", " = VAR", "\nlabel:", "\nUser:", "\nAssistant:", " (1 indexed)", "\n\nDocument", "The correct answer is (",
)  # fmt: skip


def phrases() -> list[str]:
    """What the tasks' templates say between their blanks, each once, longest first: tokens of the tokenizer."""

    def asked(kind: str) -> list[tuple[str, str, str]]:
        return [question(kind, [_HOLE], n) for n in (1, 4)]

    frames = [
        *(f"{head}{_HOLE}{tail}{_HOLE}{prefix}" for head, tail, prefix in (*asked("numbers"), *asked("uuids"))),
        *(needle(kind, _HOLE, _HOLE) for kind in ("numbers", "uuids")),
        TEXTS["vt"].question.format(context=_HOLE, value=_HOLE)
        + _HOLE
        + TEXTS["vt"].prefix.format(count=_HOLE, value=_HOLE),
        *(_HOLE.join((head, tail, prefix)) for head, tail, prefix in (common(), count(), article(_HOLE))),
        conversations.example_frame(_HOLE) + conversations.final_question(_HOLE, 0, _HOLE, _HOLE),
        INSTRUCTION,
        exam_prompts.filled(exam_prompts.ZERO_SHOT, _HOLE, _HOLE, (_HOLE,) * 4),
        frames_prompts.question_prompt(_HOLE, _HOLE) + _HOLE + frames_prompts.answer_sentence(_HOLE),
        functions.prompt_text(_HOLE, _HOLE),
        lca_prompts.in_context(_HOLE, _HOLE, _HOLE),
        lca_prompts.commit_text(_HOLE),
    ]
    found = {part.strip(" ") for frame in frames for part in frame.split(_HOLE)}
    words = {part for part in found if len(part.split()) > 2 and "1st" not in part} | set(_SHORT_MARKS)
    return sorted(words, key=lambda part: (-len(part), part))
