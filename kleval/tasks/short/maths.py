"""Mathematical answers: extraction of the final one from a solution, and equality of two.

`final`: the last \\boxed{…}, else what follows the last "answer is" or "Answer:", else the last number. `equal`: the same
text once LaTeX's ways of writing are evened out, or lists, tuples and sets of equal parts, or what math-verify finds to be of
the same value (`symbolic`: exactly where sympy can tell, decimal numbers to six places).
"""

from __future__ import annotations

import re
from itertools import accumulate, pairwise

from kleval.tasks.short import symbolic

_SENTENCE = re.compile(r"answer is|answer:|答案[是为：:]", re.IGNORECASE)
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:/\d+)?")
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:(?:,|\{,\})\d{3})+(?![\d])")
_WORDS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox|operatorname)\s*\{([^{}]*)\}")
_SPACES = re.compile(r"\\[,;:! ]|~|\\quad|\\qquad|\s+")
_BASE = re.compile(r"\d\}?\s*_\s*\{?\s*(\d+)")
_MARKS = [r"\$", "$", r"\(", r"\)", r"\[", r"\]", r"\displaystyle", r"\left", r"\right", r"^{\circ}", r"^\circ", "°"]
_MAX_CHARS = 2000


def _depths(text: str, opening: str = "([{", closing: str = ")]}") -> list[int]:
    """In how many brackets each character stands, a closing one outside its own."""
    return list(accumulate((char in opening) - (char in closing) for char in text))


def boxed(text: str) -> str | None:
    """What the last \\boxed{…} or \\fbox{…} holds, brackets balanced; `\\boxed 5` too. None without one."""
    at = max(text.rfind("\\boxed"), text.rfind("\\fbox"))
    if at < 0:
        return None
    rest = text[at:].lstrip("\\abcdefghijklmnopqrstuvwxyz")
    if not rest.startswith("{"):
        return rest.strip().split("$")[0].split(" ")[0].strip() or None
    depths = _depths(rest, "{", "}")
    return rest[1 : depths.index(0)].strip() if 0 in depths else None


def final(text: str) -> str | None:
    """The answer that a solution ends in; None when it has none."""
    found = boxed(text)
    if found is not None:
        return found
    said = _said(text)
    if said:
        return said
    numbers = _NUMBER.findall(text)
    return str(numbers[-1]).rstrip(",") if numbers else None


def _said(text: str) -> str:
    """The rest of the line, or of the sentence, behind the last "answer is"; the next line where it ends there."""
    at = max((match.end() for match in _SENTENCE.finditer(text)), default=None)
    if at is None:
        return ""
    line = text[at:].lstrip(" \t\r\n:：*").partition("\n")[0]
    return line.partition(". ")[0].strip().removesuffix(".").rstrip("*").removesuffix(".")


def normalised(answer: str, thousands: bool = True) -> str:
    """One way of writing for the many that LaTeX has. thousands: `1,200` is a number, else 1 and 200."""
    text = answer.strip().rstrip(".").strip()
    for mark in _MARKS:
        text = text.replace(mark, "")
    text = _WORDS.sub(lambda match: match[1], text)
    text = text.replace("dfrac", "frac").replace("tfrac", "frac").replace("\\%", "%").removesuffix("%")
    text = text.replace("\\cdot", "*").replace("\\times", "*").replace("−", "-").replace("\\{", "{").replace("\\}", "}")
    text = text.replace("\\lbrace", "{").replace("\\rbrace", "}").replace("π", "\\pi")
    if thousands:
        text = _THOUSANDS.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    head, equals, tail = text.partition("=")
    if equals and "=" not in tail and re.fullmatch(r"\s*[a-zA-Z](?:\([a-zA-Z]\))?\s*", head):
        text = tail
    # A command keeps the blank behind it where a letter follows: \pi r is not \pir.
    text = re.sub(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])", "\\1\0", text)
    return _SPACES.sub("", text).replace("\0", " ").rstrip(".")


def equal(given: str, right: str) -> bool:
    """Whether two answers are the same."""
    if max(len(given), len(right)) > _MAX_CHARS:
        return given.strip() == right.strip()
    # math-verify reads 4210_5 and 4210_6, numbers to different bases, as 4210.
    bases = _BASE.findall(given), _BASE.findall(right)
    if all(bases) and bases[0] != bases[1]:
        return False
    # (0,100) is a pair if the other one is (0, 100).
    forms = [(normalised(given, thousands), normalised(right, thousands)) for thousands in (True, False)]
    if any(_equal(*form) for form in forms):
        return True
    # As they are written too: what is evened out may have meant something to LaTeX (the rows of a matrix).
    return all(forms[0]) and symbolic.same(given, right)


def _equal(a: str, b: str) -> bool:
    if a == b:
        return a != ""
    if not a or not b:
        return False
    parts_a, parts_b = _parts(a), _parts(b)
    if len(parts_a) > 1 or len(parts_b) > 1:
        if len(parts_a) != len(parts_b) or _kind(a) != _kind(b):
            return False
        ordered = _kind(b) not in ("{}", "")
        return all(map(_equal, parts_a, parts_b)) if ordered else _in_any_order(parts_a, parts_b)
    return a.lower() == b.lower() or symbolic.same(a, b)


def _in_any_order(a: list[str], b: list[str]) -> bool:
    left = list(b)
    for part in a:
        match = next((other for other in left if _equal(part, other)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _kind(text: str) -> str:
    """The brackets around a list, "" without; `[0,1)` is `[)`."""
    return text[0] + text[-1] if text[0] in "([{" and text[-1] in ")]}" and _wraps(text) else ""


def _wraps(text: str) -> bool:
    """Whether the first bracket closes at the very end."""
    depths = _depths(text)
    return 0 in depths and depths.index(0) == len(text) - 1


def _parts(text: str) -> list[str]:
    """Split at the commas of the outermost level, inside the brackets that hold all of it."""
    inside = text[1:-1] if _kind(text) else text
    commas = [i for i, depth in enumerate(_depths(inside)) if depth == 0 and inside[i] == ","]
    return [inside[a + 1 : b] for a, b in pairwise([-1, *commas, len(inside)])]
