"""What is shown of a long prompt: its beginning, each needle, its end; and what counts as a needle."""

from __future__ import annotations

from collections.abc import Callable

from stored_runs import make_run

from kleval.store import RunStore
from kleval.store.excerpts import AROUND, END, MOST, WHOLE, Excerpt, excerpt, needles

__all__ = ["make_run"]
MakeRun = Callable[..., RunStore]
HAY = "The grass is green. " * 2000


def marked(found: Excerpt) -> list[str]:
    return [run for _, runs in found.parts for run in runs[1::2]]


def joined(found: Excerpt) -> list[str]:
    return ["".join(runs) for _, runs in found.parts]


def test_a_short_text_is_its_own_excerpt() -> None:
    found = excerpt("x" * WHOLE)
    assert found.whole
    assert joined(found) == ["x" * WHOLE]


def test_a_long_text_keeps_its_beginning_its_end_and_the_needle_s_sentence() -> None:
    text = HAY + "The number is 7391. " + HAY + "What is the number?"
    found = excerpt(text, ["7391"])
    assert marked(found) == ["The number is 7391."]
    first, middle, last = joined(found)
    assert (first, last) == (text[:END], text[-END:])
    assert "The number is 7391." in middle
    assert AROUND * 0.9 <= len(middle) <= AROUND * 1.1
    assert not found.whole


def test_every_part_stands_where_it_says() -> None:
    text = "".join(f"line {i} of many\n" for i in range(3000))
    found = excerpt(text, ["line 700", "line 2100"])
    assert len(found.parts) == 4
    assert all(text.startswith(part, at) for (at, _), part in zip(found.parts, joined(found), strict=True))


def test_a_word_inside_a_longer_one_is_no_needle() -> None:
    assert needles("barrier and 17391", ["bar", "7391"]) == []


def test_a_reference_that_is_everywhere_marks_nothing_unless_the_depth_is_known() -> None:
    text = "red blue\n" * 1000
    assert needles(text, ["red"]) == []
    (span,) = needles(text, ["red"], depths=[50.0])
    assert abs(span[0] / len(text) - 0.5) < 0.01


def test_a_reference_with_a_prefix_of_its_own_is_found_by_its_end() -> None:
    poem = "a poem about the tapirs of the forest " * 8
    assert marked(excerpt(f"{HAY}{poem}{HAY}", [f"kQ7 {poem}"]))


def test_there_are_no_more_needles_than_are_shown() -> None:
    references = [f"word{i}" for i in range(3 * MOST)]
    assert len(needles("\n".join(references), references)) <= MOST


def test_an_excerpt_is_kept_beside_its_prompt_and_read_without_it(make_run: MakeRun) -> None:
    run = make_run(prompt=lambda m, t, c, i: f"{HAY}{t} {c} {i} has 42.\n{HAY}", tasks=("ruler/vt",), ctxs=(1024,))
    row = next(run.rows())
    made = excerpt(str(run.read_prompt(row)), row.references).json
    for file in (run.path / "prompts").glob("*.gz"):
        file.unlink()
    assert RunStore.open(run.path).read_excerpt(row) == made


def test_without_stored_excerpts_or_with_a_cut_one_they_are_made_from_the_prompts(make_run: MakeRun) -> None:
    run = make_run(prompt=lambda m, t, c, i: f"{HAY}{t} {c} {i} has 42.\n{HAY}", tasks=("ruler/vt",), ctxs=(1024,))
    before = [run.read_excerpt(row) for row in run.rows()]
    (file,) = (run.path / "prompts").glob("*.excerpts")
    file.write_bytes(file.read_bytes()[:-50])
    again = RunStore.open(run.path)
    assert [again.read_excerpt(row) for row in again.rows()] == before
    with RunStore.create(run.path, again.manifest) as store:
        assert file in store.repaired
    file.unlink()
    assert [again.read_excerpt(row) for row in RunStore.open(run.path).rows()] == before
