"""A run: models asked on tasks at lengths, and what they answer scored. A Job of kleval.work."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from traceback import format_exception
from typing import Any

from kleval.backends.reasoning import tags
from kleval.harness.asking import End, in_turn
from kleval.harness.earlier import reusable
from kleval.harness.faults import Faults
from kleval.harness.filing import make_row, not_asked
from kleval.harness.forecast import Forecast, Pace, forecast, loads, try_pace
from kleval.harness.makers import Cell, Makers
from kleval.harness.manifest import add_judge, all_settings, hardware, model_record, run_facts, spec_settings
from kleval.harness.opening import check_permissions, length_tokenizer, load_tasks, open_models
from kleval.harness.plan import LoadTask, ModelFacts, OpenBackend, Plan, PlannedCell, make_plan, model_facts, skip
from kleval.harness.preparing import Asked, Policy, encode
from kleval.harness.replicas import Replicas, interleaved
from kleval.harness.rescoring import FILE
from kleval.harness.sample_cache import SampleCache
from kleval.harness.spec import RunSpec
from kleval.harness.spending import Price, Spending, earlier, metered
from kleval.store import Row, RunStore
from kleval.tasks.own.files import said
from kleval.types import Backend, ContextTooSmall, Sample, Task, Tokenizer, Unfit, UsageError
from kleval.work import Job, Result, Session, Verdict, work
from kleval.work.loop import OnEvent, tolerated

FIRST_WINDOW = 8


def run(
    spec: RunSpec,
    open_backend: OpenBackend,
    load_task: LoadTask,
    on_event: OnEvent = lambda event: None,
    load_tokenizer: Callable[[str], Tokenizer] | None = None,
    open_judge: OpenBackend | None = None,
) -> Result:
    """Do what spec says, continuing what its run directory already holds: `kleval.work.work` says how it ends.

    open_backend, load_task: by the names in spec. open_judge: for spec.judge_model; open_backend unless given.
    load_tokenizer: for spec.tokenizer; kleval.tokenization's unless given. A task that asks a judge announces it with an attribute
    `needs_judge`, one that runs generated code with `needs_code_execution`, so that what is missing is told before anything is asked.
    """
    return work(RunJob(spec, open_backend, load_task, load_tokenizer, open_judge or open_backend), on_event)


class RunJob(Job):
    """Units are cells (a model, a task, a length); a record is one answer."""

    spec: RunSpec
    kind = "run"
    command = "run"
    done_word = "answered"

    def __init__(
        self,
        spec: RunSpec,
        open_backend: OpenBackend,
        load_task: LoadTask,
        load_tokenizer: Callable[[str], Tokenizer] | None,
        open_judge: OpenBackend,
    ) -> None:
        super().__init__(spec)
        self.max_errors, self.amend = spec.max_errors, spec.amend
        self._open_backend, self._open_judge = open_backend, open_judge
        self._load_task, self._load_tokenizer = load_task, load_tokenizer
        self._tasks: dict[str, Task] = {}
        self._sources: dict[str, str] = {}
        self._facts: list[ModelFacts] = []
        self._judge: Backend | None = None
        self._judge_facts: dict[str, Any] = {}
        self._faults = Faults()
        self.stats: dict[str, dict[str, int]] = {}
        self._workers: dict[str, dict[str, Any]] = {}
        self._price, self._judge_price = Price.of(spec.price_per_mtok), Price.of(spec.judge_price_per_mtok)
        self._spending = Spending(spec.max_cost, spec.max_requests)
        self._carried: dict[str, float] = {}
        self._forecast: Forecast | None = None
        self._paid = False

    @property
    def tasks(self) -> dict[str, Task]:
        if not self._tasks:
            named = load_tasks(self.spec, self._load_task)
            self._tasks = {task.id: task for task in named.values()}
            # Tasks out of files are known by their ids from here on.
            spec, ids = self.spec, {given: task.id for given, task in named.items()}
            wanted = spec.named and tuple(ids.get(name, name) for name in spec.named)
            self.spec = replace(spec, tasks=tuple(self._tasks), named=wanted)
            self._sources = {task_id: given for given, task_id in ids.items() if given != task_id}
            check_permissions(self.spec, self._tasks)
        return self._tasks

    def settings(self) -> dict[str, Any]:
        """Before the models are open, those of the command and its tasks alone."""
        if not self._facts:
            return spec_settings(self.spec, self.tasks)
        return all_settings(self.spec, self.tasks, self._facts) | self._judge_facts.get("settings", {})

    @contextlib.contextmanager
    def open(self, old: RunStore | None) -> Iterator[None]:
        """Open every model once, and the judge. The first model stays open until its turn is over."""
        spec = self.spec
        _ = self.tasks  # what is wrong with them is told before a model is opened
        self._counter = length_tokenizer(spec, self._load_tokenizer)
        with contextlib.ExitStack() as stack:
            self._facts, self._first, self._first_open = open_models(
                spec, self._open_backend, self._counter, self.tasks
            )
            stack.enter_context(self._first_open)
            self._old, self._answered = old, old.answered_by_cell() if old is not None else {}
            if old is not None:
                counted = spec.max_requests is not None or spec.price_per_mtok is not None
                self._spending.before, self._carried = earlier(
                    old.manifest["sessions"],
                    old.rows() if counted else (),
                    self._price,
                    self._judge_price or self._price,
                )
            if spec.judge_model is not None and not spec.dry_run:
                judge = stack.enter_context(contextlib.closing(self._open_judge(spec.judge_model)))
                facts = model_facts(spec.judge_model, judge, None)
                self._judge = metered(judge, self._spending, self._judge_price or self._price, judging=True)
                self._judge_facts, self._paid = {"settings": {}}, facts.paid
                add_judge(self._judge_facts, facts)
            self._makers = Makers(
                SampleCache(spec.sample_cache),
                spec.limit,
                spec.seed,
                spec.workers,
                spec.haystack or spec.data_dir,
                spec.max_new_tokens or 0,
            )
            if not spec.dry_run:
                stack.enter_context(self._makers)
            self.models = {model.name: model_record(model) for model in self._facts}
            self.environment = hardware()
            yield

    def units(self, say: Callable[[str], None]) -> Sequence[PlannedCell]:
        old = self._old
        plan = make_plan(self.spec, self._facts, self.tasks, self._answered, say)
        cells, self.skips = plan.cells, plan.skips
        paces = self._paces(plan, say) if self.spec.dry_run else {}
        self._shards = plan.shards
        together = {
            model.name: float(model.describe.get("concurrency") or len(self.spec.devices) or 1) for model in self._facts
        }
        found = loads(plan, self._facts, self.tasks)
        self._forecast = forecast(found, self._price, self._judge_price, paces, together)
        # Cells that an earlier session finished make no samples again, so what it passed over in them is taken from it.
        complete = {(cell.model, cell.task, cell.ctx) for cell in cells if cell.n_done == cell.n}
        before = old.manifest["skips"] if old is not None else []
        self._passed_over = [dict(s) for s in before if (s["model"], s["task"], s["ctx"]) in complete]
        return cells

    def _paces(self, plan: Plan, say: Callable[[str], None]) -> dict[str, Pace | str]:
        """Of every model that has something to answer; each is open alone."""
        found: dict[str, Pace | str] = {}
        for model in self._facts:
            if any(name == model.name for name, _ in plan.samples):
                say(f"trying    the pace of {model.name}")
                with self._opened(model) as backend:
                    found[model.name] = try_pace(backend, model, plan)
        return found

    def facts(self) -> dict[str, Any]:
        judge = {name: value for name, value in self._judge_facts.items() if name != "settings"}
        assert self._forecast is not None
        session = {"forecast": self._forecast.record(), "paid": self._paid or any(model.paid for model in self._facts)}
        session |= {"carried": self._carried} if any(self._carried.values()) else {}
        own = {"skips": list(self.skips), "session": session, **judge}
        if self._shards:
            own["shards"] = list(self._shards)
        return {**run_facts(self.spec, self.tasks, self._facts, self._sources), **own}

    @contextlib.contextmanager
    def _opened(self, model: ModelFacts) -> Iterator[Backend]:
        """Two models need not fit into memory together: the first, open from the start, is closed before another is opened."""
        if model is self._facts[0]:
            with self._first_open:
                yield self._first
        else:
            self._first_open.close()
            with contextlib.closing(self._open_backend(model.given)) as backend:
                yield backend

    def measure(self, group: Sequence[PlannedCell], session: Session) -> Iterator[tuple[Asked, Row]]:
        """One model's cells."""
        model = next(model for model in self._facts if model.name == group[0].model)
        with self._opened(model) as backend:
            yield from self._ask(model, backend, group, session)

    def _ask(
        self, model: ModelFacts, backend: Backend, cells: Sequence[PlannedCell], session: Session
    ) -> Iterator[tuple[Asked, Row]]:
        def retrying(n: int, seconds: float, message: str) -> None:
            session.say(f"{model.name}: {n} requests again in {seconds:.0f}s ({message})")

        policy = Policy(
            seed=self.spec.seed,
            temperature=self.spec.temperature,
            top_p=self.spec.top_p,
            retries=self.spec.retries,
            retry_seconds=self.spec.retry_seconds,
            counter=self._counter,
            reasoning=tags(self.spec.reasoning),
            max_new_tokens=self.spec.max_new_tokens or 0,
            sleep=time.sleep,
            on_retry=retrying,
        )
        if isinstance(backend, Replicas):
            backend.say_to(session.say)
            cells = sorted(cells, key=lambda cell: -cell.ctx)  # else all would wait for the last of the longest
        asking = metered(backend, self._spending, self._price)
        limited = self.spec.max_cost is not None or self.spec.max_requests is not None
        begun = self._begun(model, backend, cells, session, lambda w: in_turn(w, asking, self._judge, policy))
        try:
            for asked, end in interleaved(begun, backend, limited):
                row = make_row(model.name, asked, end)
                if not_asked(row):
                    continue
                self._faults.see(asked, end, session)
                yield asked, row
        finally:
            self._note(model, backend)
        if self._spending.reached:
            session.stop(self._spending.message())

    def _begun(
        self,
        model: ModelFacts,
        backend: Backend,
        cells: Sequence[PlannedCell],
        session: Session,
        begin: Callable[[Sequence[Asked]], Iterator[tuple[Asked, End] | None]],
    ) -> Iterator[Iterator[tuple[Asked, End] | None]]:
        """Windows as they are begun, their prompts on the disk."""
        for window in self._windows(model, backend, cells, session):
            if self._spending.reached:
                return
            for asked in window:
                sample = asked.sample
                session.store.put_prompt(
                    model.name,
                    asked.task.id,
                    sample.ctx,
                    sample.prompt_hash,
                    sample.prompt,
                    sample.references,
                    sample.meta,
                )
            session.store.sync()
            yield begin(window)
            self._note(model, backend)

    def _note(self, model: ModelFacts, backend: Backend) -> None:
        """What the backend counted while it answered (tokens saved by sharing), of this session; and where replicas were."""
        replicas = backend if isinstance(backend, Replicas) else None
        if stats := replicas.counted() if replicas is not None else getattr(backend, "stats", None):
            self.stats[model.name] = dict(stats)
        if replicas is not None:
            self._workers[model.name] = replicas.record()

    def _windows(
        self, model: ModelFacts, backend: Backend, cells: Sequence[PlannedCell], session: Session
    ) -> Iterator[list[Asked]]:
        """The samples that are still to be asked, made as they are needed, in portions of up to window_tokens.

        The first portions are smaller, so that a run is not silent while its first samples are made.
        """
        window: list[Asked] = []
        tokens, budget = 0, max(1, self.spec.window_tokens // FIRST_WINDOW)
        # The first is made here, sample by sample, so that asking can begin with its first.
        self._makers.prepare([Cell(self.tasks[cell.task], model.counter, cell.ctx, cell.part) for cell in cells[1:]])
        for cell in cells:
            for sample in self._samples(model, cell, session):
                repeats = [r for r in range(self.spec.repeats) if _open(session.store, model, sample, r)]
                weight = len(repeats) * (sample.prompt_tokens + sample.max_new_tokens)
                if window and tokens + weight > budget and len(window) >= (self.spec.batch or 1):
                    yield window
                    window, tokens, budget = [], 0, min(2 * budget, self.spec.window_tokens)
                if repeats:
                    ids = _encode_once(backend.tokenizer, sample)
                    window += [
                        Asked(
                            self.tasks[cell.task],
                            sample,
                            repeat,
                            ids,
                            _earlier(session.store, model, sample, repeat),
                            model=model.name,
                        )
                        for repeat in repeats
                    ]
                    tokens += weight
                    session.meter.made(len(repeats), cell.ctx, window[-1].weight)
        if window:
            yield window

    def _samples(self, model: ModelFacts, cell: PlannedCell, session: Session) -> Iterator[Sample]:
        """The samples of a cell; what it lacks of those planned leaves the plan, as a skip or an error with its reason."""
        task, n_made, repeats = self.tasks[cell.task], 0, self.spec.repeats
        ids: set[str] = set()
        unfit: list[Unfit] = []
        try:
            for sample in self._makers.samples(task, model.counter, cell.ctx, cell.part):
                if isinstance(sample, Unfit):
                    unfit.append(sample)
                    continue
                if sample.id in ids:
                    raise ValueError(f"two samples have the id {sample.id}")
                ids.add(sample.id)
                n_made += 1
                yield sample
                if n_made * repeats == cell.n:
                    break
        except ContextTooSmall as error:
            session.skip(skip(model, task, cell.ctx, cell.n - n_made * repeats, error))
        except UsageError:
            raise
        except Exception as error:
            place = {"model": model.name, "task": cell.task, "ctx": cell.ctx}
            self._faults.unmade(place, cell.label, said(error), "".join(format_exception(error)), session)
            return
        if unfit:
            nearest = min(unfit, key=lambda one: one.minimum_tokens)
            why = ContextTooSmall(nearest.reason, nearest.minimum_tokens)
            session.skip(skip(model, task, cell.ctx, len(unfit) * repeats, why))
        session.meter.dropped(cell.n - n_made * repeats, cell.ctx)

    def _files(self) -> str:
        """Options of `kleval score` for the user's own files, which it runs when they are named."""
        named = {"--tasks": ",".join(self._sources.values()), "--metric": self.spec.metric}
        return "".join(f" {option} {shlex.quote(str(value))}" for option, value in named.items() if FILE in str(value))

    def verdict(self, session: Session) -> Verdict:
        skips = [*session.skips, *self._passed_over]
        counts = {
            "planned": session.meter.n_total,
            **session.store.counts(),
            "skipped": sum(record["n"] for record in skips),
        }
        missing = counts["planned"] - counts["finished"]
        faults = self._faults
        whys = [session.stopped] if session.stopped else []
        if not session.stopped and counts["failed"] > tolerated(self.max_errors, counts["planned"]):
            kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(faults.kinds.items()))
            whys.append(f"{counts['failed']} of {counts['planned']} answers failed ({kinds})")
        if faults.errors:
            whys += faults.whys()
        elif missing and not session.stopped:
            whys.append(f"{missing} of {counts['planned']} answers are missing")
        advice, again = faults.advice(bool(missing), self.spec.out, self._files())
        if self._spending.reached:
            advice, again = "", False
        session_fields: dict[str, Any] = {"backend_stats": self.stats, "spent": self._spending.record()}
        session_fields |= {"workers": self._workers} if self._workers else {}
        fields = {"skips": skips, "errors": faults.errors, "session": session_fields}
        return Verdict(counts, f"{'; '.join(whys)}{advice}" if whys else "", fields, again)


def _open(store: RunStore, model: ModelFacts, sample: Sample, repeat: int) -> bool:
    """Whether a sample is still to be asked. UsageError when the one that was answered under its id is another."""
    before = store.answered((model.name, sample.id, repeat))
    if before is None:
        return True
    if before != (sample.prompt_hash, sample.max_new_tokens):
        raise UsageError(
            f"{store.path} holds an answer to another sample named {sample.id} (its prompt or its generation "
            "budget was different): give another --out"
        )
    return False


def _earlier(store: RunStore, model: ModelFacts, sample: Sample, repeat: int) -> Mapping[int, Mapping[str, Any]]:
    """What stands of a sample's earlier answers though it failed."""
    row = store.row((model.name, sample.id, repeat))
    if row is None or (row.prompt_hash, row.max_new_tokens) != (sample.prompt_hash, sample.max_new_tokens):
        return {}
    return reusable(row.outcomes, "traceback" in (row.failure or {}))


def _encode_once(tokenizer: Tokenizer, sample: Sample) -> tuple[int, ...] | None:
    """Token ids shared by the repeats of a sample; None when they cannot be made, which its request will tell."""
    try:
        return encode(tokenizer, sample.prompt, sample.answer_prefix)
    except Exception:
        return None
