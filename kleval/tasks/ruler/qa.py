"""Question answering over documents, most of them beside the point.

Source: NVIDIA/RULER @ c3f5e3b, scripts/data/synthetic/qa.py. Question i of the file is sample i; its documents are
joined by others drawn at random, all shuffled by a state of fixed seed (so that officially the answer lies at one place
for each number of documents), and repeated when a length needs more than there are.
"""

from __future__ import annotations

from dataclasses import dataclass

from kleval.tasks.draws import Draws, own_draws
from kleval.tasks.ruler.corpus import Corpus, Question
from kleval.tasks.ruler.spec import TEXTS, Draft
from kleval.types import UsageError

TEMPLATE, PREFIX = TEXTS["qa"]


@dataclass(frozen=True, slots=True)
class DocumentQa:
    """size: documents. any_place: shuffled by a state of its own per question, in place of the fixed one."""

    corpus: Corpus
    any_place: bool = False

    def step(self, ctx: int) -> int:
        return 10

    def _chosen(self, question: Question, draws: Draws, size: int) -> list[int]:
        total = len(self.corpus.documents)
        if size >= total:
            return [i % total for i in range(size)]
        gold, related = list(question.gold), list(question.related)
        if size - len(gold) <= len(related):
            return gold + draws.rng.sample(related, size - len(gold))
        taken = {*gold, *related}
        others = [i for i in range(total) if i not in taken]
        return gold + related + draws.rng.sample(others, max(0, size - len(gold) - len(related)))

    def draft(self, draws: Draws, size: int, index: int = 0) -> Draft:
        if index >= len(self.corpus.questions):
            raise UsageError(
                f"{self.corpus.name} has {len(self.corpus.questions)} questions: ask for that many samples at most"
            )
        question = self.corpus.questions[index]
        chosen = self._chosen(question, draws, size)
        (own_draws("ruler/qa", draws.seed, index, size) if self.any_place else draws).shuffle(chosen)
        context = "\n\n".join(f"Document {i}:\n{self.corpus.documents[d]}" for i, d in enumerate(chosen, 1))
        gold = set(question.gold)
        depths = [round(100 * i / len(chosen), 1) for i, d in enumerate(chosen) if d in gold]
        meta = {"size": size, "unit": "documents", "depth_percent": depths}
        return Draft(TEMPLATE.format(context=context, query=question.query), PREFIX, question.answers, meta)
