"""The spending guard: what is counted, and that no limit is passed."""

from __future__ import annotations

from typing import ClassVar

import pytest
from harness_fakes import EchoBackend, OneCall, TwoStep, failing, go, rows, spec
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.cli.sessions import spent_words
from kleval.harness.spending import Price, Spending, metered, most
from kleval.store import RunStore
from kleval.types import Request, UsageError
from kleval.work.loop import Running

PRICE = (1.0, 10.0)


def asked(backend):
    return [request for batch in backend.batches for request in batch]


def test_one_request_is_no_plural(tmp_path):
    result = go(tmp_path / "run", EchoBackend(), tasks=(OneCall(),), max_requests=1)
    assert result.message.startswith("stopped at --max-requests 1: 1 request spent")


def test_a_run_stops_before_a_limit_and_goes_on_with_a_higher_one(tmp_path):
    backend = EchoBackend()
    result = go(tmp_path / "run", backend, tasks=(OneCall(),), max_requests=3)
    assert (result.status, result.exit_code, len(asked(backend))) == ("incomplete", 3, 3)
    assert result.message.startswith("stopped at --max-requests 3: 3 requests spent")
    assert "same command again" not in result.message
    assert len(rows(tmp_path / "run")) == 3
    again = EchoBackend()
    assert go(tmp_path / "run", again, tasks=(OneCall(),), max_requests=3).status == "incomplete"
    assert asked(again) == []
    assert go(tmp_path / "run", again, tasks=(OneCall(),)).status == "complete"
    assert len(asked(again)) == 7


def test_a_limit_that_is_just_enough_is_no_limit(tmp_path):
    assert go(tmp_path / "run", tasks=(OneCall(),), max_requests=10).status == "complete"


def test_what_was_answered_in_part_is_kept_and_not_asked_again(tmp_path):
    backend = EchoBackend()
    assert go(tmp_path / "run", backend, tasks=(TwoStep(),), max_requests=13).status == "incomplete"
    kinds = [row.failure and row.failure["kind"] for row in rows(tmp_path / "run")]
    assert (kinds.count(None), kinds.count("not_asked")) == (3, 7)
    again = EchoBackend()
    assert go(tmp_path / "run", again, tasks=(TwoStep(),)).status == "complete"
    assert len(asked(backend)) + len(asked(again)) == 20


@given(
    st.lists(st.integers(1, 400), min_size=1, max_size=30), st.floats(1e-5, 0.01), st.integers(2, 5)
)  # the fake writes 2 tokens
@settings(max_examples=60, deadline=None)
def test_no_cost_is_passed_whatever_is_asked(lengths, limit, new):
    spending, price = Spending(max_cost=limit), Price.of(PRICE)
    requests = [Request("generate", "x", max_new_tokens=new, token_ids=(1,) * n) for n in lengths]
    outcomes = dict(metered(EchoBackend(), spending, price).run(requests))
    assert sorted(outcomes) == list(range(len(requests)))
    assert spending.total("cost") <= limit
    left = [outcome for outcome in outcomes.values() if getattr(outcome, "kind", "") == "not_asked"]
    assert bool(left) == bool(spending.reached)


def test_what_each_session_spent_is_kept_retries_included(tmp_path):
    price = {"price_per_mtok": PRICE}
    go(tmp_path / "run", EchoBackend(fault=failing(0.5, retryable=True)), tasks=(OneCall(),), retries=2, **price)
    go(tmp_path / "run", tasks=(OneCall(),), **price)
    first, second = [session["spent"] for session in RunStore.open(tmp_path / "run").manifest["sessions"]]
    failed = second["requests"]
    assert (failed > 0, first["requests"]) == (True, 10 - failed + 3 * failed)
    assert second["cost"] == pytest.approx((second["prompt_tokens"] + 10 * second["output_tokens"]) / 1e6)


class Cut(EchoBackend):
    """Ctrl-C at its fifth request."""

    def run(self, requests):
        for n, answer in enumerate(super().run(requests)):
            if n == 4:
                raise KeyboardInterrupt
            yield answer


def test_a_killed_session_counts_by_what_it_filed(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:  # the process is gone before run.json says more
        patch.setattr(Running, "_save", lambda *args: None)
        go(tmp_path / "run", Cut(), tasks=(OneCall(),), max_requests=7, price_per_mtok=PRICE)
    assert len(rows(tmp_path / "run")) == 4
    again = EchoBackend()
    go(tmp_path / "run", again, tasks=(OneCall(),), max_requests=7, price_per_mtok=PRICE)
    assert len(asked(again)) == 3
    go(tmp_path / "run", again, tasks=(OneCall(),), max_requests=8, price_per_mtok=PRICE)
    assert len(asked(again)) == 4
    store = RunStore.open(tmp_path / "run")
    read = sum(record["prompt_tokens"] for row in store.rows() for record in row.outcomes)
    words = spent_words(store.manifest["sessions"], spec(tmp_path, price_per_mtok=PRICE))
    assert words.startswith(f"8 requests, {read:,} tokens read and 16 written")


def test_ctrl_c_counts_what_was_answered_and_what_was_in_flight(tmp_path):
    go(tmp_path / "run", Cut(settings={"dtype": "float32", "concurrency": 2}), tasks=(OneCall(),), max_requests=10)
    (session,) = RunStore.open(tmp_path / "run").manifest["sessions"]
    assert session["spent"]["requests"] == 6


def test_windows_side_by_side_count_each_token_once():
    class Counting(EchoBackend):
        stats: ClassVar = {"prompt_tokens": 0, "output_tokens": 0}

        def run(self, requests):
            for answer in super().run(requests):
                self.stats["prompt_tokens"] += 2
                self.stats["output_tokens"] += 2
                yield answer

    spending = Spending()
    backend = metered(Counting(), spending, Price.of(PRICE))
    request = Request("generate", "a b", max_new_tokens=1, token_ids=(1, 2))
    for _ in zip(backend.run([request] * 3), backend.run([request] * 3), strict=True):
        pass
    assert (spending.spent["prompt_tokens"], spending.spent["output_tokens"]) == (12, 12)


def test_a_server_that_counts_is_believed_and_its_cache_costs_less():
    class Counting(EchoBackend):
        def run(self, requests):
            self.stats = {"prompt_tokens": 100, "output_tokens": 30, "cached_tokens": 60}
            yield from super().run(requests)

    spending = Spending()
    backend = metered(Counting(), spending, Price.of((1.0, 10.0, 0.5)))
    list(backend.run([Request("generate", "a b", max_new_tokens=1, token_ids=(1, 2))]))
    assert spending.spent["cost"] == pytest.approx((40 + 30 + 300) / 1e6)


def test_where_the_models_tokens_are_not_known_characters_bound_them():
    request = Request("generate", "x" * 100, max_new_tokens=1, token_ids=(1,))
    price = Price(1e6, 0, 0)
    assert (most(request, price, exact=True), most(request, price, exact=False)) == (1, 50)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_cost": 1.0}, "--max-cost needs --price-per-mtok"),
        ({"max_cost": float("nan"), "price_per_mtok": PRICE}, "--max-cost is a number above 0"),
        ({"max_requests": 0}, "--max-requests is at least 1"),
        ({"price_per_mtok": (1.0,)}, "IN,OUT"),
        ({"price_per_mtok": (1.0, -1.0)}, "IN,OUT"),
        ({"judge_price_per_mtok": PRICE}, "--judge-price-per-mtok needs"),
    ],
)
def test_limits_that_cannot_be_kept_are_refused(tmp_path, changes, said):
    with pytest.raises(UsageError, match=said):
        spec(tmp_path, **changes).check()
