"""Table of `verify_engines`: a line per engine or fault, with all its runs, and a cell per law."""

from __future__ import annotations

from typing import Any

from kleval.verify.laws import LAWS

WHOLE = 100.0  # nats, which no fault reaches
MARKS = {"holds": "·", "broken": "**broken**", "undecided": "undecided", "not testable": "–"}

HEAD = """# `kleval verify` on right engines and on planted faults

Made by `python benchmarks/verify_engines.py --out reports/verify`; rows in rows.jsonl. The small server is the engine of
`benchmarks/verify_faults.py` (slots, chunks of 64 tokens, a prefix cache of blocks of 16) over a random Kimi Linear of four layers.
Its faults are planted at several strengths: in float32 such that a log-probability of their law's cases is shifted by about so many
nats, in bfloat16 by so many times the legal rounding that was measured of the right engine, or whole where that is less; in bfloat16
their own law alone is tried. The column `aim` says which were tried here; what has no line was not.

`largest`: the largest deviation of a broken law, nats; `times legal`: over the legal rounding that was measured in the same run.
`largest / limit`: over all laws and runs. CPU s: of this process without a server of another one, the most of a run. · holds,
– not testable, empty: not tried. ¹ made before the last change of the yardstick, which holds float32 to 0.003 nats and bfloat16 to
the steps of its logits: to be made again.
"""


def table(rows: list[dict[str, Any]]) -> str:
    """Right engines first, then faults: a line for each with all its runs, a cell per law."""
    lines = []
    for title, chosen in (
        ("Right engines", [r for r in rows if not r["fault"]]),
        ("Planted faults", [r for r in rows if r["fault"]]),
    ):
        if not chosen:
            continue
        now, earlier = ([r for r in chosen if bool(r.get("earlier")) is before] for before in (False, True))
        told = "; ".join(
            f"{sum(r['exit_code'] == 4 for r in some)} of {len(some)} runs called broken, "
            f"{sum(r['exit_code'] == 5 for r in some)} undecided{mark}"
            for some, mark in ((now, ""), (earlier, " ¹"))
            if some
        )
        lines.append(f"\n## {title}: {told}\n")
        more = (
            ["fault", "aim", "strength", "largest", "times legal"]
            if title.startswith("Pl")
            else ["runs", "largest / limit"]
        )
        head = ["engine", "dtype", "way", *more, "CPU s", *LAWS]
        lines += [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
        groups: dict[str, list[dict[str, Any]]] = {}
        for r in chosen:
            groups.setdefault(r["key"].rpartition("/")[0], []).append(r)
        for group in groups.values():
            r = group[0]
            told = [
                r["name"] + (" ¹" if r.get("earlier") else ""),
                r["dtype"],
                r["way"],
                *(_fault(r) if r["fault"] else _right(group)),
            ]
            told.append(round(max(one["cpu_seconds"] for one in group)))
            told += [_cell([one["laws"][law]["verdict"] for one in group if law in one["laws"]]) for law in LAWS]
            lines.append(f"| {' | '.join(map(str, told))} |")
    return "\n".join(lines)


def _cell(verdicts: list[str]) -> str:
    other = [v for v in verdicts if v != verdicts[0]]
    if not verdicts:
        return ""
    if not other:
        return MARKS[verdicts[0]]
    return ", ".join(f"{MARKS[v]} {verdicts.count(v)}" for v in dict.fromkeys(verdicts))


def _right(group: list[dict[str, Any]]) -> list[Any]:
    """Runs, and the largest deviation over its limit of all their laws."""
    found = [law for r in group for law in r["laws"].values() if law["deviation"] and law["limit"]]
    return [len(group), f"{max((law['deviation'] / law['limit'] for law in found), default=0.0):.2f}"]


def _aim(r: dict[str, Any]) -> str:
    """What the strength was chosen for."""
    if r["fault"] == "nan-slot":
        return f"{r['strength']:g} of the slots"
    if not 0 < r["size"] < (WHOLE if r["dtype"] == "float32" else float("inf")):
        return "whole"
    return f"{r['size']:g} nats" if r["dtype"] == "float32" else f"{r['size']:g} × legal"


def _fault(r: dict[str, Any]) -> list[Any]:
    broken = [law for law in r["laws"].values() if law["verdict"] == "broken"]
    worst = max(broken, key=lambda law: float("inf") if law["deviation"] is None else law["deviation"], default=None)
    if worst is None:
        return [r["fault"], _aim(r), r["strength"], "", ""]
    if worst["deviation"] is None:
        return [r["fault"], _aim(r), r["strength"], "not finite", ""]
    legal = f"{worst['deviation'] / worst['legal']:.3g}" if worst["legal"] > 1e-9 else ""
    return [r["fault"], _aim(r), r["strength"], f"{worst['deviation']:.3g}", legal]
