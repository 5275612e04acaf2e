"""Task in a plain form, a YAML file: a data file, a prompt template and a metric.

    data: questions.jsonl             # rows: JSON lines, a JSON list, CSV, TSV or Parquet, beside the YAML file
    prompt: "{context}\\n\\n{question}"  # {name} is a row's field; any other brace stands for itself
    answer: "{answer}"                # the reference; or several; a field that is a list is as many references
    metric: contains                  # exact, contains, f1, similarity, or ./m.py:f; acc where there are choices

and, where wanted: id, version, description, system, answer_prefix, stop, max_new_tokens, choices (texts, or the name of a field that
lists them), whose likelihoods are then compared, and question, the prompt without its context, which --protocol likelihood compares
with (left out: the prompt without `{context}`). A row that does not fit into ctx is passed over and counted.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from kleval.tasks import data, datafile, tables
from kleval.tasks.base import InOrder
from kleval.tasks.fitting import budget_for
from kleval.tasks.own.code import digest
from kleval.tasks.own.metric import find_metric, measured
from kleval.types import Completion, Prompt, Request, Sample, Score, Tokenizer, Unfit, UsageError

PROTOCOL = "plain-1"
_CONTEXT = "{context}"
_PLACE = re.compile(r"\{(\w+)\}")


class Form(BaseModel):
    """The file's fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    data: str
    prompt: str
    answer: str | list[str]
    metric: str = ""
    id: str = ""
    version: str = "1"
    description: str = ""
    system: str = ""
    answer_prefix: str = ""
    question: str = ""
    stop: list[str] = []
    max_new_tokens: int | None = None
    choices: list[str] | str | None = None


class PlainTask(InOrder):
    """The task of one such file. UsageError for a file, a field or a row that is not as it must be."""

    edition, protocol = "own", PROTOCOL

    def __init__(self, path: Path) -> None:
        self.form = form = read_form(path)
        self.id, self.version, self.description = form.id or f"own/{path.stem}", form.version, form.description
        file = path.parent / Path(form.data).expanduser()
        if not file.is_file():
            raise UsageError(f"{path}: its data file {file} is not there")
        self._path, self._file = path, file
        self.data_revision, self.data_digest = file.name, data.file_sha256(file)
        if form.choices is not None:
            if form.metric not in ("", "acc"):
                raise UsageError(
                    f"{path}: answers among choices are scored by acc, not {form.metric}: leave out metric"
                )
            self.metric, self._function = "acc", None
        else:
            self.metric, self._function = find_metric(form.metric or "exact", path.parent)
        unasked = {"metric", "id", "version", "description", *([] if form.question else ["question"])}
        asking = json.dumps(form.model_dump(exclude=unasked), sort_keys=True)
        scoring = [] if self._function is None else [self._function]
        self.code = hashlib.sha256(asking.encode()).hexdigest(), digest(scoring)
        next(self._rows())  # what is wrong with the first row is told before anything is opened

    @cached_property
    def _known(self) -> list[tuple[str, Mapping[str, Any]]]:
        return list(tables.rows(self._file))

    def _rows(self) -> Iterator[tuple[int, str, tuple[str, ...], tuple[str, ...]]]:
        """(index, prompt, references, choices) of each row."""
        form = self.form
        for index, (where, row) in enumerate(self._known):
            prompt = filled(form.prompt, row, where)
            answers = form.answer if isinstance(form.answer, list) else [form.answer]
            references = tuple(text for one in answers for text in _texts(one, row, where))
            choices = self._choices(row, where)
            if choices:
                references = tuple(_chosen(one, choices, where) for one in references)
            yield index, prompt, references, choices

    def _choices(self, row: Mapping[str, Any], where: str) -> tuple[str, ...]:
        given = self.form.choices
        if given is None:
            return ()
        found = (
            tables.texts(where, row, given)
            if isinstance(given, str)
            else tuple(filled(one, row, where) for one in given)
        )
        if len(found) < 2:
            raise UsageError(f"{where}: there are {len(found)} choices, at least 2 are needed")
        return found

    def _samples(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Sample | Unfit]:
        form = self.form
        longest = max((tokenizer.count(one) for _, _, refs, _ in self._rows() for one in refs), default=0)
        for index, text, references, choices in self._rows():
            prompt = self._prompt(text, bool(tokenizer.chat_template_digest))
            tokens = tokenizer.count(tokenizer.render(prompt, form.answer_prefix))
            new = max(map(tokenizer.count, choices)) if choices else form.max_new_tokens or budget_for(longest)
            if tokens + new > ctx:
                reason = f"{self.id} row {index} takes {tokens} tokens and {new} for the answer, ctx is {ctx}"
                yield Unfit(index, reason, tokens + new)
                continue
            yield Sample(
                id=f"{self.id}@own-{self.version}/{ctx}/i{index}",
                task=self.id,
                ctx=ctx,
                index=index,
                prompt=prompt,
                references=references,
                max_new_tokens=new,
                prompt_tokens=tokens,
                answer_prefix=form.answer_prefix,
                stop=tuple(form.stop),
                meta={"choices": list(choices)} if choices else {},
            )

    def _prompt(self, text: str, chat: bool) -> Prompt:
        system = self.form.system
        if chat:
            user = {"role": "user", "content": text}
            return ({"role": "system", "content": system}, user) if system else (user,)
        return f"{system}\n\n{text}" if system else text

    def question_alone(self, sample: Sample) -> Prompt:
        """The prompt of `question`, else the one without `{context}`. ValueError where the file has neither."""
        form, (where, row) = self.form, self._known[sample.index]
        if not form.question and _CONTEXT not in form.prompt:
            raise ValueError(
                f"{self._path} has no field question, the prompt without its context, and no {_CONTEXT} in its prompt"
            )
        text = filled(form.question or form.prompt.replace(_CONTEXT, ""), row, where)
        return self._prompt(text, not isinstance(sample.prompt, str))

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        choices = sample.meta.get("choices", ())
        if not outcomes and choices:
            return [Request("loglikelihood", sample.prompt, sample.answer_prefix, choice) for choice in choices]
        if not outcomes:
            new, stop = sample.max_new_tokens, sample.stop
            return [Request("generate", sample.prompt, sample.answer_prefix, max_new_tokens=new, stop=stop)]
        if choices:
            likely = max(range(len(choices)), key=lambda i: outcomes[i].logprob_sum or 0.0)
            return Score({"acc": float(choices[likely] in sample.references)}, extracted=choices[likely])
        assert self._function is not None
        return measured(self.metric, self._function, outcomes[0].text, sample)

    def card(self) -> dict[str, Any]:
        form = self.form.model_dump(exclude_defaults=True)
        return {"description": self.description or f"rows of {self._file.name}", "source": str(self._path), **form} | {
            name: getattr(self, name) for name in ("id", "version", "metric")
        }


