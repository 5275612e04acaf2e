from __future__ import annotations

from kleval.harness.replicas import _families
from kleval.types import Request


def test_requests_with_a_common_beginning_lie_together_longest_family_first() -> None:
    shared, long = tuple(range(40)), tuple(range(100, 180))
    ids = [(*shared, 1), (*long, 1), (7,), (*shared, 2, 2), (*long, 2), (8, 8, 8)]
    found = _families([Request("generate", "", token_ids=one) for one in ids])
    assert [sorted(members) for members in found] == [[1, 4], [0, 3], [2, 5]]
    assert found[-1] == [5, 2]
