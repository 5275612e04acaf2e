from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kleval.backends.server_counts import PromptCounts
from kleval.types import Failure


def kinds(pairs: list[tuple[int, int]]) -> list[str]:
    counts = PromptCounts()
    return [
        got.kind if isinstance(got, Failure) else "said" if got else "whole"
        for got in (counts.judge(*pair) for pair in pairs)
    ]


def test_the_same_count_for_prompts_of_other_lengths_is_a_cut() -> None:
    assert kinds([(1000, 1300), (5000, 4096), (8000, 4096)]) == ["whole", "whole", "context_overflow"]


def test_half_of_the_usual_share_is_a_cut_and_a_little_less_is_said() -> None:
    usual = [(1000, 1300), (1100, 1430), (1200, 1560)]
    assert kinds([*usual, (4000, 2048)])[-1] == "context_overflow"
    assert kinds([*usual, (4000, 4000)])[-1] == "said"
    assert kinds([*usual, (4000, 5200)])[-1] == "whole"


def test_a_count_of_zero_says_nothing() -> None:
    assert kinds([(1000, 0), (8000, 0)]) == ["whole", "whole"]


@given(
    st.floats(0.5, 2.5),
    st.integers(0, 60),
    st.lists(st.tuples(st.sampled_from([1024, 2048, 4096, 8192]), st.floats(0.95, 1.0)), min_size=1, max_size=40),
)
def test_prompts_that_were_read_whole_are_never_called_cut(
    ratio: float, template: int, made: list[tuple[int, float]]
) -> None:
    pairs = [(int(length * filled), int(length * filled * ratio) + template) for length, filled in made]
    assert set(kinds(pairs)) <= {"whole"}
