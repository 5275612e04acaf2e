"""Training samples in the shapes of MRCR, HELMET-ICL, LongBench v2, FRAMES, RepoQA and Long Code Arena.

Made by the generators of kleval's own editions of these tasks, out of `material` that no evaluation is made of. Prompts are the
tasks' own; where a text has more answers than one question asks for, more are asked.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from itertools import islice

from kleval.tasks import lexicon as lx
from kleval.tasks.articles import Article
from kleval.tasks.frames import official as frames
from kleval.tasks.helmet_icl import intents
from kleval.tasks.helmet_icl.official import INSTRUCTION, label_numbers
from kleval.tasks.lca import commits, library
from kleval.tasks.longbench2 import exams
from kleval.tasks.longbench2 import official as longbench
from kleval.tasks.mrcr import conversations
from kleval.tasks.repoqa import task as repoqa
from kleval.tokenization import join_prompt
from kleval.train import material
from kleval.train.desk import Desk, NoRoom, Piece, scattered

_MATTERS = tuple(conversations.Matter(material.TOPICS, chars, "train") for chars in material.PREFIX_CHARS)
_ORDINAL = re.compile(r"Prepend \S+ to the (\w+) ")


def conversation(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """A conversation with its worked example, then the last question, for several of the equal texts."""
    matter = rng.choice(_MATTERS)
    n_needles = 2 if room < 700 else rng.choice((2, 4, 8) if room > 1200 else (2, 4))
    text_chars = rng.choice((0, room * 4 // (3 * n_needles + 8)))
    made = conversations.conversation(rng, n_needles, min(text_chars, 800), matter)
    asked: list[Piece] = []
    for i in [made.wanted, *rng.sample(range(n_needles), n_needles - 1)][: 1 + room // 500]:
        prefix = made.prefix if not asked else "".join(rng.sample(made.prefix, len(made.prefix)))
        ordinal = conversations.ORDINALS[i]
        question = _ORDINAL.sub(f"Prepend {prefix} to the {ordinal} ", made.question)
        asked += [("\n" + question, False), (prefix + made.needles[i], True)]
    bare = join_prompt(made.messages(())[:-1], "")
    fillers = desk.taken(made.fillers, desk.left(room, bare, *(text for text, _ in asked)))
    text = join_prompt(made.messages(fillers)[:-1], "")
    shown, mark, rest = text.partition("\n======END EXAMPLE======")
    before, assistant, answer = shown.rpartition("Assistant:")
    return [(before + assistant, False), (answer, True), (mark + rest, False), *asked]


def labels(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """Labelled utterances. Every label that came before is to be produced, not the last one alone."""
    n_labels = rng.choice((6, 20, 50, 77, 151))
    n_things = rng.choice((0, 0, 3, 5))
    actions = rng.sample(
        list(material.ACTIONS), rng.randint(2, max(2, min(len(material.ACTIONS), n_labels, room // 60)))
    )
    things = rng.sample(lx.THINGS, n_things) if n_things else [""]
    found = [intents.Intent(action, thing) for action in actions for thing in things]
    if n_labels == 151:
        found.append(intents.Intent("", ""))
    rng.shuffle(found)
    found = found[: max(2, min(n_labels, room // 50))]
    numbers = label_numbers(n_labels, rng.getrandbits(31))
    speaker = intents.Speaker(rng, material.ACTIONS, "train")
    shown = intents.rounds(rng, speaker, found, set())
    pieces: list[Piece] = [(INSTRUCTION + "\n", False)]
    seen: set[int] = set()
    room = desk.left(room, pieces[0][0])
    for which, said in shown:
        text, label = f"\n{said}\nlabel:", f" {numbers[which]}"
        room -= desk.count(text) + desk.count(label) + 1
        if room < 0:
            break
        pieces += [(text, False), (label, which in seen), ("\n", False)]
        seen.add(which)
    if not any(flag for _, flag in pieces):
        raise NoRoom
    while not pieces[-1][1]:
        pieces.pop()
    return pieces


def exam(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """A document of records and a question with four choices, longer ones asked again with the choices in another order."""
    made = exams.exam(rng, rng.choice(list(exams.DOMAINS)), rng.random() < 0.4, material.OPEN_SYLLABLES, "train")
    right = made.choices["ABCD".index(made.answer)]

    def prompt(text: str, choices: Sequence[str]) -> str:
        return longbench.filled(longbench.ZERO_SHOT, text, made.question, choices)

    asked: list[Piece] = []
    choices = list(made.choices)
    for i in range(1 + room // 400):
        if i:
            rng.shuffle(choices)
        question = prompt("\0", choices).rpartition("\0")[2]
        asked += [
            (_again(question) if i else question, False),
            (f"The correct answer is ({'ABCD'[choices.index(right)]}).", True),
        ]
    before = prompt("\0", choices).partition("\0")[0]
    fillers = desk.taken(made.fillers, desk.left(room, before + made.document([]), *(text for text, _ in asked)))
    return [(before + made.document(fillers), False), *asked]


def _again(question: str) -> str:
    """A question that follows another one over the same text."""
    return "\n\n" + question.partition("</text>\n\n")[2]


def lookup(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """FRAMES' question over articles, of one step or two, and more over the same articles."""
    first = rng.choice(desk.questions[room > 250 and rng.random() < 0.6])

    def text(article: Article) -> str:
        return frames.context([(article.title, article.text)])

    space = desk.left(room, frames.question_prompt("", first.question), frames.answer_sentence(first.answers[0]))
    shown, more = desk.shown(rng, first.gold, space, lambda article: text(article) + "\n", room // 200)
    before, _, tail = frames.question_prompt("\0", "\1").partition("\0")
    pieces: list[Piece] = []
    for i, (question, answer) in enumerate([(first.question, first.answers[0]), *more]):
        said = tail.replace("\1", question)
        pieces += [(_again(said) if i else said, False), (frames.answer_sentence(answer), True)]
    return [(before + "\n".join(map(text, shown)), False), *pieces]


def function(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """A function by its description, out of a file of functions: of words that programs have, or all of made-up ones."""
    word = (lambda: desk.words.word(rng)) if rng.random() < 0.5 else None
    described, source = described_function(rng, word)
    answer = f"\n```python\n{source}\n```"
    space = desk.left(room, repoqa.prompt_text(source, described), answer)
    fillers = desk.taken((described_function(rng, word)[1] + "\n\n\n" for _ in range(1000)), space)
    code = "\n\n\n".join(scattered(rng, [source], [text.strip("\n") for text in fillers]))
    return [(repoqa.prompt_text(f"\n\n{code}\n\n", described), False), (answer, True)]


_BODIES = (
    "{a} = {b}.get({key!r}, {n})",
    "if {a} is None:\n        return {b}",
    "for {c} in {a}:\n        {b}.append({c})",
    "if not isinstance({a}, {kind}):\n        raise TypeError(f'{{{a}!r}} is not a {kind}')",
    "{a} = {b}.{method}({n})",
    "{c} = [{b}.{method}(x) for x in {a}]",
    "with {b}.{method}() as {c}:\n        {c}.write({a})",
    "self._{a} = {b} + {n}",
    "while {a} > {n}:\n        {a} -= {b}.{method}()",
    "try:\n        {c} = {a}[{key!r}]\n    except KeyError:\n        {c} = {n}",
    "{key} = {verb}({a}.{method}, {c}={n})",
    "return {method}.{key}({b}, {a}[{n}:])",
    "{a}, {c} = {b}.{key}, {method}({b})",
)
_DESCRIPTIONS = (
    "{Verb} the {adjective} {noun} of the given {a} and return its {b}.",
    "{Verb} all the {noun} that {a} holds, with a {b} of {n}.",
    "Return the {noun} after it was asked to {verb} the {adjective} {a}.",
    "{Verb} {noun} for the {adjective} {a}; {b} says how much.",
)


def described_function(rng: random.Random, word: Callable[[], str] | None = None) -> tuple[str, str]:
    """(description, source). word: makes up a word; without it they are the lexicon's."""

    def some(words: Sequence[str]) -> str:
        return rng.choice(words) if word is None else word()

    verb, noun, adjective = some(lx.VERBS), some(lx.ABSTRACTS), some(lx.ADJECTIVES)
    a, b = rng.sample(lx.PARAMETERS, 2) if word is None else (word(), word())
    c = some(("made", "found", "each", "result"))

    def filled(form: str) -> str:
        method, kind = some(lx.VERBS), rng.choice(("dict", "list", "str", "int"))
        values = {
            "verb": verb,
            "Verb": verb.capitalize(),
            "noun": noun,
            "adjective": adjective,
            "key": some(lx.THINGS),
        }
        return form.format(a=a, b=b, c=c, n=rng.randint(1, 99), method=method, kind=kind, **values)

    name = f"{verb}_{noun}" if rng.random() < 0.6 else f"{verb}_{adjective}_{noun}"
    lines = [filled(form) for form in rng.sample(_BODIES, rng.randint(2, 5) if word is None else rng.randint(1, 3))]
    source = f"def {name}({a}, {b}={rng.randint(0, 9)}):\n    " + "\n    ".join(
        [*lines, f"return {rng.choice((a, b, c))}"]
    )
    return filled(rng.choice(_DESCRIPTIONS)), source


def from_library(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """A script by its description, with the functions of an invented library."""
    made = library.assignment(rng, rng.randint(1, max(1, min(4, room // 400))), material.CLOSED_SYLLABLES)
    prompt, (script,) = made.build, made.references
    space = desk.left(room, str(prompt([])), script)
    fillers = desk.taken(islice(made.pieces, 400), space)
    return [(str(prompt(fillers)), False), (script, True)]


def commit(desk: Desk, rng: random.Random, room: int) -> list[Piece]:
    """The message of a commit, by its diff."""
    made = commits.commit(rng, room > 700, places=lx.PEOPLE, nouns=lx.ABSTRACTS)
    prompt, (message,) = made.build, made.references
    space = desk.left(room, str(prompt([])), message)
    records = desk.taken(made.pieces, max(0, space - space // 8))
    return [(str(prompt(records)), False), (message, True)]
