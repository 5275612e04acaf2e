"""The tasks `nolima/full` and `nolima/hard`: one call, right where the answer holds the name.

Official: needle set and books from files, every test at 26 depths of five books, in shuffled order. The wording of the prompt is
under the data's licence, too, and is read out of the official script beside them. Builtin: needles of kleval's own in its prose.

Facts of adobe-research/NoLiMa @ 7532e4e. data/book_haystack.py: the needle stands behind the first line's end at or behind a share of
the length, and the book's part begins so many tokens before it. evaluation/async_evaluate.py: the character is drawn anew for every
depth from one state per test and book.
"""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile, packaged, prose
from kleval.tasks.base import OneCall
from kleval.tasks.draws import Draws
from kleval.tasks.likelihood import without
from kleval.tasks.plain_editions import Asked, Made, spread
from kleval.tasks.sized import OfficialData, Question, SizedTask
from kleval.tokenization import count_given
from kleval.types import Completion, Prompt, Sample, Score, TextTooShort, Tokenizer, Unfit, UsageError

PROTOCOL = "nolima-7532e4e"
DEPTHS, CHARACTER = 26, "{CHAR}"
OFFICIAL_BUDGET = 192
NEEDLE_SETS = {"full": "needlesets/needle_set.json", "hard": "needlesets/needle_set_hard.json"}
BOOKS = tuple(f"haystack/rand_shuffle/rand_book_{n}.txt" for n in range(1, 6))
SCRIPT, _TEMPLATE = "evaluation/run_tests.py", "DEFAULT_TASK_TEMPLATE"
BANK = packaged.load("nolima/bank.toml")
NEEDLES_VERSION = "nolima-needles-1"
_SYSTEM = "You are a helpful assistant"
_ROUNDS = 6


def messages(template: str, haystack: str, question: str) -> Prompt:
    filled = template.replace("{question}", question).replace("{haystack}", haystack)
    return {"role": "system", "content": _SYSTEM}, {"role": "user", "content": filled}


class NolimaTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = "accuracy"
    official_budget = OFFICIAL_BUDGET
    finds_needles = True

    def __init__(self, name: str, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        values = {"budget": OFFICIAL_BUDGET, "depths": DEPTHS, "needles": len(BANK["needles"])}
        super().__init__(f"nolima/{name}", edition, protocol, (PROTOCOL,), values)
        made = partial(Made, self.id, self.version, _asked, NEEDLES_VERSION, BANK, prose.SENTENCES_VERSION)
        self._open = made if edition == "builtin" else partial(Official, self.id, name, data_dir)

    def score(self, sample: Sample, answer: Completion) -> Score:
        found = float(any(name in answer.text for name in sample.references))
        return Score({"accuracy": found, f"accuracy {sample.meta['kind']}": found}, extracted=answer.text.strip())

    def question_alone(self, sample: Sample) -> Prompt:
        """Without the book."""
        made = self._made
        template = made.templates[sample.meta["test"]] if isinstance(made, Official) else BANK["template"]
        return without(sample.prompt, template, "{haystack}")

    def _template(self) -> str:
        return f"{_SYSTEM}\0{SCRIPT if self.edition == 'official' else BANK['template']}"


def _asked(rng: random.Random, index: int) -> Asked:
    one = rng.choice(BANK["needles"])
    name, kind = rng.choice(packaged.words("nolima/bank.toml", "names")), rng.choice(("onehop", "twohop"))
    depth = rng.randrange(DEPTHS) / (DEPTHS - 1)
    needle = one["needle"].replace(CHARACTER, name)

    def build(taken: Sequence[str]) -> Prompt:
        return messages(BANK["template"], " ".join(spread([needle], [depth * 0.999], taken)), one[kind])

    meta = {"kind": kind, "question": one[kind], "needle": needle, "depth_percent": round(100 * depth, 1)}
    return Asked(build, (name,), meta, prose.sentences(rng.getrandbits(64)))


class Official(OfficialData):
    """templates: by test."""

    def __init__(self, task_id: str, name: str, data_dir: Path | None) -> None:
        files = (NEEDLE_SETS[name], SCRIPT, *BOOKS)
        source = data.find("nolima", files, f"{task_id} (official)", data_dir, "amodaresi/NoLiMa")
        super().__init__(task_id, source.revision, source.sha256)
        needles, script, *self._books = source.paths
        self._tests = cases(str(needles), datafile.whole_json(needles), _template_in(script))
        self.templates = {test.name: test.template for test in self._tests}

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        books = [
            Book.of(path.name, datafile.content(path).decode("utf-8", "replace"), tokenizer) for path in self._books
        ]
        cases = [(test, book, depth) for book in range(len(books)) for test in self._tests for depth in range(DEPTHS)]
        random.Random(seed).shuffle(cases)
        for index, (test, at, n) in enumerate(cases):
            name = characters(test.names, seed + test.number + at)[n] if CHARACTER in test.needle else ""
            yield self._question(index, test, books[at], n / (DEPTHS - 1), name, tokenizer, ctx)

    def _question(
        self, index: int, test: Case, book: Book, depth: float, name: str, tokenizer: Tokenizer, ctx: int
    ) -> Question | Unfit:
        needle, question = (text.replace(CHARACTER, name) for text in (test.needle, test.question))
        meta: dict[str, Any] = {"test": test.name, "kind": test.kind, "book": book.name}
        meta |= {"question": question, "needle": needle}
        room = ctx - OFFICIAL_BUDGET
        bare = count_given(tokenizer, messages(test.template, f" {needle}\n", question))
        length = room - bare
        for _ in range(_ROUNDS):
            if length < 1:
                break
            prompt = messages(test.template, book.with_needle(needle, length, depth, tokenizer), question)
            tokens = count_given(tokenizer, prompt)
            if tokens <= room:
                meta |= {"depth_percent": round(100 * depth, 1), "book_tokens": length}
                return Question(index, prompt, (name,) if name else test.golds, tokens, OFFICIAL_BUDGET, meta)
            length -= tokens - room  # parts of a text, put together, may be more tokens than they were apart
        return self._unfit(index, bare, OFFICIAL_BUDGET, ctx)


def _template_in(script: Path) -> str:
    """What the official script says of its own prompt."""
    try:
        parsed = ast.parse(datafile.content(script))
        (found,) = (
            ast.literal_eval(one.value)
            for one in parsed.body
            if isinstance(one, ast.Assign) and _TEMPLATE in ast.dump(one.targets[0])
        )
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{script} has no {_TEMPLATE}, the prompt that NoLiMa asks with") from error
    return str(found)


@dataclass(frozen=True, slots=True)
class Book:
    """ids: of all its tokens. ends: tokens that hold a line's end, and the first one."""

    name: str
    ids: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, name: str, text: str, tokenizer: Tokenizer) -> Book:
        """UsageError for a tokenizer that does not give texts back."""
        ids = tuple(tokenizer.encode(text))
        if tokenizer.decode(ids[:64]) not in text:
            raise UsageError(
                f"nolima cuts books at tokens, and {tokenizer.name} does not give texts back: use tiktoken:NAME or hf:PATH"
            )
        broken = {one: "\n" in tokenizer.decode([one]) for one in set(ids)}
        return cls(name, ids, (0, *(at for at, one in enumerate(ids) if broken[one])))

    def with_needle(self, needle: str, length: int, depth: float, tokenizer: Tokenizer) -> str:
        """The part of the book that is so many tokens long, with the needle at that share of it. TextTooShort where the book is."""
        at = next((end for end in self.ends if end / (length + 1) >= depth), None)
        start = None if at is None else at - round(length * depth)
        if at is None or start is None or start + length > len(self.ids):
            raise TextTooShort(
                f"{self.name} has {len(self.ids)} tokens, too few for a context of {length}", len(self.ids)
            )
        before = tokenizer.decode(self.ids[start : at + 1])
        behind = tokenizer.decode(self.ids[at + 1 : start + length])
        return f"{before[: max(before.rfind(chr(10)), 0)]} {needle}\n{behind}"


def characters(names: Sequence[str], seed: int) -> list[str]:
    """One for each depth."""
    state = Draws(seed).numbers
    return [str(state.choice(list(names))) for _ in range(DEPTHS)]


@dataclass(frozen=True, slots=True)
class Case:
    """number: what its random state is seeded by, beside the run's seed. needle, question: with CHARACTER in place of a name, where
    there is one. golds: the right answers where there is none."""

    name: str
    number: int
    kind: str
    needle: str
    question: str
    golds: tuple[str, ...]
    names: tuple[str, ...]
    template: str


def cases(where: str, groups: Any, template: str) -> list[Case]:
    """All that a needle set asks, questions that name the needle's own words (`direct`) left out, as the official table does."""
    try:
        return [made for group in groups for made in _cases(group, template)]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{where} is no needle set of NoLiMa: {type(error).__name__} {error}") from error


def _cases(group: dict[str, Any], template: str) -> list[Case]:
    found = []
    for kind, question in group["questions"].items():
        for name, test in group["tests"].items():
            needle, asked = group["needle"], question
            for n, value in enumerate(test["input_args"], 1):
                needle, asked = (text.replace(f"{{{n}}}", value) for text in (needle, asked))
            golds = test.get("gold_answers", "")
            golds = tuple(golds) if isinstance(golds, list) else (golds,)
            names = tuple(group.get("character_set", ()))
            if (CHARACTER in needle and not names) or (CHARACTER not in needle and not any(golds)):
                raise ValueError(f"{group['id']}_{name} has no answer")
            number, own = int(group["id"][:4]), group.get("task_template", template)
            if "direct" not in kind:
                found.append(Case(f"{group['id']}_{name}_{kind}", number, kind, needle, asked, golds, names, own))
    return found


full, hard = (partial(NolimaTask, name) for name in NEEDLE_SETS)
