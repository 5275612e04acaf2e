"""The lines of lm-eval's samples, and what is learnt about a task while they are written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kleval.report.export.shared import answers, mean_of, prompt_text
from kleval.store import Row
from kleval.tables.scores import Entrant


class Facts:
    """One task at one length. values: per metric, a sample's mean over its repeats; hashes: of the samples, as in `task_hashes`;
    unanswered: its failures; shots: examples in its prompts, where rows say so; limits: of the last generation."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = {}
        self.hashes: list[str] = []
        self.unanswered: list[dict[str, Any]] = []
        self.samples = 0
        self.shots: int | None = None
        self.limits: dict[str, Any] = {}
        self.likelihoods = False

    def take(self, entrant: Entrant, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
        """The lines of one sample, one per filter; none when no repeat was answered."""
        self.samples += 1
        self.unanswered += [
            {"doc_id": row.index, "id": row.id, "repeat": row.repeat, **row.failure} for row in rows if row.failure
        ]
        answered = [row for row in rows if row.failure is None]
        if not answered:
            return
        first = answered[0]
        if isinstance(shots := first.meta.get("shots"), int):
            self.shots = shots
        named = dict.fromkeys(metric for row in answered for metric in (row.metric, *row.metrics))
        found = {metric: mean_of(answered, metric) for metric in named}
        known = {metric: value for metric, value in found.items() if value is not None}
        for metric, value in known.items():
            self.values.setdefault(metric, []).append(value)
        by_filter: dict[str, dict[str, float]] = {}
        for metric, value in known.items():
            name, _, of = metric.partition(",")
            by_filter.setdefault(of or "none", {})[name] = value
        sample = self._sample(entrant, answered)
        self.hashes.append(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"])
        for of, metrics in by_filter.items():
            read = first.extracted
            if not self.likelihoods:
                read = read[of] if isinstance(read, Mapping) and of in read else read
                sample["filtered_resps"] = [_text(read)]
            yield {**sample, "filter": of, "metrics": list(metrics), **metrics}

    def _sample(self, entrant: Entrant, rows: Sequence[Row]) -> dict[str, Any]:
        first = rows[0]
        prompt = prompt_text(entrant.run.store, first)
        given = [answers(row) for row in rows]
        self.likelihoods = any(outcome["kind"] == "loglikelihood" for outcome in given[0])
        if self.likelihoods:
            arguments = [{"arg_0": prompt, "arg_1": outcome.get("continuation", "")} for outcome in given[0]]
            values = [[[str(o.get("logprob_sum")), str(o.get("greedy"))] for o in outcomes] for outcomes in given]
            resps: list[Any] = [list(repeats) for repeats in zip(*values, strict=False)]
            filtered: list[Any] = values[0]
        else:
            self.limits = _limits(given[0][-1] if given[0] else {}, first)
            arguments = [{"arg_0": prompt, "arg_1": self.limits}]
            resps = [[str(outcome.get("text", "")) for outcomes in given for outcome in outcomes]]
            filtered = []
        target = first.references[0] if len(first.references) == 1 else json.dumps(first.references, ensure_ascii=False)
        doc = {"id": first.id, "ctx": first.ctx, "references": list(first.references), "meta": dict(first.meta)}
        return {
            "doc_id": first.index,
            "doc": doc,
            "target": target,
            "arguments": {f"gen_args_{i}": argument for i, argument in enumerate(arguments)},
            "resps": resps,
            "filtered_resps": filtered,
            "doc_hash": first.meta.get("doc_hash")
            or sha256(json.dumps(doc, sort_keys=True, ensure_ascii=False, default=str)),
            "prompt_hash": sha256(prompt),
            "target_hash": sha256(target),
        }


def _limits(outcome: Mapping[str, Any], row: Row) -> dict[str, Any]:
    kept = {name: outcome[name] for name in ("temperature", "top_p") if outcome.get(name) is not None}
    return {"max_gen_toks": row.max_new_tokens, **kept}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