def read_form(path: Path) -> Form:
    """The fields of a file. UsageError naming the one that is wrong."""
    import yaml

    try:
        values = yaml.safe_load(datafile.content(path).decode())
    except (yaml.YAMLError, UnicodeError) as error:
        raise UsageError(f"{path} is not YAML: {datafile.one_line(error)}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path} must hold fields like data, prompt and answer")
    try:
        return Form.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0])
        if first["type"] == "extra_forbidden":
            near = difflib.get_close_matches(name, Form.model_fields, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(Form.model_fields)}"
            raise UsageError(f"{path}: unknown field {name!r}: {hint}") from error
        raise UsageError(f"{path}: {name}: {first['msg']}") from error


def filled(template: str, row: Mapping[str, Any], where: str) -> str:
    """The template with the row's fields in their places. UsageError for a field that the row has not."""

    def field(match: re.Match[str]) -> str:
        if match[1] not in row:
            raise UsageError(f"{where} has no field {match[1]!r} for {{{match[1]}}}: it has {', '.join(row)}")
        return str(row[match[1]])

    return _PLACE.sub(field, template)


def _texts(template: str, row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """One reference; as many as a field lists, where the template is that field alone."""
    alone = _PLACE.fullmatch(template)
    if alone and isinstance(row.get(alone[1]), list):
        return tuple(map(str, row[alone[1]]))
    return (filled(template, row, where),)


def _chosen(answer: str, choices: Sequence[str], where: str) -> str:
    """The choice that an answer is: as its text, or its number from 0."""
    if answer in choices:
        return answer
    if answer.isdigit() and int(answer) < len(choices):
        return choices[int(answer)]
    raise UsageError(
        f"{where}: the answer {answer[:60]!r} is neither one of the {len(choices)} choices nor the number of one, from 0"
    )
