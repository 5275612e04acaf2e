"""One page of runs and profiles: what it says where both are there, and what it says where one is missing."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import zlib
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kleval.report.page import write_report
from kleval.store import Point, RunStore
from kleval.types import UsageError

Make = Callable[..., RunStore]
MODELS = ("kimi-linear@nano", "mla@nano")


class Words(HTMLParser):
    """Text, ids, links within the page and figures' data."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.text, self.ids, self.links, self.sections = "", [], [], []  # type: ignore[var-annotated]
        self._inside = ""
        self.data = ""
        self.feed(text)
        self.words = " ".join(self.text.split())
        self.figures = json.loads(zlib.decompress(base64.b64decode(self.data)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._inside = "figures" if given.get("id") == "figures" else tag
        if given.get("id"):
            self.ids.append(given["id"])
        if tag == "section":
            self.sections.append(given.get("id"))
        if tag == "a" and (given.get("href") or "").startswith("#"):
            self.links.append((given["href"] or "")[1:])

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "figures":
            self.data += data
        elif self._inside not in ("script", "style"):
            self.text += data


@pytest.fixture
def both(make_run: Make, make_profile: Make) -> list[RunStore]:
    """Two models at 4k and 8k, scored (the first always right, the second never) and profiled."""
    run = make_run(models=MODELS, ctxs=(4096, 8192), answer=lambda m, t, c, i: float(m == MODELS[0]), n=10)
    return [run, make_profile(architectures=("kimi-linear", "mla"), ctxs=(4096, 8192), repeats=2)]


def page(stores: list[RunStore], **given: Callable[[str], object]) -> Words:
    return Words(write_report(stores, stores[0].path / "page.html", **given).read_text("utf-8"))


def test_a_run_and_a_profile_are_one_page_in_the_order_a_reader_asks(both: list[RunStore]) -> None:
    found = page(both)
    assert found.words.startswith("Score and cost: kimi-linear@nano, mla@nano – kleval report")
    order = [
        "averages",
        "tasks",
        "heat",
        "differences",
        "score-cost",
        "p0-prefill-latency",
        "p0-tpot",
        "p0-state",
        "table",
    ]
    places = [found.sections.index(name) for name in [*order, "samples", "methods"]]
    assert places == sorted(places)
    assert len(found.ids) == len(set(found.ids))
    assert set(found.links) <= set(found.ids)
    assert set(found.figures) <= set(found.ids)


def test_scores_stand_beside_costs_of_the_same_model_and_length(both: list[RunStore]) -> None:
    found = page(both)
    profile = both[1]
    (state,) = [
        p.values["state_bytes"] for p in profile.points() if (p.kind, p.model, p.ctx) == ("memory", MODELS[0], 8192)
    ]
    drawn = {trace["name"]: trace for trace in found.figures["fig-score-state-bytes-0"]["data"]}
    kimi, mla = (drawn[model] for model in MODELS)
    assert kimi["x"][1] == state
    assert kimi["y"] == [100.0, 100.0]
    assert mla["y"] == [0.0, 0.0]
    assert kimi["text"] == ["4k", "8k"]
    assert {"fig-score-tpot-ms-batch1-0", "fig-score-prefill-seconds-full-0"} <= set(found.figures)
    row = re.search(r"kimi-linear@nano\s*4k\s*100\.0 +\(.{5,20}\)\s*[\d.]+ (ms|µs|s)", found.words)
    assert row
    assert "fig-score-largest-batch-0" not in found.figures
    assert "Each line is a model, each of its points a context length" in found.words


def test_whose_costs_they_are_is_said(both: list[RunStore]) -> None:
    assert "kimi-linear@nano: profile profile; random weights; dtype bfloat16, the run float32" in page(both).words


def test_models_that_do_not_meet_stand_side_by_side_and_the_page_says_so(make_run: Make, make_profile: Make) -> None:
    found = page([make_run(models=("other",)), make_profile(repeats=1, ctxs=(4096,))])
    assert "Nothing could be joined" in found.words
    assert "other: not joined: no profile of other (1k, 2k)." in found.words
    assert {"averages", "p0-prefill-latency"} <= set(found.sections)


def test_two_profiles_of_the_same_model_are_refused_by_name(both: list[RunStore], make_profile: Make) -> None:
    again = make_profile("again", architectures=("kimi-linear", "mla"), ctxs=(4096, 8192), repeats=1)
    with pytest.raises(UsageError, match=r"profile and .*again both hold the cost of kimi-linear@nano at 4k"):
        page([*both, again])


def test_two_profiles_of_one_name_are_two_files_to_download(make_profile: Make) -> None:
    stores = [
        make_profile(f"{where}/tonight", architectures=(where,), repeats=1, ctxs=(4096,)) for where in ("mla", "gdn-h")
    ]
    text = write_report(stores, stores[0].path / "page.html").read_text("utf-8")
    found = re.findall(r'href="data:text/csv;charset=utf-8;base64,([^"]+)" download="(tonight[^"]*)"', text)
    assert [name for _, name in found] == ["tonight.csv", "tonight-2.csv"]
    assert ["gdn-h@nano" in base64.b64decode(coded).decode() for coded, _ in found] == [False, True]


def test_a_directory_without_measurements_is_named_and_the_rest_is_shown(make_run: Make, make_profile: Make) -> None:
    empty = make_profile(change=lambda point: point if point.kind == "machine" else None)
    said: list[str] = []
    assert "All scores" in page([make_run(), empty], left_out=said.append).words
    assert len(said) == 1
    assert "holds no measurements" in said[0]


def test_the_same_records_give_the_same_bytes(both: list[RunStore], tmp_path: Path) -> None:
    one = write_report(both, tmp_path / "a.html").read_bytes()
    assert write_report(both, tmp_path / "b.html").read_bytes() == one


def test_hostile_names_are_text_in_the_joined_section_too(make_run: Make, make_profile: Make, tmp_path: Path) -> None:
    name = '"><img src=x onerror=alert(1)>'

    def change(point: Point) -> Point:
        return dataclasses.replace(point, model=point.model.replace("mla@nano", name)) if point.model else point

    profile = make_profile(architectures=("mla",), ctxs=(1024, 2048), repeats=1, change=change)
    text = write_report([make_run(models=(name,)), profile], tmp_path / "page.html").read_text("utf-8")
    assert "<img" not in text
    assert name in Words(text).text


def test_answers_that_were_cut_or_are_empty_stand_beside_their_score(make_run: Make) -> None:
    assert "Broken" not in page([make_run("whole")]).words
    found = page(
        [make_run(models=("one",), tasks=("ruler/vt",), ctxs=(1024,), n=2, text=lambda m, t, c, i: "" if i else "42")]
    )
    assert "Broken" in found.words
    assert "1 empty" in found.words


def test_depth_by_length_is_there_where_answers_stand_at_one_depth(make_run: Make) -> None:
    assert "depth" not in page([make_run("none")]).sections
    found = page(
        [make_run(meta=lambda m, t, c, i: {"depth_percent": [5.0 + 40 * i]}, answer=lambda m, t, c, i: float(i > 0))]
    )
    assert found.sections.index("heat") < found.sections.index("depth") < found.sections.index("differences")
    assert "one@nano Row1k2k 0–20 % 0.0 0.0 20–40 % – – 40–60 % 100.0 100.0" in found.words.replace("1k 2k", "1k2k")
    assert "(ruler/vt, ruler/cwe)" in found.words


def test_a_served_profile_shows_the_state_bytes_that_its_backend_said(make_profile: Make) -> None:
    def served(point: Point) -> Point | None:
        if (point.kind, point.protocol) != ("decode", "batch-1"):
            return None
        values = {"tpot_ms": 2.0, "ttft_ms": 9.0, "output_tokens_per_second": 50.0, "state_bytes": 1024.0 * point.ctx}
        return dataclasses.replace(
            point, id=f"s{point.id}", kind="served", protocol="concurrency-1", values=values, closed_form={}
        )

    found = page([make_profile(architectures=("mla",), ctxs=(4096, 8192), repeats=1, change=served)])
    assert "state" in found.sections
    assert "4.00 MiB1.00 KiB per token 8.00 MiB1.00 KiB per token" in found.words
    (curve,) = found.figures["fig-state-bytes-0"]["data"]
    assert curve["y"] == [4 << 20, 8 << 20]


def test_a_run_that_was_only_begun_is_named_and_the_rest_is_shown(make_run: Make) -> None:
    said: list[str] = []
    found = page([make_run(models=("here",)), make_run("begun", answer=lambda m, t, c, i: None)], left_out=said.append)
    assert "All scores" in found.words
    assert "Made by kleval from 1 stored directory: run." in found.words
    assert len(said) == 1
    assert said[0].endswith("begun has no answers yet")


def test_a_model_has_one_line_with_its_scores_and_its_costs_and_one_look(both: list[RunStore]) -> None:
    found = page([both[0], both[1]])
    assert re.search(
        r"kimi-linear@nano\s*scores\s*backend native .*costs\s*weights random .*mla@nano\s*scores", found.words
    )
    colours = {
        name: {
            trace["line"]["color"]
            for figure in found.figures.values()
            for trace in figure["data"]
            if trace.get("name") == name
        }
        for name in MODELS
    }
    assert [len(seen) for seen in colours.values()] == [1, 1]
    assert colours[MODELS[0]] != colours[MODELS[1]]


def test_panels_of_zeros_fold_into_one_line_and_count_in_the_average(make_run: Make) -> None:
    run = make_run(answer=lambda m, t, c, i: float(t == "ruler/vt"), n=4)
    found = page([run])
    assert "not drawn, but counted in every average: 1 task: cwe." in found.words
    assert "fig-task-0-0" in found.figures
    assert "fig-task-1-0" not in found.figures
    assert "averaged over all 2 tasks asked (builtin data), one@nano scores 50.0" in found.words


def test_what_is_better_when_lower_is_marked(both: list[RunStore]) -> None:
    found = page(both)
    assert "TPOT, batch 1 ↓ lower is better" in found.words
    assert "Time per token at 8k ↓" in found.words
    assert "Average score by context length ↓" not in found.words


def test_answers_have_lengths_and_shares_that_are_amiss_by_length(make_run: Make, failed: dict[str, str]) -> None:
    run = make_run(models=("one",), answer=lambda m, t, c, i: failed if c == 2048 and i else 1.0)
    found = page([run])
    assert found.figures["fig-answer-tokens-0"]["data"][-1]["y"] == [12, 12]
    assert [round(y, 1) for y in found.figures["fig-answers-failed-0"]["data"][-1]["y"]] == [0.0, 66.7]
    assert "No answer was cut or is empty or repeats itself to its end." in found.words


def test_the_front_holds_the_models_that_no_other_beats_at_the_longest_length(both: list[RunStore]) -> None:
    found = page(both)
    assert re.search(r"On the Pareto front at 8k, by the values alone: kimi-linear@nano", found.words)


def test_there_is_no_front_of_scores_over_other_tasks(make_run: Make, make_profile: Make) -> None:
    runs = [
        make_run("a", models=("kimi-linear@nano",), tasks=("ruler/vt",), ctxs=(4096,)),
        make_run("b", models=("mla@nano",), ctxs=(4096,)),
    ]
    found = page([*runs, make_profile(architectures=("kimi-linear", "mla"), ctxs=(4096,))])
    assert "Score against" in found.words
    assert "Pareto front" not in found.words


def test_the_papers_scores_stand_beside_ours_at_its_length(make_run: Make, ruler_tasks: tuple[str, ...]) -> None:
    found = page([make_run(models=("one",), tasks=(*ruler_tasks, "frames/oracle"), ctxs=(65536, 131072), n=1)])
    drawn = {trace.get("name"): trace for trace in found.figures["fig-average-0-0"]["data"]}
    paper = drawn["kimi-linear: paper (Tables 5 and 9)"]
    assert (len(paper["x"]), paper["y"]) == (1, [84.3])
