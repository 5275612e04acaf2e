"""The tasks `graphwalks/bfs` and `graphwalks/parents`: one call each, the prompt as the user's message; f1, exact and parsed as scores.

Official: rows {prompt, answer_nodes, problem_type} as they are, those of the shorter file first. Builtin: a graph with as many edges
as ctx holds, and an operation that results in a few nodes of it: the budget is that of the longest answer allowed at this ctx.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks import data, tables
from kleval.tasks.base import OneCall, as_prompt
from kleval.tasks.fitting import budget_for
from kleval.tasks.graphwalks import graphs
from kleval.tasks.graphwalks.grading import extract, f1, written
from kleval.tasks.graphwalks.graphs import DEGREES, DEPTHS, GRAPHS_VERSION, PROMPT
from kleval.tasks.likelihood import without
from kleval.tasks.plain_editions import Asked, Filling, Rows, as_it_is
from kleval.tasks.sized import Question, SizedTask
from kleval.types import Completion, Prompt, Sample, Score, Tokenizer

PROTOCOL = "openai"
OFFICIAL_BUDGET = 16_384
FILES = {"graphwalks_128k_and_shorter.parquet": "128k and shorter", "graphwalks_256k_to_1mil.parquet": "256k to 1m"}
MOST_NODES = {"bfs": 128, "parents": 24}
LEAST_NODES, LEAST_EDGES, _PROBED, _SPARE = 8, 16, 256, 1.02
_BESIDE = 16  # tokens of an official budget, beside the answer


class GraphWalksTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = "f1"
    official_budget = f"{OFFICIAL_BUDGET}, more where the answer takes more"

    def __init__(self, kind: str, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        values = {"most": MOST_NODES[kind], "budget": OFFICIAL_BUDGET, "degrees": DEGREES, "depths": DEPTHS}
        super().__init__(f"graphwalks/{kind}", edition, protocol, (PROTOCOL,), values)
        self._kind, made = kind, partial(Builtin, self.id, self.version, kind)
        self._open = partial(self._official, data_dir) if edition == "official" else made

    def _official(self, data_dir: Path | None) -> Rows:
        source = data.find("graphwalks", tuple(FILES), f"{self.id} (official)", data_dir, "openai/graphwalks")
        return Rows(self.id, source, partial(self._rows, source.paths), OFFICIAL_BUDGET, _BESIDE)

    def _rows(self, paths: Sequence[Path], ctx: int) -> Iterator[Asked]:
        for path, part in zip(paths, FILES.values(), strict=True):
            for where, row in tables.rows(path):
                if row.get("problem_type") == self._kind:
                    nodes, asked = tables.texts(where, row, "answer_nodes"), as_it_is(tables.text(where, row, "prompt"))
                    yield Asked(asked, (written(nodes),), {"part": part, "nodes": len(nodes)})

    def score(self, sample: Sample, answer: Completion) -> Score:
        found = extract(answer.text)
        value = f1(found, extract(sample.references[0]) or ())
        metrics = {"f1": value, "exact": float(value == 1), "parsed": float(found is not None)}
        if "part" in sample.meta:
            metrics[f"f1 {sample.meta['part']}"] = value
        return Score(metrics, extracted=found)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its edges; the small examples and the operation stay."""
        return without(sample.prompt, graphs.AROUND, "{edges}", demonstrated=True)

    def _template(self) -> str:
        return graphs.message((), PROMPT[self._kind])


class Builtin(Filling):
    def __init__(self, task_id: str, task_version: str, kind: str) -> None:
        super().__init__(task_id, task_version, GRAPHS_VERSION, kind, PROMPT)
        self._kind = kind

    def _maker(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Callable[[int], Question]:
        per_edge = tokenizer.count("".join(graphs.edges(random.Random(0), _PROBED, 1))) / _PROBED
        room = ctx - tokenizer.count(tokenizer.render(as_prompt(tokenizer, graphs.message((), ""))))
        most = min(MOST_NODES[self._kind], max(LEAST_NODES, int(room / per_edge) // LEAST_NODES))
        longest = written(map(graphs.name, range(most)))
        budget = budget_for(tokenizer.count(longest))
        n_edges = max(LEAST_EDGES, _SPARE * (room - budget) / per_edge)

        def question(index: int) -> Question:
            draws = self._draws(ctx, seed, index)
            degree = draws.rng.randint(1, DEGREES)
            lines = list(graphs.edges(draws.rng, int(n_edges / degree) + 1, degree))
            ask = partial(graphs.ask, self._kind, lines, seed=draws.seed, most=most)

            def told(n_more: int) -> tuple[tuple[str, ...], dict[str, Any]]:
                nodes = ask(n := LEAST_EDGES + n_more)[1]
                return (written(nodes),), {"edges": n, "degree": degree, "nodes": len(nodes)}

            def build(more: Sequence[str]) -> str:
                return ask(LEAST_EDGES + len(more))[0]

            asked = Asked(build, (longest,), pieces=iter(lines[LEAST_EDGES:]), told=told)
            return self._sized(index, asked, tokenizer, ctx, budget)

        return question


bfs, parents = partial(GraphWalksTask, "bfs"), partial(GraphWalksTask, "parents")
