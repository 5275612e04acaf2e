"""Wording of each kind of command that works, for kleval.cli.watch: a run, profiles of models, of served models and of kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from kleval.cli.sessions import speed_lines, spent_words
from kleval.text import duration, few, format_length, format_lengths, load, number, plural, size
from kleval.work import events as ev

if TYPE_CHECKING:
    from kleval.store import RunStore
    from kleval.work import Result

# Of a row of the leaderboard, what the `done` record has.
OF_SCORES = (
    *("model", "task", "ctx", "metric", "value", "ci_low", "ci_high", "n", "n_scored", "n_failed", "n_skipped"),
    *("edition", "protocol"),
)
OF_RUNS = ("suite", "tasks", "ctxs", "limit", "repeats", "edition", "protocol", "seed", "temperature")


Cells = Sequence[object]


class Show:
    """`kleval profile` of kleval's own decoders; other commands say some things differently.

    format: of what goes to stdout, one of profile_table.FORMATS. unit: what records are called, rate: what a unit of work is, where
    its pace says something. table: the file beside report.html, by its name in the `done` record. records: what the plan is
    counted in. plan_header: of the table that a dry run prints.
    """

    unit, rate, table, records = "points", "", "table", "points"
    plan_header: tuple[str, ...] = ("point", "batch", "expected s", "state")

    def __init__(self, spec: Any, format: str = "table") -> None:
        self.spec, self.format = spec, format

    def launch(self, event: ev.Started) -> dict[str, Any]:
        """Fields of the `launch` record."""
        return self._launch(self.spec.batches, event)

    def _launch(self, batches: Sequence[object], event: ev.Started) -> dict[str, Any]:
        told = {"settings": dict(event.settings), "environment": dict(event.environment)}
        return {"ctx": self.spec.ctxs, "batch": batches, **told}

    def head_lines(self, opening: bool = False) -> list[str]:
        """What is known before anything is opened, defaults included; empty: `first_lines` says it all. opening: it takes a while."""
        return []

    def first_lines(self, event: ev.Started) -> list[str]:
        """What decides the results, defaults included, beside the head."""
        spec, machine = self.spec, event.environment
        where = machine["gpu"] or f"{machine['cpu']}, {machine['threads']} threads"
        return [
            f"models    {', '.join(event.models)} (random weights)",
            f"ctx       {format_lengths(spec.ctxs)}",
            f"decode    batch {', '.join(map(str, spec.batches))}; prefill {spec.prefill}",
            f"machine   {where}; dtype {event.settings['dtype']}, torch {machine['torch']}",
        ]

    def plan_lines(self, event: ev.Planned) -> list[str]:
        plan = event.facts.get("plan", {"notes": (), "unmeasured": ()})
        lines = [f"note      {text}" for text in plan["notes"]]
        for one in plan["unmeasured"]:
            what = f"{one['model']}, {one['protocol']} at {format_length(one['ctx'])}"
            lines.append(f"not measured  {what}: {one['reason']}")
        if self.spec.dry_run:
            return lines
        before = f" ({event.n_done} are there already)" if event.n_done else ""
        return [*lines, f"work      {event.n_total - event.n_done} {self.records}{before}{self.work(event)}"]

    def work(self, event: ev.Planned) -> str:
        """What more is known of the work."""
        plan = event.facts["plan"]
        return (
            f", about {_seconds(event)} in all, chunks of {plan['chunk_tokens']}, states of a largest batch in "
            f"{size(plan['memory_budget'])}"
        )

    def planned(self, unit: Any, facts: Mapping[str, Any]) -> tuple[dict[str, Any], Cells] | None:
        """What a dry run says of a unit: a record, and cells below plan_header. None: nothing."""
        record = {"point": unit.id, "batch": unit.batch, "seconds": round(unit.seconds, 4)}
        record |= {"state_bytes": unit.state_bytes, "steps": unit.steps}
        return record, (unit.id, unit.batch, number(unit.seconds), size(unit.state_bytes))

    def dry_run(self, event: ev.Planned) -> str:
        return f"nothing was measured; {len(event.units)} points, about {_seconds(event)}"

    def print_results(self, store: RunStore) -> None:
        from kleval.cli.profile_table import print_profile
        from kleval.tables.costs import make_profile

        print_profile(make_profile(tuple(store.points()), store.manifest), self.format)

    def write_tables(self, store: RunStore) -> dict[str, Path]:
        """The files by what they are called at the end; `table` is the first."""
        from kleval.tables.cost_rows import write_profile_csv

        return {"table": write_profile_csv(store, store.path / "profile.csv")}

    def holds_results(self, store: RunStore, result: Result) -> bool:
        """Whether a page can be made of the directory."""
        return bool(result.counts.get("measured")) and any(point.kind != "machine" for point in store.points())

    def last_lines(self, store: RunStore, result: Result) -> list[str]:
        """What a reader must know before believing the results, above where they are."""
        return [f"note      {caveat}" for caveat in store.manifest["caveats"]]

    def done(self, result: Result) -> dict[str, Any]:
        """Further fields of the `done` record."""
        return {}


class RunShow(Show):
    """`kleval run`."""

    _forecast: Mapping[str, Any] | None = None
    unit, rate, table = "answers", "tokens", "leaderboard"

    def launch(self, event: ev.Started) -> dict[str, Any]:
        names = (*OF_RUNS, "backend", "device", "dtype")
        return {"ctx" if name == "ctxs" else name: getattr(self.spec, name) for name in names}

    def head_lines(self, opening: bool = False) -> list[str]:
        spec = self.spec
        what = f"suite {spec.suite}, {len(spec.tasks)} tasks" if spec.suite else few(spec.tasks)
        temperature = "greedy" if not spec.temperature else f"temperature {spec.temperature:g}"
        if spec.temperature is None and spec.edition == "official":
            temperature = "temperature each task’s own"
        return [
            f"tasks     {what}",
            f"data      edition {spec.edition}, protocol {spec.protocol or 'each task’s default'}, seed {spec.seed}",
            f"ctx       {format_lengths(spec.ctxs)} tokens of {spec.tokenizer or 'the model'}",
            f"samples   --limit {spec.limit} per task and length, --repeats {spec.repeats}, {temperature}",
            *([f"shard     {spec.shard}, an equal part of the samples at each length"] if spec.shard else []),
            *([f"opening   {', '.join(spec.models)}"] if opening else []),
        ]

    def first_lines(self, event: ev.Started) -> list[str]:
        opened = {} if self.spec.dry_run else event.models
        return [f"models    {'; '.join(self._where(name, opened.get(name, {})) for name in event.models)}"]

    def _where(self, name: str, model: Mapping[str, Any]) -> str:
        describe = model.get("describe", {})
        device, dtype = describe.get("device", self.spec.device), describe.get("dtype", self.spec.dtype)
        why = " (auto: this CPU has no units for bfloat16)" if describe.get("dtype_settled") else ""
        return f"{name} (backend {model.get('backend', self.spec.backend)}, device {device}, dtype {dtype}{why})"

    def plan_lines(self, event: ev.Planned) -> list[str]:
        before = f" ({event.n_done:,} of {event.n_total:,} are there already)" if event.n_done else ""
        session = event.facts["sessions"][-1]
        self._forecast = session["forecast"]
        return [
            *(f"caveat    {text}" for text in event.caveats),
            f"work      {plural(event.n_total - event.n_done, 'answer')}{before}, {_tokens(self._forecast)}",
            *self._expected(self._forecast, session["paid"]),
            *(f"skipped   {line}" for line in skipped_lines(event.skips)),
        ]

    def _expected(self, forecast: Mapping[str, Any], paid: bool) -> list[str]:
        """Time and money, as far as they are known."""
        spec, lines = self.spec, list[str]()
        if spec.dry_run:
            lines.append(f"time      {_span(forecast)}")
        if forecast["cost"] is not None:
            price = ",".join(f"{one:g}" for one in spec.price_per_mtok)
            lines.append(f"cost      at most about {forecast['cost']:.3g}, at {price} per million tokens")
        if paid and spec.max_cost is None and spec.max_requests is None:
            more = "" if forecast["cost"] is not None else "; --price-per-mtok IN,OUT says what it costs"
            lines.append(f"note      a key was given and no limit: --max-requests or --max-cost sets one{more}")
        return lines

    def planned(self, unit: Any, facts: Mapping[str, Any]) -> None:
        return None

    def dry_run(self, event: ev.Planned) -> str:
        timed = event.facts["sessions"][-1]["forecast"]["seconds"] is not None
        return "a few answers were timed, none was scored or stored" if timed else "nothing was asked"

    def print_results(self, store: RunStore) -> None:
        from kleval.cli.scores import print_run

        print_run(store)

    def holds_results(self, store: RunStore, result: Result) -> bool:
        return bool(result.counts.get("finished"))

    def write_tables(self, store: RunStore) -> dict[str, Path]:
        from kleval.tables import leaderboard, positions

        found = {"table": leaderboard.write_csv([store], store.path / "leaderboard.csv")}
        by_position = positions.write_csv(store, store.path / "positions.csv")
        return found if by_position is None else {**found, "positions": by_position}

    def last_lines(self, store: RunStore, result: Result) -> list[str]:
        spent = spent_words(store.manifest["sessions"], self.spec)
        # Its caveats are known before it begins; its tables do not end with a line.
        return ["", *speed_lines(store), *([f"spent     {spent}"] if spent else [])]

    def done(self, result: Result) -> dict[str, Any]:
        """Of a dry run the forecast, else the scores, as `kleval leaderboard --format jsonl` has them."""
        if self.spec.dry_run:
            return {"forecast": self._forecast}
        if result.out is None or not result.counts.get("finished"):
            return {"scores": []}
        from kleval.store import RunStore
        from kleval.tables.leaderboard import to_rows

        rows = to_rows([RunStore.open(result.out)])
        return {"scores": [{name: row[name] for name in OF_SCORES} for row in rows]}


def _tokens(forecast: Mapping[str, Any]) -> str:
    judged = f" ({forecast['judge_requests']:,} to the judge)" if forecast["judge_requests"] else ""
    read, written = (forecast[name] + forecast[f"judge_{name}"] for name in ("read", "written"))
    requests = plural(forecast["requests"], "request")
    return f"about {requests}{judged}, {_about(read)} tokens read and at most {_about(written)} written"


def _about(n: int) -> str:
    """To three digits."""
    return f"{float(f'{n:.3g}'):,.0f}"


def _span(forecast: Mapping[str, Any]) -> str:
    if forecast["seconds"] is None:
        return forecast["untried"] or "nothing is left to do"
    least, most = forecast["seconds"]
    if least == most:
        return f"at most about {duration(most)}, at the pace of answers tried just now"
    return f"about {duration(least)} to {duration(most)}: all places of --concurrency in use, or one, at the pace tried just now"


def stored_show(store: RunStore) -> RunShow:
    """The show of a run that a command knows by its directory alone."""
    groups = store.manifest.get("spec", {}).get("groups", {})
    return RunShow(SimpleNamespace(tasks=tuple(store.manifest["tasks"]), groups=groups))


def skipped_lines(skips: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per task and model, its lengths together."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for skip in skips:
        groups.setdefault((skip["model"], skip["task"]), []).append(skip)
    return [
        f"{model}, {task} at {format_lengths(tuple(skip['ctx'] for skip in group))}: {_why(group)}"
        for (model, task), group in groups.items()
    ]


def _why(skips: Sequence[Mapping[str, Any]]) -> str:
    most = max(skip["minimum_tokens"] for skip in skips)
    return f"its longest text has {most:,} tokens" if skips[0].get("too_short") else f"needs {most:,} tokens"


class ServedShow(Show):
    """`kleval profile` of a model whose requests are timed."""

    records = "rounds"
    plan_header = ("round", "load", "tokens each")

    def launch(self, event: ev.Started) -> dict[str, Any]:
        return self._launch(self.spec.concurrencies, event)

    def first_lines(self, event: ev.Started) -> list[str]:
        from kleval.tables.costs import software_of

        spec, settings = self.spec, event.settings
        url = settings.get("base_url")
        where = (
            f"at {url}"
            if isinstance(url, str)
            else ""
            if url
            else f"at --backend {settings['backend']} in this process"
        )
        prompts = settings["served.prompts"]
        words = f"prompts of random {'words, as ' if prompts != 'token ids' else ''}{prompts}"
        if spec.tasks:
            words = f"prompts and answers of {', '.join(spec.tasks)}"
        from kleval.profiler.served.planning import loads

        how = ", ".join(load(name) for name, _ in loads(spec)) + (f" ({spec.slo})" if spec.slo else "")
        rounds = f"{spec.repeats} rounds after one that is not counted"
        each = "" if spec.tasks else f", {spec.decode_tokens} tokens each"
        return [
            f"model     {', '.join(event.models)}{' ' if where else ''}{where} ({software_of(event.environment)})",
            f"ctx       {format_lengths(spec.ctxs)}, {words}",
            f"requests  {how}{each}, {rounds}",
        ]

    def work(self, event: ev.Planned) -> str:
        return ""

    def planned(self, unit: Any, facts: Mapping[str, Any]) -> tuple[dict[str, Any], Cells] | None:
        record, _ = super().planned(unit, facts) or ({}, ())
        return record, (unit.id, load(unit.protocol), unit.steps)

    def dry_run(self, event: ev.Planned) -> str:
        return f"nothing was measured; {len(event.units)} rounds"


class KernelShow(Show):
    """`kleval profile kernels`."""

    plan_header = ("operator", "form", "heads", "tokens", "GFLOP", "bytes")

    def launch(self, event: ev.Started) -> dict[str, Any]:
        return {"ctx": self.spec.ctxs, "heads": self.spec.heads, "head_dim": self.spec.head_dim}

    def first_lines(self, event: ev.Started) -> list[str]:
        heads = f"{', '.join(map(str, self.spec.heads))} heads of {self.spec.head_dim}"
        return [f"kernels   batch 1, {heads}, {format_lengths(self.spec.ctxs)} tokens"]

    def work(self, event: ev.Planned) -> str:
        return ""

    def planned(self, unit: Any, facts: Mapping[str, Any]) -> tuple[dict[str, Any], Cells] | None:
        from kleval.profiler.operators import flops, nbytes

        if unit.kind != "kernel" or unit.repeat:
            return None
        shape = (unit.model, unit.protocol, unit.ctx, unit.heads, self.spec.head_dim)
        n_flops, n_bytes = flops(*shape), nbytes(*shape, facts["dtype"])
        record = {"operator": unit.model, "protocol": unit.protocol, "heads": unit.heads, "ctx": unit.ctx}
        cells = (unit.model, unit.protocol, unit.heads, format_length(unit.ctx), f"{n_flops / 1e9:,.3g}", size(n_bytes))
        return {**record, "flops": n_flops, "bytes": n_bytes}, cells

    def dry_run(self, event: ev.Planned) -> str:
        shapes = sum(self.planned(unit, event.facts) is not None for unit in event.units)
        return f"nothing was measured; {shapes} shapes, {self.spec.repeats} repeats each"

    def last_lines(self, store: RunStore, result: Result) -> list[str]:
        left: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for one in result.skips:
            left.setdefault((one["operator"], one["heads"]), []).append(one)
        lines = []
        for (operator, heads), found in left.items():
            where = f"{operator}, {plural(heads, 'head')}, at {format_lengths([one['ctx'] for one in found])}"
            lines.append(f"not measured  {where} ({found[0]['reason']})")
        return [*lines, *super().last_lines(store, result)]

    def done(self, result: Result) -> dict[str, Any]:
        return {"unmeasured": result.skips}


def _seconds(event: ev.Planned) -> str:
    return duration(sum(unit.weight for unit in event.units))
