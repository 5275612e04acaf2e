"""Fields of requests: those that a server refuses, those that a user puts in or leaves out; names of models."""

from __future__ import annotations

from typing import Any

import pytest
from misbehaving import Behaviour, serve

from kleval.backends.registry import open_backend
from kleval.backends.server_reply import Answer
from kleval.cli.options import without_secrets
from kleval.types import Completion, Request, UsageError

CHAT = frozenset({"/chat/completions", "/models"})


def asked(behaviour: Behaviour, *requests: Request, **settings: Any) -> tuple[Any, list[Any]]:
    with serve(behaviour) as url:
        backend = open_backend("tiny", base_url=url, **{"tokenizer": "words", "concurrency": 1, **settings})
        behaviour.bodies.clear()
        outcomes = dict(backend.run(requests))
        return backend, [outcomes[n] for n in range(len(requests))]


def ask(prompt: str = "hello", **given: Any) -> Request:
    return Request("generate", prompt, **{"max_new_tokens": 6, **given})


def test_fields_that_a_server_refuses_are_left_out_and_the_row_says_so() -> None:
    behaviour = Behaviour(software="other", refuses=("seed", "temperature"))
    sampled = ask(temperature=0.7, top_p=0.9, seed=3)
    with serve(behaviour) as url:
        backend = open_backend("tiny", base_url=url, tokenizer="words")
        behaviour.bodies.clear()
        [(_, first)] = backend.run([sampled])
        assert len(behaviour.bodies) == 3  # once more for each field that is refused
        [(_, second)] = backend.run([ask("again")])
    assert first.notes == ("sent without seed, temperature, which the server refuses",)
    assert second.notes == ("sent without temperature, which the server refuses",)
    assert behaviour.bodies[3].keys() == {"model", "prompt", "max_tokens", "stream", "stream_options"}


def test_a_field_that_the_user_put_in_and_the_server_refuses_is_a_failure() -> None:
    _, (got,) = asked(Behaviour(software="other", refuses=("logit_bias",)), ask(), request_fields={})
    assert isinstance(got, Completion)
    with (
        serve(Behaviour(software="other", refuses=("logit_bias",))) as url,
        pytest.raises(UsageError, match="logit_bias"),
    ):
        open_backend("tiny", base_url=url, tokenizer="words", request_fields={"logit_bias": "{}"})


def test_half_of_a_likelihoods_ids_is_refused() -> None:
    half = Request("loglikelihood", "a", continuation="b", token_ids=(1, 2))
    _, (got,) = asked(Behaviour(software="llama.cpp"), half)
    assert (got.kind, got.message.partition(":")[0]) == ("bad_request", "token_ids without continuation_ids")


def test_fields_are_put_in_and_left_out_as_the_user_says() -> None:
    behaviour = Behaviour(software="vllm")
    given = {"chat_template_kwargs": '{"enable_thinking": false}', "service": "fast"}
    backend, (got,) = asked(behaviour, ask(), request_fields=given, without_fields=("return_token_ids", "top_k"))
    assert isinstance(got, Completion)
    (body,) = behaviour.bodies
    assert (body["chat_template_kwargs"], body["service"]) == ({"enable_thinking": False}, "fast")
    assert not {"return_token_ids", "top_k"} & body.keys()
    told = backend.describe()
    assert (told["request_fields"], told["without_fields"]) == (given, ["return_token_ids", "top_k"])


@pytest.mark.parametrize("field", ["model", "messages", "stream", ""])
def test_what_kleval_must_send_itself_is_not_the_users(field: str) -> None:
    with pytest.raises(UsageError, match="--request-field"):
        open_backend("tiny", base_url="http://127.0.0.1:9/v1", without_fields=(field,))


def test_a_secret_in_a_field_is_not_written() -> None:
    assert without_secrets("--request-field=api_key=abc") == "--request-field=api_key=***"
    behaviour = Behaviour(software="other")
    backend, _ = asked(behaviour, ask(), request_fields={"access_token": "abc"})
    assert backend.describe()["request_fields"] == {"access_token": "***"}


@pytest.mark.parametrize(("software", "sent"), [("other", 4), ("vllm", 6)])
def test_more_stop_strings_than_a_server_takes_are_looked_for_here(software: str, sent: int) -> None:
    behaviour = Behaviour(software=software)
    _, (whole,) = asked(behaviour, ask())
    stops = ("#1", "#2", "#3", "#4", "#5", whole.text[3])
    _, (got,) = asked(behaviour, ask(stop=stops))
    assert behaviour.bodies[-1]["stop"] == list(stops[:sent])
    assert (got.text, got.finish_reason) == (whole.text[: whole.text.index(stops[-1])], "stop")


def test_a_gateways_alias_that_answers_under_another_name() -> None:
    behaviour = Behaviour(software="other", answers_as="vendor/real-1")
    with serve(behaviour) as url, pytest.raises(UsageError, match="add --served-name vendor/real-1"):
        open_backend("tiny", base_url=url, tokenizer="words")
    backend, (got,) = asked(behaviour, ask(), served_name="vendor/real-1")
    assert isinstance(got, Completion)
    assert (backend.model, behaviour.bodies[0]["model"]) == ("tiny", "tiny")


def test_a_model_that_the_server_lists_under_another_name_is_asked_by_that() -> None:
    behaviour = Behaviour(software="other", model="alias")
    backend, (got,) = asked(behaviour, ask(), served_name="alias")
    assert isinstance(got, Completion)
    assert (backend.model, behaviour.bodies[0]["model"]) == ("tiny", "alias")


def test_an_empty_model_name_says_nothing() -> None:
    _, (got,) = asked(Behaviour(software="other", entry={"id": ""}), ask())
    assert isinstance(got, Completion)
    answer = Answer()
    answer.feed({"model": "", "choices": []})
    assert answer.model is None


def test_an_error_that_only_mentions_a_field_changes_nothing_for_others() -> None:
    said = {"error": {"message": "Invalid prompt: 'seed' and 'temperature' must not be asked about"}}
    behaviour = Behaviour(software="other", plan=lambda text: [("status", (400, said))] * 9 if "bad" in text else ())
    _, (bad, good) = asked(behaviour, ask("bad", temperature=0.5), ask("good", temperature=0.5))
    assert (bad.kind, bad.message) == ("bad_request", f"HTTP 400: {said['error']['message']}")
    assert good.notes == ()
    assert {"seed", "temperature"} <= next(b for b in behaviour.bodies if b["prompt"] == "good").keys()
