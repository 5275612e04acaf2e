"""Mathematical answers: found at the end of a solution, and the same however they are written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.short import maths, symbolic


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"So $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"First \boxed{1}, but then \boxed{2}.", "2"),
        (r"It is \boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed 7$ is it", "7"),
        ("The answer is 12.", "12"),
        ("The answer is 3.5.", "3.5"),
        ("Answer: 1,234\nThanks", "1,234"),
        ("The answer is\n\n 42\nbye", "42"),
        ("The answer is: x + 1. Done", "x + 1"),
        ("答案是12个", "12个"),
        ("**Final Answer:** 42", "42"),
        ("So the answer is **42**.", "42"),
        ("The answer is 2**3", "2**3"),
        ("The answer is", None),
        ("we get 3 and then 4", "4"),
        ("nothing here", None),
        ("", None),
        (r"\boxed{never closed", None),
    ],
)
def test_a_final_answer_is_found(text: str, found: str | None) -> None:
    assert maths.final(text) == found


SAME = [
    ("1/2", r"\frac{1}{2}"),
    ("0.5", r"\dfrac12"),
    (r"\frac12", r"\tfrac{1}{2}"),
    ("1,000", "1000"),
    ("(0,100)", "(0, 100)"),
    (r"\{1,000, 2\}", r"\{2,1000\}"),
    (r"$8\sqrt{10}$", r"8 \sqrt{10}"),
    (r"\sqrt{640}", r"8\sqrt{10}"),
    (r"\frac{\sqrt{3}}{2}", r"\sqrt3/2"),
    (r"\sqrt[3]{8}", "2"),
    ("x=5", "5"),
    (r"90^\circ", "90"),
    (r"25\%", "25"),
    (r"5\text{ }", "5"),
    (r"\left(1, 2\right)", "(1,2)"),
    (r"\{3, 1\}", r"\{1, 3\}"),
    (r"\frac{-1+\sqrt{17}}{2}, \frac{-1-\sqrt{17}}{2}", r"\frac{-1-\sqrt{17}}{2}, \frac{-1+\sqrt{17}}{2}"),
    (r"2^{25} \cdot 26!", r"26! \cdot 2^{25}"),
    (r"\pi r^2", r"r^2\pi"),
    ("2n-2+1", "2n - 1"),
    ("n(n+1)/4", r"\frac{1}{4}n(n+1)"),
    (r"\binom{5}{2}", "10"),
    ("-3", "−3"),
    (r"9\pi", r"\pi \cdot 3^2"),
    ("(0, \\infty)", "(0,\\infty)"),
    (r"1\frac{1}{2}", r"\frac{3}{2}"),
    (r"\sin(\pi/6)", r"\frac12"),
    (r"\log_2 8", "3"),
    (r"\cos 0", "1"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix} 1 & \frac{4}{2} \\ 3 & 4 \end{pmatrix}"),
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_the_same_answer_in_two_forms(a: str, b: str) -> None:
    assert maths.equal(a, b)
    assert maths.equal(b, a)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("1/3", "0.33"),
        ("3.14", r"\pi"),
        ("(1,2)", "(2,1)"),
        ("(0,1)", "[0,1]"),
        ("1, 2", "1, 2, 3"),
        ("", ""),
        ("", "0"),
        ("n+1", "n-1"),
        ("1000000007", "1000000008"),
        ("12 34", "408"),
        (r"\frac{1}{0}", "0"),
        ("x", "y"),
        (r"1\frac{1}{2}", r"\frac{1}{2}"),
        (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&2\\4&3\end{pmatrix}"),
    ],
)
def test_different_answers_differ(a: str, b: str) -> None:
    assert not maths.equal(a, b)


@pytest.mark.parametrize(
    "text", ["9^{9^{9^{9^9}}}", "9^9^9^9^9", "99999!", "(" * 300, "2^(2^(2^(2^(2^2))))", "((((1" * 80, "-" * 390]
)
def test_hostile_answers_are_different_and_harm_nobody(text: str) -> None:
    assert not maths.equal(text, "1")
    assert maths.equal("2/4", "0.5")  # whoever compares goes on


@settings(max_examples=50, deadline=None)
@given(st.integers(-999, 999), st.integers(1, 999))
def test_a_fraction_is_its_reduced_form(a: int, b: int) -> None:
    reduced = Fraction(a, b)
    assert maths.equal(f"\\frac{{{a}}}{{{b}}}", f"{reduced.numerator}/{reduced.denominator}")
    assert not maths.equal(f"\\frac{{{a}}}{{{b}}}", f"\\frac{{{a + 1}}}{{{b}}}")


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="0123456789+-*/^(){}[]\\,. =abfrcsqtpi!$", max_size=40))
def test_any_answer_equals_itself_and_nothing_crashes(text: str) -> None:
    assert maths.equal(text, text) == (maths.normalised(text) != "")
    maths.equal(text, "42")
    maths.final(text)


def test_other_threads_compare_too() -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(symbolic.same, [r"\sqrt{4}", "3", r"\frac{6}{3}"], ["2"] * 3))
    assert found == [True, False, True]


def test_answers_are_never_run_as_python(tmp_path: Path) -> None:
    target = tmp_path / "made"
    for text in (f"open('{target}','w')", f"__import__('os').mkdir('{target}')"):
        assert not maths.equal(text, "1")
    assert not target.exists()


def test_numbers_to_different_bases_are_not_equal() -> None:
    assert maths.equal("4210_5", "4210_{5}")
    assert maths.equal(r"4210_{\text{5}}", "4210_5")
    assert not maths.equal("4210_5", "4210_6")
    assert not maths.equal("10_{2}", "10_{3}")
