"""A profile's part of the page: curves with a table and a CSV beside each. A section that has no points is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kleval import text as words
from kleval.report import embed, profile_figures, profile_header, profile_tables
from kleval.report.parts import Part
from kleval.report.profile_figures import looks
from kleval.report.profile_lines import Entry, Figure
from kleval.report.profile_served import QUANTITIES, served_figure, served_grid
from kleval.report.profile_tables import Grid
from kleval.tables import cost_rows
from kleval.tables.costs import Profile

MAX_FAILURES = 40  # distinct messages on the page; the points hold all


@dataclass(frozen=True, slots=True)
class Panel:
    """One card: figures side by side with one legend, a table, and its numbers as CSV. names: of the figures, where several."""

    id: str
    title: str
    text: str
    figures: tuple[Figure, ...]
    grid: Grid
    csv: str
    names: tuple[str, ...] = ()

    @property
    def legend(self) -> list[Entry]:
        return list({entry.key: entry for figure in reversed(self.figures) for entry in figure.legend}.values())

    @property
    def download(self) -> str:
        return embed.data_uri(self.csv, "text/csv")

    def div(self, index: int) -> str:
        return f"fig-{self.id}-{index}"


@dataclass(frozen=True, slots=True)
class Failed:
    what: str
    kind: str
    message: str
    where: str
    n: int


def costs_part(profile: Profile, prefix: str = "") -> Part:
    """What the page says of a profile. prefix: of every id, where several parts share a page."""
    rows = cost_rows.records(profile)
    lead_in, names = profile_header.title(profile)
    prefill, decode = _prefill(profile, rows), _decode(profile, rows)
    ratio, state = _ratios(profile, rows), _state_ratio(profile, rows)
    bounds, kernels = _bounds(profile, rows), _kernels(profile, rows)
    served = _served(profile, rows)
    panels = [*served, *prefill, *decode, *ratio, *state, *bounds, *kernels]
    drawn = {prefix + panel.div(i): figure.data for panel in panels for i, figure in enumerate(panel.figures)}
    return Part.rendered(
        "costs.html.j2",
        drawn,
        names=tuple(names),
        sources=(profile.name,),
        lead_in=lead_in,
        prefix=prefix,
        profile=profile,
        tiles=profile_header.tiles(profile),
        notices=profile_header.notices(profile),
        models=profile_header.model_facts(profile),
        run_facts=profile_header.run_facts(profile),
        environments=[profile_header.environment_facts(e) for e in profile.environments],
        looks=looks(profile),
        served=served,
        prefill=prefill,
        decode=decode,
        ratio=[*ratio, *state],
        bounds=bounds,
        kernels=kernels,
        checks=profile_tables.check_grid(profile),
        bars=profile_tables.state_bars(profile),
        memory=profile_tables.memory_grid(profile) if profile.of("memory") else None,
        memory_csv=embed.data_uri(cost_rows.part(rows, "memory"), "text/csv"),
        ceilings=list(dict.fromkeys(ceiling.text for ceiling in profile.ceilings())),
        steps=profile_tables.step_grid(profile) if profile.of("kernel", "recurrent") else None,
        steps_csv=embed.data_uri(cost_rows.part(rows, "kernel", ["recurrent"]), "text/csv"),
        failures=failures(profile),
        max_failures=MAX_FAILURES,
        unmeasured=unmeasured(profile),
        whole_csv=embed.data_uri(cost_rows.to_csv(rows, cost_rows.COLUMNS), "text/csv"),
    )


Rows = Sequence[dict[str, Any]]


def _served(profile: Profile, rows: Rows) -> list[Panel]:
    if not profile.of("served"):
        return []
    csv = cost_rows.part(rows, "served")
    panels = []
    for quantity, (name, _, text) in QUANTITIES.items():
        figure, grid = served_figure(profile, quantity), served_grid(profile, quantity)
        panels.append(Panel(f"served-{quantity}", name, text, (figure,), grid, csv))
    return _panels(panels)


def _prefill(profile: Profile, rows: Rows) -> list[Panel]:
    if not profile.of("prefill"):
        return []
    text = "Whole prompt to first logits, batch 1, warmed up; whiskers are the smallest and the largest repeat."
    if "sampled" in profile.protocols("prefill"):
        text += " Hollow markers: sampled, an estimate from chunks timed along the prompt."
    figure, grid = profile_figures.prefill_figure(profile), profile_tables.prefill_grid(profile)
    return _panels([Panel("prefill", "Prefill latency", text, (figure,), grid, cost_rows.part(rows, "prefill"))])


def _decode(profile: Profile, rows: Rows) -> list[Panel]:
    panels = []
    for protocol in profile.protocols("decode"):
        name, text = protocol_words(protocol)
        figure, grid = profile_figures.decode_figure(profile, protocol), profile_tables.decode_grid(profile, protocol)
        panels.append(
            Panel(protocol, f"TPOT, {name}", text, (figure,), grid, cost_rows.part(rows, "decode", [protocol]))
        )
    return _panels(panels)


def protocol_words(protocol: str) -> tuple[str, str]:
    """A decode protocol's name, and what it measures."""
    if protocol == "largest-batch":
        return (
            "largest batch that fits",
            "As many sequences as fit the memory budget, so another batch for every model and depth (in the table). "
            "Time of a step over its batch: what one token costs when all are counted.",
        )
    if protocol == "batch-1":
        return "batch 1", "One sequence: what its reader waits for a token."
    batch = protocol.removeprefix("batch-")
    return f"batch {batch}", f"{batch} sequences in every model. Time of a step over its batch."


