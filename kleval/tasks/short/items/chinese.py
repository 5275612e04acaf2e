"""Chinese word problems that are computed: the shape of CMATH."""

from __future__ import annotations

import random
from collections.abc import Callable

from kleval.tasks.short.question import Item, Items

CMATH_SHOTS = 6
_CMATH_ITEMS = 10


def _apples(rng: random.Random) -> tuple[str, int]:
    a, b = rng.randint(12, 40), rng.randint(2, 11)
    return f"小明有{a}个苹果，吃了{b}个，还剩几个？", a - b


def _seats(rng: random.Random) -> tuple[str, int]:
    a, b = rng.randint(4, 15), rng.randint(6, 20)
    return f"教室里有{a}排座位，每排{b}个，一共有多少个座位？", a * b


def _pencils(rng: random.Random) -> tuple[str, int]:
    each, children = rng.randint(3, 9), rng.randint(4, 12)
    return f"老师把{each * children}支铅笔平均分给{children}个同学，每人分到几支？", each


def _trip(rng: random.Random) -> tuple[str, int]:
    speed, hours = rng.randint(4, 9) * 10, rng.randint(2, 6)
    return f"一辆汽车每小时行{speed}千米，{hours}小时一共行多少千米？", speed * hours


def _ribbon(rng: random.Random) -> tuple[str, int]:
    a, b, c = rng.randint(40, 90), rng.randint(5, 15), rng.randint(5, 15)
    return f"一根绳子长{a}米，第一次用去{b}米，第二次用去{c}米，还剩多少米？", a - b - c


_PROBLEMS: tuple[Callable[[random.Random], tuple[str, int]], ...] = (_apples, _seats, _pencils, _trip, _ribbon)


def word_problems() -> Items:
    rng = random.Random("kleval-short-1/cmath")
    made = []
    for i in range(CMATH_SHOTS + _CMATH_ITEMS):
        question, answer = _PROBLEMS[i % len(_PROBLEMS)](rng)
        made.append(Item(f"问题：{question}\n答案：", str(answer), (str(answer),)))
    return tuple(made[:CMATH_SHOTS]), tuple(made[CMATH_SHOTS:])
