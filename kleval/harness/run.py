"""Plan, ask, store, go on: one command, safe to kill and to run again."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kleval.harness import events as ev
from kleval.harness.asking import Asked, End, Policy, describe, encode, finish
from kleval.harness.earlier import reusable
from kleval.harness.filing import make_row
from kleval.harness.manifest import add_judge, caveats, make_manifest
from kleval.harness.opening import check_permissions, length_tokenizer, load_tasks, look_at, open_models
from kleval.harness.plan import (
    LoadTask,
    ModelFacts,
    OpenBackend,
    Plan,
    PlannedCell,
    Skip,
    make_plan,
    model_facts,
    skip,
)
from kleval.harness.progress import Meter
from kleval.harness.spec import EXIT_CODES, RunResult, RunSpec
from kleval.store import RunStore
from kleval.store.manifest import Status, now
from kleval.tasks.makers import Makers
from kleval.tasks.sample_cache import SampleCache
from kleval.types import Backend, ContextTooSmall, Sample, Task, Tokenizer, Unfit, UsageError

MANIFEST_EVERY_SECONDS = 15.0
FIRST_WINDOW = 8
OnEvent = Callable[[ev.Event], None]


def run(
    spec: RunSpec,
    open_backend: OpenBackend,
    load_task: LoadTask,
    on_event: OnEvent = lambda event: None,
    load_tokenizer: Callable[[str], Tokenizer] | None = None,
    open_judge: OpenBackend | None = None,
) -> RunResult:
    """Do what spec says, continuing what its run directory already holds. The harness prints nothing; see events.py.

    open_backend, load_task: by the names in spec. open_judge: for spec.judge_model; open_backend unless given.
    load_tokenizer: for spec.tokenizer; kleval.tokenization's unless given. Rows are on the disk when their event comes. A
    task that asks a judge announces it with an attribute `needs_judge`, one that runs generated code with
    `needs_code_execution`, so that what is missing is told before anything is asked.
    A KeyboardInterrupt ends the run with the state saved and is not raised again (exit code 130).
    UsageError: what is asked cannot be done, or the run directory belongs to another command, is in use, damaged or full.
    """
    spec.check()
    tasks = load_tasks(spec, load_task)
    check_permissions(spec, tasks)
    answered = look_at(spec, tasks)
    counter = length_tokenizer(spec, load_tokenizer)
    with contextlib.ExitStack() as stack:
        models, first, first_open = open_models(spec, open_backend, counter)
        stack.enter_context(first_open)
        plan = make_plan(spec, models, tasks, answered)
        if spec.dry_run:
            return _dry_run(spec, models, plan, on_event)
        assert spec.out is not None
        continued = RunStore.exists(spec.out)
        before = RunStore.open(spec.out).manifest["skips"] if continued else []
        manifest = make_manifest(spec, tasks, models, plan)
        judge = None
        if spec.judge_model is not None:
            judge = stack.enter_context(contextlib.closing((open_judge or open_backend)(spec.judge_model)))
            add_judge(manifest, model_facts(spec.judge_model, judge, None))
        store = stack.enter_context(RunStore.create(spec.out, manifest, spec.amend))
        makers = Makers(SampleCache(spec.sample_cache), spec.limit, spec.seed, spec.workers, spec.data_dir)
        stack.enter_context(makers)
        session = _Session(spec, tasks, models, plan, store, on_event, counter, makers, before)
        session.begin(continued)
        return session.run(open_backend, first, first_open, judge)


class _Session:
    """One time that a command runs: everything that the steps of it share."""

    def __init__(
        self,
        spec: RunSpec,
        tasks: Mapping[str, Task],
        models: list[ModelFacts],
        plan: Plan,
        store: RunStore,
        on_event: OnEvent,
        counter: Tokenizer | None,
        makers: Makers,
        before: Sequence[Mapping[str, Any]],
    ) -> None:
        self.spec, self.tasks, self.models, self.plan, self.store = spec, tasks, models, plan, store
        self.on_event, self.counter, self.makers = on_event, counter, makers
        self.meter = Meter(plan)
        # Cells that an earlier session finished make no samples again, so what it passed over in them is taken from it.
        complete = {(cell.model, cell.task, cell.ctx) for cell in plan.cells if cell.n_answered == cell.n}
        self.skips: list[dict[str, Any]] = [skip.record() for skip in plan.skips]
        self.skips += [dict(s) for s in before if (s["model"], s["task"], s["ctx"]) in complete]
        self.errors: list[dict[str, Any]] = []
        self.failures: Counter[str] = Counter()
        self.stats: dict[str, dict[str, int]] = {}
        self.stopped = ""
        self.written = time.monotonic()

    def begin(self, continued: bool) -> None:
        amendments = self.store.manifest["amendments"]
        self.on_event(
            ev.Started(
                self.spec,
                self.spec.out,
                tuple(model.name for model in self.models),
                continued,
                tuple(self.store.manifest["caveats"]),
                tuple(self.store.repaired),
                tuple(amendments[-1]["changes"]) if self.spec.amend and amendments else (),
            )
        )

    def run(
        self, open_backend: OpenBackend, first: Backend, first_open: contextlib.ExitStack, judge: Backend | None
    ) -> RunResult:
        """Ask everything that is open and say how it ended, in the manifest and as the last event.

        first: the first model's backend, which leaving first_open closes.
        """
        try:
            self.on_event(ev.Planned(self.plan))
            for known in self.plan.skips:
                self.on_event(ev.Skipped(known))
            with first_open:
                if self._has_work(self.models[0]):
                    self._ask(self.models[0], first, judge)
            for model in self.models[1:]:
                if self._has_work(model):
                    with contextlib.closing(open_backend(model.given)) as backend:
                        self._ask(model, backend, judge)
            result = self._result()
            self._save(result.status, over=True)
        except KeyboardInterrupt:
            result = self._ended("interrupted", EXIT_CODES["interrupted"], "interrupted, everything answered is kept")
        except BaseException as error:
            self._ended("interrupted", 2 if isinstance(error, UsageError) else 1, describe(error))
            raise
        else:
            self.on_event(ev.Finished(result))
        return result

    def _has_work(self, model: ModelFacts) -> bool:
        cells = [cell for cell in self.plan.cells if cell.model == model.name]
        return not self.stopped and any(cell.n_answered < cell.n for cell in cells)

    def _ask(self, model: ModelFacts, backend: Backend, judge: Backend | None) -> None:
        policy = Policy(
            seed=self.spec.seed,
            temperature=self.spec.temperature,
            top_p=self.spec.top_p,
            retries=self.spec.retries,
            retry_seconds=self.spec.retry_seconds,
            counter=self.counter,
            sleep=time.sleep,
            on_retry=lambda n, seconds, message: self.on_event(ev.Retrying(model.name, n, seconds, message)),
        )
        for window in self._windows(model, backend):
            for asked in window:
                sample = asked.sample
                self.store.put_prompt(model.name, asked.task.id, sample.ctx, sample.prompt_hash, sample.prompt)
            self.store.sync()
            for asked, end in finish(window, backend, judge, policy):
                self._file(model, asked, end)
                if self.stopped:
                    break
            self._note_stats(model, backend)
            if self.stopped:
                return

    def _windows(self, model: ModelFacts, backend: Backend) -> Iterator[list[Asked]]:
        """The samples that are still to be asked, made as they are needed, in portions of up to window_tokens.

        The first portions are smaller, so that a run is not silent while its first samples are made.
        """
        window: list[Asked] = []
        tokens, budget = 0, max(1, self.spec.window_tokens // FIRST_WINDOW)
        cells = [cell for cell in self.plan.cells if cell.model == model.name and cell.n_answered < cell.n]
        # The first is made here, sample by sample, so that asking can begin with its first.
        self.makers.prepare([(self.tasks[cell.task], model.counter, cell.ctx) for cell in cells[1:]])
        for cell in cells:
            for sample in self._samples(model, cell):
                repeats = [r for r in range(self.spec.repeats) if self._open(model, sample, r)]
                weight = len(repeats) * (sample.prompt_tokens + sample.max_new_tokens)
                if window and tokens + weight > budget and len(window) >= (self.spec.batch or 1):
                    yield window
                    window, tokens, budget = [], 0, min(2 * budget, self.spec.window_tokens)
                if repeats:
                    ids = _encode_once(backend.tokenizer, sample)
                    window += [
                        Asked(self.tasks[cell.task], sample, repeat, ids, self._earlier(model, sample, repeat))
                        for repeat in repeats
                    ]
                    tokens += weight
                    self.meter.made(len(repeats), cell.ctx, window[-1].weight_tokens)
        if window:
            yield window

    def _samples(self, model: ModelFacts, cell: PlannedCell) -> Iterator[Sample]:
        """The samples of a cell; what it lacks of those planned leaves the plan, as a skip or an error with its reason."""
        task, n_made, repeats = self.tasks[cell.task], 0, self.spec.repeats
        ids: set[str] = set()
        unfit: list[Unfit] = []
        try:
            for sample in self.makers.samples(task, model.counter, cell.ctx):
                if isinstance(sample, Unfit):
                    unfit.append(sample)
                    continue
                if sample.id in ids:
                    raise ValueError(f"two samples have the id {sample.id}")
                ids.add(sample.id)
                n_made += 1
                yield sample
                if n_made == self.spec.limit:
                    break
        except ContextTooSmall as error:
            self._skipped(skip(model, task, cell.ctx, cell.n - n_made * repeats, error))
        except UsageError:
            raise
        except Exception as error:
            failed = ev.TaskFailed(model.name, cell.task, cell.ctx, describe(error))
            self.errors.append({"model": model.name, "task": cell.task, "ctx": cell.ctx, "message": failed.message})
            self.on_event(failed)
            return
        if unfit:
            nearest = min(unfit, key=lambda one: one.minimum_tokens)
            why = ContextTooSmall(nearest.reason, nearest.minimum_tokens)
            self._skipped(skip(model, task, cell.ctx, len(unfit) * repeats, why))
        self.meter.dropped(cell.n - n_made * repeats, cell.ctx)

    def _skipped(self, known: Skip) -> None:
        self.skips.append(known.record())
        self.on_event(ev.Skipped(known))

    def _open(self, model: ModelFacts, sample: Sample, repeat: int) -> bool:
        """Whether a sample is still to be asked. UsageError when the one that was answered under its id is another."""
        before = self.store.answered((model.name, sample.id, repeat))
        if before is None:
            return True
        if before != (sample.prompt_hash, sample.max_new_tokens):
            raise UsageError(
                f"{self.store.path} holds an answer to another sample named {sample.id} (its prompt or its generation "
                "budget was different): give another --out"
            )
        return False

    def _earlier(self, model: ModelFacts, sample: Sample, repeat: int) -> Mapping[int, Mapping[str, Any]]:
        """What stands of a sample's earlier answers though it failed."""
        row = self.store.row((model.name, sample.id, repeat))
        if row is None or (row.prompt_hash, row.max_new_tokens) != (sample.prompt_hash, sample.max_new_tokens):
            return {}
        return reusable(row.outcomes)

    def _file(self, model: ModelFacts, asked: Asked, end: End) -> None:
        row = make_row(model.name, asked, end)
        self.store.append(row, asked.sample.prompt)
        if row.failure is not None:
            self.failures[row.failure["kind"]] += 1
        self.meter.done(asked.weight_tokens, row.failed)
        self.on_event(ev.RowDone(row))
        self.on_event(self.meter.progress(model.name))
        failed = self.meter.n_failed
        if self.spec.max_errors is not None and failed > self.spec.tolerated(self.meter.n_total):
            self.stopped = f"ended early: {failed} answers failed, more than --max-errors {self.spec.max_errors:g}"
        if time.monotonic() - self.written > MANIFEST_EVERY_SECONDS:
            self._save("running", over=False)

    def _note_stats(self, model: ModelFacts, backend: Backend) -> None:
        """What the backend counted while it answered (tokens saved by sharing), of this session."""
        stats = getattr(backend, "stats", None)
        if stats:
            self.stats[model.name] = dict(stats)

    def _counts(self) -> dict[str, int]:
        return {
            "planned": self.meter.n_total,
            **self.store.counts(),
            "skipped": sum(record["n"] for record in self.skips),
        }

    def _result(self) -> RunResult:
        counts = self._counts()
        missing = counts["planned"] - counts["finished"]
        whys = [self.stopped] if self.stopped else []
        if not self.stopped and counts["failed"] > self.spec.tolerated(counts["planned"]):
            kinds = ", ".join(f"{kind} {n}" for kind, n in sorted(self.failures.items()))
            whys.append(f"{counts['failed']} of {counts['planned']} answers failed ({kinds})")
        if self.errors:
            first = self.errors[0]
            whys.append(f"{first['task']} could not make its samples at {first['ctx']} ({first['message']})")
        elif missing and not self.stopped:
            whys.append(f"{missing} of {counts['planned']} answers are missing")
        if not whys:
            return RunResult("complete", EXIT_CODES["complete"], self.spec.out, counts)
        message = "; ".join(whys) + ": run the same command again to ask for them again"
        return RunResult("incomplete", EXIT_CODES["incomplete"], self.spec.out, counts, message)

    def _ended(self, status: Status, exit_code: int, message: str) -> RunResult:
        """For a run that something ended. The disk may be what ended it: then the manifest keeps saying `running`, which
        reads as interrupted once the lock is free."""
        result = RunResult(status, exit_code, self.spec.out, self._counts(), message)
        with contextlib.suppress(UsageError):
            self._save(status, over=True)
        self.on_event(ev.Finished(result))
        return result

    def _save(self, status: Status, over: bool) -> None:
        self.written = time.monotonic()
        at = now() if over else None
        sessions = list(self.store.manifest["sessions"])
        sessions[-1] = {**sessions[-1], "status": status, "finished": at, "backend_stats": self.stats}
        self.store.update(
            status=status,
            finished=at if status in ("complete", "incomplete") else None,
            counts=self._counts(),
            skips=self.skips,
            errors=self.errors,
            sessions=sessions,
        )


def _encode_once(tokenizer: Tokenizer, sample: Sample) -> tuple[int, ...] | None:
    """Token ids shared by the repeats of a sample; None when they cannot be made, which its request will tell."""
    try:
        return encode(tokenizer, sample.prompt, sample.answer_prefix)
    except Exception:
        return None


def _dry_run(spec: RunSpec, models: list[ModelFacts], plan: Plan, on_event: OnEvent) -> RunResult:
    names = tuple(model.name for model in models)
    continued = spec.out is not None and RunStore.exists(spec.out)
    on_event(ev.Started(spec, spec.out, names, continued, tuple(caveats(spec, models))))
    on_event(ev.Planned(plan))
    for known in plan.skips:
        on_event(ev.Skipped(known))
    skipped = sum(known.n for known in plan.skips)
    result = RunResult("complete", 0, None, {"planned": plan.n, "answered": plan.n_answered, "skipped": skipped})
    on_event(ev.Finished(result))
    return result