def _ratios(profile: Profile, rows: Rows) -> list[Panel]:
    panels = []
    for kind, protocol in dict.fromkeys((r.kind, r.protocol) for r in profile.ratios):
        if kind == "prefill":
            name = "Prefill latency" + (", sampled (estimate)" if protocol == "sampled" else ", run in full")
            allowed = "operations"
        else:
            name, allowed = f"TPOT, {protocol_words(protocol)[0]}", "bytes"
        text = (
            f"Dotted: what {allowed} alone allow. Paired repeat by repeat; whiskers are 95 % intervals of the geometric mean "
            "(Student's t), none for a single repeat."
        )
        figure = profile_figures.ratio_figure(profile, kind, protocol)
        grid = profile_tables.ratio_grid(profile, kind, protocol)
        csv = cost_rows.part(rows, kind, [protocol])
        panels.append(Panel(f"ratio-{kind}-{protocol}", name, text, (figure,), grid, csv))
    order = {"full": 0, "sampled": 1, "batch-1": 2}
    return _panels(sorted(panels, key=lambda p: order.get(p.id.split("-", 2)[2], 3)))


def _state_ratio(profile: Profile, rows: Rows) -> list[Panel]:
    if not profile.state_ratios():
        return []
    text = "Bytes of one sequence's state: the baseline's over the model's. Dashed: what it tends to, by the layers that keep a cache."
    figure, grid = profile_figures.state_ratio_figure(profile), profile_tables.state_ratio_grid(profile)
    return _panels([Panel("ratio-state", "State bytes", text, (figure,), grid, cost_rows.part(rows, "memory"))])


def _bounds(profile: Profile, rows: Rows) -> list[Panel]:
    panels = []
    for kind in ("prefill", "decode"):
        for protocol in profile.protocols(kind):
            found = [m for m in profile.of(kind, protocol) if m.bound]
            if not found:
                continue
            if kind == "prefill":
                name = "Prefill, sampled (estimate)" if protocol == "sampled" else "Prefill, run in full"
                text = "Bound: operations over the machine's matrix rate. MFU: bound over measured."
            else:
                name = f"Decode, {protocol_words(protocol)[0]}"
                text = (
                    "Bound: the longer of bytes over copy bandwidth and operations over matrix rate. MBU: bytes over copy "
                    "bandwidth, as a share of the measured time."
                )
            both = profile_figures.bound_figure, profile_figures.utilisation_figure
            figures = tuple(make(profile, kind, protocol) for make in both)
            names = ("measured, and bound (dotted)", "MFU" if kind == "prefill" else "MBU")
            grid = profile_tables.bound_grid(profile, kind, protocol)
            csv = cost_rows.part(rows, kind, [protocol])
            panels.append(Panel(f"bound-{kind}-{protocol}", name, text, figures, grid, csv, names))
    return _panels(panels)


def _kernels(profile: Profile, rows: Rows) -> list[Panel]:
    panels = []
    csv = cost_rows.part(rows, "kernel", ["chunk"])
    for heads, dim in dict.fromkeys((m.heads, m.head_dim) for m in profile.of("kernel", "chunk")):
        figure, grid = (
            profile_figures.kernel_figure(profile, heads, dim),
            profile_tables.kernel_grid(profile, heads, dim),
        )
        text = f"Forward of one operator alone, batch 1, {heads} heads of {dim}. Whiskers: smallest and largest repeat."
        panels.append(Panel(f"kernel-{heads}-{dim}", f"{heads} heads of {dim}", text, (figure,), grid, csv))
    if profile.kernel_ratios:
        text = (
            "How many times longer the general form takes than KDA, its special case: the paper says about 2x. "
            "Whiskers are 95 % intervals over paired repeats."
        )
        figure, grid = profile_figures.kernel_ratio_figure(profile), profile_tables.kernel_ratio_grid(profile)
        panels.append(Panel("kernel-ratio", "General DPLR over KDA", text, (figure,), grid, csv))
    return _panels(panels)


def _panels(panels: Sequence[Panel]) -> list[Panel]:
    """Those with something in them; a figure without a line is left out of its panel, its table stays."""
    kept = []
    for panel in panels:
        some = [i for i, figure in enumerate(panel.figures) if not figure.empty]
        figures = tuple(panel.figures[i] for i in some)
        names = tuple(panel.names[i] for i in some) if panel.names else ()
        if figures or panel.grid.rows:
            kept.append(Panel(panel.id, panel.title, panel.text, figures, panel.grid, panel.csv, names))
    return kept


def failures(profile: Profile) -> list[Failed]:
    """Per message, the most frequent first."""
    found: dict[tuple[str, str, str], list[int]] = {}
    for point in profile.failures:
        what = f"{point.model} · {point.kind} {point.protocol}".removeprefix(" · ")
        reason = point.failure or {}
        key = (what, reason.get("kind", "unknown"), reason.get("message", ""))
        found.setdefault(key, []).append(point.ctx)
    rows = [
        Failed(*key, ", ".join(words.format_length(ctx) for ctx in sorted(set(ctxs))), len(ctxs))
        for key, ctxs in found.items()
    ]
    return sorted(rows, key=lambda row: (-row.n, row.what, row.message))


def unmeasured(profile: Profile) -> list[tuple[str, str, str]]:
    """What was asked for and never measured: (what, length, reason)."""
    found = []
    for one in profile.get("unmeasured", default=[]):
        heads = f", {one['heads']} heads" if one.get("heads") else ""
        what = f"{one.get('model') or one.get('operator')} · {one.get('protocol')}{heads}"
        found.append((what, words.format_length(int(one.get("ctx") or 0)), str(one.get("reason") or "")))
    return found
