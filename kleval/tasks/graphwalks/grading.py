"""The grader of openai/graphwalks: the set of nodes in an answer's last line, and its F1 against the right one.

Source: the data card's `get_list` and the lines under it. Two slips of that code are not kept: its `strip("[]")` leaves
"Final Answer: [" before the first node, which so never counts, and its F1 is 1 wherever nothing is right. Here an answer that shares no
node with the right one is 0, `[]` for an empty set is 1, and what holds no list is 0 whatever is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_LIST = re.compile(r"Final Answer: ?\[(.*)\]")


def extract(response: str) -> list[str] | None:
    """The nodes in the last line; None where it holds no list. A line break at the end makes an empty line the last one."""
    found = _LIST.search(response.split("\n")[-1])
    return found and [item.strip() for item in found.group(1).strip("[]").split(",") if item.strip()]


def f1(found: Iterable[str] | None, right: Iterable[str]) -> float:
    """In [0, 1], over sets. 0 for None."""
    sampled, truth = set(found or ()), set(right)
    if not (overlap := len(sampled & truth)):
        return float(found is not None and not sampled and not truth)
    recall, precision = overlap / len(truth), overlap / len(sampled)
    return 2 * (recall * precision) / (recall + precision)


def written(nodes: Iterable[str]) -> str:
    """An answer of these nodes."""
    return f"Final Answer: [{', '.join(nodes)}]"
