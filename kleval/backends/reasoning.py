"""Reasoning in an answer's text: `<think>…</think>answer`, told apart from the answer that is scored.

A text is split only where it begins inside reasoning: its first word is an opening tag, or the chat template wrote one at the
end of the prompt. A closing tag alone ends reasoning only where it cannot be known what the template wrote (a chat endpoint).
Tags in the middle of an answer are part of it: conversations and code are quoted with them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kleval.types import UsageError

# Of DeepSeek-R1, Qwen 3 and most others; Claude-like texts; Kimi-VL; Magistral; Seed-OSS; EXAONE; LongCat; Command A; OpenThinker;
# Apertus; MedGemma; Gemma 4, which may write empty ones without being asked to think; gpt-oss, whose answer is a channel of its own.
TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<reasoning>", "</reasoning>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<thought>", "</thought>"),
    ("<longcat_think>", "</longcat_think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|inner_prefix|>", "<|inner_suffix|>"),
    ("<unused94>", "<unused95>"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
)
# gpt-oss where a server leaves out special tokens (llama.cpp, MLX): what is left of its channels' names stands against the text.
_BARE_BEGIN, _BARE_END = re.compile(r"analysis(?=[A-Z])"), "assistantfinal"
# Around an answer: Command A and R7B; OpenThinker.
_AROUND = (("<|START_RESPONSE|>", "<|END_RESPONSE|>"), ("<|begin_of_solution|>", "<|end_of_solution|>"))
# Tokens that end a turn: a model may write one before the token that ends its answer (Gemma 1.1), and servers leave them in its text
# where they take another for its end (Llama 3, ChatML, Gemma, DeepSeek).
_TURN_END = re.compile(
    r"\s*(?:<\|(?:im_end|eot_id|eom_id|end|endoftext|end_of_text|return|END_OF_TURN_TOKEN)\|>|<end_of_turn>|<turn\|>"
    r"|<｜end▁of▁sentence｜>|</s>|<eos>)\s*$"
)
LAST_TOKENS = 4  # of an answer, among which one that ends a turn may stand
TURN_END_NOTE = "{} stood at the end of the answer: it is taken away here"
_BRACKETS = "<[◁>]▷|"
_TAIL_CHARACTERS = 64  # of a rendered prompt, that may hold the opening tag and blanks behind it


@dataclass(frozen=True, slots=True)
class Split:
    """reasoning: without its tags. answer: what follows the last closing tag, without blanks before it.

    closed: whether there is a closing tag.
    """

    reasoning: str
    answer: str
    closed: bool


def tags(mode: str) -> tuple[tuple[str, str], ...]:
    """The pairs of tags that `--reasoning` means: `auto` all known ones, `off` none, else those of that name.

    UsageError for a name that is no tag's.
    """
    if mode == "auto":
        return TAGS
    if mode == "off":
        return ()
    name = mode.strip(_BRACKETS)
    if not name or any(c in f"{_BRACKETS}/ \n\t" for c in name):
        raise UsageError(f"--reasoning is auto, off or a tag's name like think, not {mode!r}")
    known = tuple(pair for pair in TAGS if pair[0].strip(_BRACKETS).casefold() == name.casefold())
    return known or ((f"<{name}>", f"</{name}>"),)


def opened_by(rendered: str, pairs: Sequence[tuple[str, str]] = TAGS) -> str:
    """The opening tag that a rendered prompt ends with, "" for none."""
    tail = rendered[-_TAIL_CHARACTERS:].rstrip()
    return next((opening for opening, _ in pairs if tail.endswith(opening)), "")


def opened_in(written: str, pairs: Sequence[tuple[str, str]] = TAGS) -> str:
    """The opening tag that a template's own text leaves open, whatever it writes behind it (`<think>\\nOkay,`); "" for none."""
    return next((opening for opening, closing in pairs if written.rfind(opening) > written.rfind(closing)), "")


def split(text: str, opened: str | None = None, pairs: Sequence[tuple[str, str]] = TAGS) -> Split | None:
    """The text's reasoning and answer; None where it is all answer.

    opened: the tag that the template wrote at the end of the prompt, "" for none, None where that cannot be known.
    """
    start = text.lstrip()
    for opening, closing in pairs:
        begins = start.startswith(opening)
        if begins or opened == opening:
            body = start[len(opening) :] if begins else text
            return _at_last(body, closing) or Split(body, "", closed=False)
        if start.startswith(closing):  # gpt-oss that answers at once
            return Split("", start[len(closing) :].lstrip(), closed=True)
    if TAGS[-1] in pairs and start.startswith("analysis"):
        body = start.removeprefix("analysis")
        found = _at_last(body, _BARE_END)
        if found is not None or _BARE_BEGIN.match(start):
            return found or Split(body, "", closed=False)
    if opened is None and (alone := closed_alone(text, pairs)):
        return _at_last(text, dict(pairs)[alone])
    return None


def closed_alone(text: str, pairs: Sequence[tuple[str, str]] = TAGS) -> str:
    """The opening tag that a text lacks whose closing one it has, "" where it lacks none: something before the text opened it."""
    start = text.lstrip()
    return next((one for one, end in pairs if one not in text and end in text and not start.startswith(end)), "")


def unwrapped(text: str) -> str:
    """An answer without the tags that a model writes around it, or after it where the template wrote the first."""
    for begin, end in _AROUND:
        if text.lstrip().startswith(begin):
            text = text.lstrip().removeprefix(begin)
        elif begin in text:
            continue
        if text.rstrip().endswith(end):
            text = text.rstrip().removesuffix(end)
    return text


def turn_end(text: str, last: Sequence[str] | None = None) -> str:
    """The token that ends a turn with which an answer ends, blanks around it included; "" for none.

    last: the texts of its last tokens, where they are known: then it must be one of them. Else `</s>` may close an `<s>` of HTML.
    """
    found = _TURN_END.search(text)
    if found is None or (found[0].strip() not in last if last is not None else "<s>" in text):
        return ""
    return found[0]


def first_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of the stop strings begins, None where there is none."""
    return min((at for stop in stops if stop and (at := text.find(stop)) >= 0), default=None)


def _at_last(text: str, closing: str) -> Split | None:
    before, tag, after = text.rpartition(closing)
    return Split(before.strip("\n"), after.lstrip(), closed=True) if tag else None
