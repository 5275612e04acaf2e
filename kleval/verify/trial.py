"""Trial: two readings of what must be the same numbers, and by how much they differ.

Of written tokens as many are compared as both readings have in common, and the one at which they part: where two tokens were nearly as
likely either may come, and each has then about the log-probability of the other, of at most a half; one that has not is a fault. Where
only text comes back a trial is 0 or 1, whether the texts part.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from kleval.verify.engine import Engine, Ids, Reading

LEAST = -25.0  # nats: what is less likely than that is rounded away where probabilities are told


@dataclass(frozen=True, slots=True)
class Deviation:
    """size: the largest difference of log-probabilities, nats; inf where the numbers of one reading are not finite, nan where there is
    nothing to compare. at: token of the prompt, or of what was written after it. last: the last token that differs by a tenth of it.
    texts: pairs of which only texts came back, and how many of them parted."""

    size: float
    at: int = 0
    last: int = 0
    texts: int = 0
    parted: int = 0


Measure = Callable[[Engine, Ids, random.Random], Deviation]


@dataclass(frozen=True, slots=True)
class Case:
    """What is tried: `measure` of a fresh prompt of n tokens of a kind. name: of the law's cases. boundary: a length that it is about.
    exact: right (0) or wrong, without any rounding."""

    law: str
    name: str
    n: int
    measure: Measure
    kind: str = "random"
    boundary: int = 0
    harmless: bool = False
    exact: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}, {self.n} tokens" + ("" if self.kind == "random" else f", {self.kind}")


@dataclass(frozen=True, slots=True)
class Trial:
    """One case tried once."""

    case: Case
    ids: Ids
    deviation: Deviation
    repeats: tuple[float, ...] = field(default=())

    @property
    def size(self) -> float:
        return self.deviation.size


def compare(one: Reading, other: Reading, first: int = 0) -> Deviation:
    """Two readings of the same tokens, or of what was written after the same prompt. first: the position of their first token."""
    if not (one.finite and other.finite):
        return Deviation(math.nan if one.finite == other.finite else math.inf, first, first)
    if _says_nothing(one, other):
        return Deviation(math.nan, first, first)
    if not one.logprobs and not other.logprobs:
        same = (one.tokens or one.text) == (other.tokens or other.text)
        return Deviation(float(not same), first, first, 1, int(not same))
    n = min(len(one.logprobs), len(other.logprobs))
    ids = bool(one.tokens and other.tokens)
    names = zip(_names(one, ids), _names(other, ids), strict=False)
    parted = next((i for i, (a, b) in enumerate(names) if a != b), n)
    n = min(n, parted + 1)
    a, b = list(one.logprobs[:n]), list(other.logprobs[:n])
    for at, (here, there) in enumerate(zip(one.likely[:n], other.likely[:n], strict=False)):
        # What differs most of the tokens that both tell: where one has probability 1, the others show what moves.
        known = [(here[t], there[t]) for t in _told(here) if t in there and max(here[t], there[t]) > LEAST]
        a[at], b[at] = max([(a[at], b[at]), *known], key=lambda pair: abs(pair[0] - pair[1]))
    if parted < n:  # of the other's token neither can have made more than its own left
        mine, its = one.logprobs[parted], other.logprobs[parted]
        more = max(mine - _left(its), its - _left(mine))
        if more > abs(a[parted] - b[parted]):
            a[parted], b[parted] = more, 0.0
    else:
        a.append(max(_went_on(one, other), _went_on(other, one)))
        b.append(0.0)
    return differ(a, b, first)


def _went_on(one: Reading, other: Reading) -> float:
    """By how much, at least, the end that the other came to was less likely in one that went on: no near tie leaves a token more than a
    half, and of the likely tokens the end is not the first."""
    n = len(other.logprobs)
    if not other.ended or len(one.logprobs) <= n:
        return 0.0
    first, second = (*sorted(one.likely[n].values(), reverse=True), 0.0, 0.0)[:2] if one.likely else (0.0, 0.0)
    return max(0.0, one.logprobs[n] - math.log(0.5), (first - second) / 2)


def _says_nothing(one: Reading, other: Reading) -> bool:
    """Where both ended at once, or one that did not has no log-probabilities."""
    if not (one.logprobs or one.text or other.logprobs or other.text):
        return True
    return bool(one.logprobs) != bool(other.logprobs) and not (one if other.logprobs else other).ended


def _names(reading: Reading, ids: bool) -> Sequence[int | str]:
    """What was written, token by token. Without ids the most likely tokens as a server spells them, or the text whole."""
    if ids:
        return reading.tokens
    return [max(place, key=lambda name: place[name], default="") for place in reading.likely] or [reading.text]


def _told(place: Mapping[int | str, float]) -> list[int | str]:
    """Tokens of a place; a server spells those that are no whole character all alike."""
    return [name for name in place if not (isinstance(name, str) and "\ufffd" in name)]


def _left(logprob: float) -> float:
    """The most that the log-probability of any other token can be."""
    return math.log(max(-math.expm1(min(logprob, 0.0)), math.exp(LEAST)))


def rescored(engine: Engine, ids: Ids, written: Reading, by: Engine | None = None) -> Deviation:
    """What was written after a prompt, against the scores of the same tokens, those of another engine if it is given."""
    if written.finite and not written.tokens:
        return Deviation(math.nan, len(ids), len(ids))
    (scored,) = (by or engine).score([(*ids, *written.tokens)])
    if not (written.finite and scored.finite):
        return compare(written, scored, len(ids))
    return differ(written.logprobs, scored.logprobs[len(ids) - 1 :], len(ids))


def drawn(engine: Engine, ids: Ids, n: int, rng: random.Random) -> Deviation:
    """n tokens drawn after a prompt, against their scores."""
    return rescored(engine, ids, engine.draw(ids, n, rng.randrange(1 << 30)))


def resumed(engine: Engine, ids: Ids, n: int, cuts: Sequence[int], more: int) -> Deviation:
    """n tokens written at once, against so many more after the prompt with the first of them behind it."""
    (whole,) = engine.write([ids], n)
    found = []
    for cut in cuts:
        tail = whole.after(cut)
        if tail.tokens or not tail.finite:
            (rest,) = engine.write([(*ids, *whole.tokens[:cut])], more)
            found.append(compare(tail, rest, len(ids) + cut))
    return worst(found)


def differ(one: Sequence[float], other: Sequence[float], first: int = 0) -> Deviation:
    """Of two lists of log-probabilities, as far as both go."""
    pairs = list(zip(one, other, strict=False))
    sizes = [0.0 if a == b else abs(a - b) if math.isfinite(a) and math.isfinite(b) else math.inf for a, b in pairs]
    if not sizes:
        return Deviation(0.0, first, first)
    size = max(sizes)
    last = max((i for i, s in enumerate(sizes) if s >= size / 10), default=0)
    return Deviation(size, first + sizes.index(size), first + last)


def worst(found: Sequence[Deviation]) -> Deviation:
    known = [one for one in found if not math.isnan(one.size)]
    most = max(known or found, key=lambda one: one.size, default=Deviation(0.0))
    return replace(most, texts=sum(one.texts for one in found), parted=sum(one.parted for one in found))
