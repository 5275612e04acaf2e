"""What is wrong with a server, its address, its key or its model is told when it is opened, in one line."""

import json
import socket

import pytest
from misbehaving import Behaviour, serve, write_byte_tokenizer

from kleval.backends.registry import open_backend
from kleval.backends.server_opening import Served
from kleval.types import UsageError


def refused(match, url, **changes):
    with pytest.raises(UsageError, match=match) as told:
        open_backend(**{"model": "tiny", "base_url": url, "tokenizer": "words", **changes})
    assert "\n" not in str(told.value)
    return str(told.value)


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        assert url in refused("is it running", url)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://x/v1", "http://", "http://h:port/v1"])
def test_not_an_address(url):
    refused("http://localhost:8000/v1", url)


def test_the_model_is_not_served():
    with serve(Behaviour(model="tinier")) as url:
        refused("does not serve tiny: --model is one of tinier", url)


def test_the_model_is_refused_where_there_is_no_list_of_models():
    behaviour = Behaviour(model="tinier", software="other", has=frozenset({"/completions", "/chat/completions"}))
    with serve(behaviour) as url:
        refused("`tiny` does not exist", url)


def test_another_model_answers():
    with serve(Behaviour(answers_as="tinier")) as url:
        refused("answers as tinier where tiny was asked", url)


def test_a_wrong_key_and_none(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-wrong-0123456789")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with serve(Behaviour(key="right")) as url:
        told = refused("refuses the key in MY_KEY", url, api_key_env="MY_KEY")
        refused("put the key into OPENAI_API_KEY", url)
    assert "0123456789" not in told


def test_a_key_that_is_named_and_not_set(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    refused("MY_KEY: there is no such variable", "http://127.0.0.1:9/v1", api_key_env="MY_KEY")


def test_a_key_that_cannot_be_sent_is_not_shown(monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-ключ")
    assert "ключ" not in refused("characters that no key has", "http://127.0.0.1:9/v1", api_key_env="MY_KEY")


def test_a_tokenizer_of_another_model(tmp_path):
    folder = write_byte_tokenizer(tmp_path)
    made = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocabulary = made["model"]["vocab"]
    vocabulary["q"], vocabulary["r"] = vocabulary["r"], vocabulary["q"]
    (folder / "tokenizer.json").write_text(json.dumps(made), "utf-8")
    with serve(Behaviour()) as url:
        refused("is not that of tiny", url, tokenizer=f"hf:{folder}")


def test_v1_is_found_where_the_address_lacks_it():
    with serve(Behaviour()) as url:
        backend = open_backend("tiny", base_url=url.removesuffix("/v1"), tokenizer="words")
        assert backend.describe()["server"] == url


def test_its_hardware_is_what_the_user_says():
    with serve(Behaviour()) as url:
        assert "hardware" not in open_backend("tiny", base_url=url, tokenizer="words").describe()
        told = open_backend("tiny", base_url=url, tokenizer="words", hardware="8x H200").describe()
        assert told["hardware"] == "8x H200"


def test_only_chat_is_there():
    with serve(Behaviour(software="other", has=frozenset({"/chat/completions", "/models"}))) as url:
        backend = open_backend("tiny", base_url=url, tokenizer="words")
        assert backend.describe()["prompts_sent_as"] == "chat messages"
        refused("/completions does not answer for tiny", url, api="completions")


@pytest.mark.parametrize(
    ("name", "accepted"),
    [
        ("gpt-4o", True),
        ("gpt-4o-2024-08-06", True),
        ("openai/gpt-4o", True),
        ("gpt-4o-mini", False),
        ("gpt-4", False),
        ("", False),
    ],
)
def test_a_dated_version_is_the_model_and_its_sibling_is_not(name, accepted):
    assert Served("gpt-4o").accepts(name) is accepted


def test_vendors_are_told_apart():
    assert not Served("good/model").accepts("bad/model")
