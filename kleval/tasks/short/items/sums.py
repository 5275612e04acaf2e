"""Mathematics that is computed, not looked up: the shapes of GSM8K, GSM8K-Platinum, MATH, MATH500, AIME 2025, HMMT 2025 and
PolyMath-en. Every template computes its answer from the numbers that it draws."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction

from kleval.tasks.short.question import Item, Items

GSM_SHOTS = 8
MATH_SHOTS = 4
_ASKED = 10
LEVELS = ("low", "medium", "high", "top")

Worked = tuple[str, str, str]  # question, reasoning, answer
Template = Callable[[random.Random], Worked]


def _shopping(rng: random.Random) -> Worked:
    n, price, more = rng.randint(3, 9), rng.randint(2, 12), rng.randint(5, 30)
    total = n * price + more
    return (
        f"Mia buys {n} notebooks for {price} dollars each and a bag for {more} dollars. How many dollars does she pay?",
        f"The notebooks cost {n} * {price} = {n * price} dollars. With the bag it is {n * price} + {more} = {total} dollars.",
        str(total),
    )


def _sharing(rng: random.Random) -> Worked:
    children, each, left = rng.randint(3, 8), rng.randint(4, 12), rng.randint(1, 2)
    total = children * each + left
    return (
        f"{children} children share {total} marbles equally and keep as many as they can. How many marbles are left over?",
        f"Each child gets {each} marbles, which takes {children} * {each} = {children * each}."
        f" There are {total} - {children * each} = {left} left.",
        str(left),
    )


def _saving(rng: random.Random) -> Worked:
    start, week, weeks = rng.randint(10, 60), rng.randint(3, 15), rng.randint(4, 12)
    total = start + week * weeks
    return (
        f"Omar has {start} dollars and saves {week} dollars a week. How many dollars does he have after {weeks} weeks?",
        f"In {weeks} weeks he saves {weeks} * {week} = {weeks * week} dollars. He has {start} + {weeks * week} = {total}.",
        str(total),
    )


def _bakery(rng: random.Random) -> Worked:
    trays, each, sold = rng.randint(4, 9), rng.randint(6, 12), rng.randint(5, 20)
    left = trays * each - sold
    return (
        f"A baker fills {trays} trays with {each} rolls each and sells {sold} rolls. How many rolls are left?",
        f"There are {trays} * {each} = {trays * each} rolls. After the sale {trays * each} - {sold} = {left} are left.",
        str(left),
    )


def _trip(rng: random.Random) -> Worked:
    speed, hours, rest = rng.randint(4, 9) * 10, rng.randint(2, 5), rng.randint(10, 40)
    total = speed * hours + rest
    return (
        f"A bus drives {hours} hours at {speed} km per hour and then {rest} km more. How many km does it drive?",
        f"In {hours} hours it drives {hours} * {speed} = {hours * speed} km. With the rest it is {total} km.",
        str(total),
    )


_STORIES: tuple[Template, ...] = (_shopping, _sharing, _saving, _bakery, _trip)


def _linear(rng: random.Random) -> Worked:
    a, x, b = rng.randint(2, 9), rng.randint(-9, 9), rng.randint(1, 20)
    right = a * x + b
    return f"Solve ${a}x + {b} = {right}$ for $x$.", f"We have ${a}x = {right - b}$, so $x = {x}$.", str(x)


def _fractions(rng: random.Random) -> Worked:
    a, b, c = rng.randint(1, 5), rng.randint(6, 9), rng.randint(2, 5)
    total = Fraction(a, b) + Fraction(1, c)
    return (
        f"Compute $\\frac{{{a}}}{{{b}}} + \\frac{{1}}{{{c}}}$.",
        f"Over the common denominator ${b * c}$ the sum is $\\frac{{{a * c + b}}}{{{b * c}}}$.",
        _latex(total),
    )


def _diagonal(rng: random.Random) -> Worked:
    a, b = rng.randint(1, 6), rng.randint(7, 11)
    return (
        f"A rectangle has sides ${a}$ and ${b}$. How long is its diagonal?",
        f"Its square is ${a * a} + {b * b} = {a * a + b * b}$.",
        _root(a * a + b * b),
    )


def _choose(rng: random.Random) -> Worked:
    n, k = rng.randint(5, 9), rng.randint(2, 3)
    return (
        f"In how many ways can ${k}$ people be chosen from ${n}$?",
        f"The number is $\\binom{{{n}}}{{{k}}}$.",
        str(math.comb(n, k)),
    )


def _disc(rng: random.Random) -> Worked:
    r = rng.randint(2, 12)
    return f"What is the area of a disc of radius ${r}$?", f"The area is $\\pi \\cdot {r}^2$.", f"{r * r}\\pi"


_EXERCISES: tuple[Template, ...] = (_linear, _fractions, _diagonal, _choose, _disc)


def _power(rng: random.Random) -> Worked:
    base, exponent = rng.randint(3, 19), rng.randint(20, 60)
    answer = pow(base, exponent, 1000)
    return (
        f"Find the remainder when ${base}^{{{exponent}}}$ is divided by $1000$.",
        "We square and multiply.",
        str(answer),
    )


def _divisors(rng: random.Random) -> Worked:
    a, b, c = rng.randint(2, 6), rng.randint(1, 4), rng.randint(1, 3)
    n = 2**a * 3**b * 5**c
    count = (a + 1) * (b + 1) * (c + 1)
    return (
        f"How many positive divisors does ${n}$ have?",
        f"It is $2^{a} \\cdot 3^{b} \\cdot 5^{c}$, which has $({a}+1)({b}+1)({c}+1)$ divisors.",
        str(count),
    )


def _odd_sum(rng: random.Random) -> Worked:
    n = rng.randint(10, 31)
    return f"Find the sum of the first ${n}$ odd positive integers.", f"It is ${n}^2$.", str(n * n)


def _paths(rng: random.Random) -> Worked:
    a, b = rng.randint(3, 6), rng.randint(3, 5)
    return (
        f"How many shortest paths lead along the lines of a grid from $(0,0)$ to $({a},{b})$?",
        f"Of ${a + b}$ steps, ${b}$ go up.",
        str(math.comb(a + b, b)),
    )


_COMPETITION: tuple[Template, ...] = (_power, _divisors, _odd_sum, _paths)


def _dice(rng: random.Random) -> Worked:
    least = rng.randint(4, 11)
    good = sum(a + b >= least for a in range(1, 7) for b in range(1, 7))
    return (
        f"Two fair dice are rolled. What is the probability that the sum is at least ${least}$?",
        f"There are ${good}$ good pairs of $36$.",
        _latex(Fraction(good, 36)),
    )


def _telescope(rng: random.Random) -> Worked:
    n = rng.randint(7, 90)
    return (
        f"Compute $\\sum_{{k=1}}^{{{n}}} \\frac{{1}}{{k(k+1)}}$.",
        f"The sum telescopes to $1 - \\frac{{1}}{{{n + 1}}}$.",
        _latex(Fraction(n, n + 1)),
    )


def _triangle(rng: random.Random) -> Worked:
    side = 2 * rng.randint(1, 9)
    return (
        f"What is the area of an equilateral triangle of side ${side}$?",
        f"It is $\\frac{{\\sqrt{{3}}}}{{4}} \\cdot {side}^2$.",
        f"{side * side // 4}\\sqrt{{3}}" if side > 2 else "\\sqrt{3}",
    )


_TOURNAMENT: tuple[Template, ...] = (_dice, _telescope, _triangle)


def _latex(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _root(n: int) -> str:
    square = max(d for d in range(1, math.isqrt(n) + 1) if n % (d * d) == 0)
    rest = n // (square * square)
    if rest == 1:
        return str(square)
    return f"{square if square > 1 else ''}\\sqrt{{{rest}}}"


def _drawn(what: str, templates: tuple[Template, ...], n: int) -> list[Worked]:
    """n different questions, templates in turn."""
    rng = random.Random(f"kleval-short-1/{what}")
    made: dict[str, Worked] = {}
    while len(made) < n:
        worked = templates[len(made) % len(templates)](rng)
        made.setdefault(worked[0], worked)
    return list(made.values())


def stories(what: str) -> Items:
    """Shots and items of a benchmark of the name `what`, with the answer behind `####`."""
    made = [
        Item(f"Question: {question}\nAnswer:", f" {reason}\n#### {answer}", (answer,))
        for question, reason, answer in _drawn(what, _STORIES, GSM_SHOTS + _ASKED)
    ]
    return tuple(made[:GSM_SHOTS]), tuple(made[GSM_SHOTS:])


def exercises(what: str) -> Items:
    """Shots and items in Minerva's form: a boxed answer, then the sentence that the answer is read from."""
    made = [
        Item(
            f"Problem:\n{question}\n\nSolution:",
            f" {reason} The answer is $\\boxed{{{answer}}}$.\n"
            f"Final Answer: The final answer is ${answer}$. I hope it is correct.",
            (answer,),
        )
        for question, reason, answer in _drawn(what, _EXERCISES, MATH_SHOTS + _ASKED)
    ]
    return tuple(made[:MATH_SHOTS]), tuple(made[MATH_SHOTS:])


def competition() -> Items:
    return (), tuple(
        Item(f"Question: {question}\nAnswer:", f" {reason} The answer is $\\boxed{{{answer}}}$.", (answer,))
        for question, reason, answer in _drawn("aime25", _COMPETITION, _ASKED)
    )


def tournament(instruction: str) -> Items:
    return (), tuple(
        Item(f"{question}{instruction}", f"{reason} So it is $\\boxed{{{answer}}}$.", (answer,))
        for question, reason, answer in _drawn("hmmt25", _TOURNAMENT, _ASKED)
    )


def levelled(instruction: str) -> Items:
    """Three questions for each of PolyMath's levels."""
    templates = (_STORIES, _EXERCISES, _COMPETITION, _TOURNAMENT)
    drawn = [_drawn(f"polymath/{level}", kinds, 3) for level, kinds in zip(LEVELS, templates, strict=True)]
    return (), tuple(
        Item(f"{question}{instruction}", f"{reason} So it is $\\boxed{{{answer}}}$.", (answer,), level)
        for row in zip(*drawn, strict=True)
        for level, (question, reason, answer) in zip(LEVELS, row, strict=True)
    )
