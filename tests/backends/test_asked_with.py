"""--add-bos and --template-arg in every backend and form: a begin token once, never twice, or not at all."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Behaviour, serve, write_byte_tokenizer

from kleval.backends.registry import open_backend
from kleval.backends.server_address import parse_address
from kleval.backends.server_tokenizer import _FORMS, RemoteTokenizer
from kleval.backends.server_wire import Dialect
from kleval.types import Request, UsageError

BOS = "\x02"
TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{% if think is false %}/no_think{% endif %}"
USER = ({"role": "user", "content": "ab"},)
CHAT = frozenset({"/chat/completions", "/models"})
PLAIN = Request("generate", "ab", max_new_tokens=2)


def configured(folder: Path, **config: Any) -> Path:
    file = folder / "tokenizer_config.json"
    known = json.loads(file.read_text()) if file.is_file() else {}
    file.write_text(json.dumps(known | config))
    return folder


@pytest.fixture
def begins(tmp_path: Path) -> Path:
    """A byte tokenizer whose own rule puts a token first."""
    return configured(write_byte_tokenizer(tmp_path / "bytes"), bos_token=BOS, add_bos_token=True)


@pytest.mark.parametrize(("add_bos", "tokens"), [("auto", 3), ("yes", 3), ("no", 2)])
@pytest.mark.parametrize("backend", ["native", "hf", "vllm"])
def test_engines_here_are_given_the_token_as_it_is_asked_for(
    tmp_path: Path, hf_folder: Callable[[str], Path], fake_vllm: None, backend: str, add_bos: str, tokens: int
) -> None:
    source = hf_folder("kimi_linear" if backend == "native" else "llama")
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    configured(folder, bos_token="<|eos|>", add_bos_token=True)
    opened = open_backend(str(folder), backend=backend, add_bos=add_bos, device="cpu")
    assert len(opened.tokenizer.encode(opened.tokenizer.render("ab"))) == tokens
    if backend != "vllm":
        [(_, got)] = opened.run([PLAIN])
        assert got.prompt_tokens == tokens


def bodies(behaviour: Behaviour, request: Request = PLAIN, **settings: Any) -> list[dict[str, Any]]:
    with serve(behaviour) as url:
        backend = open_backend("tiny", base_url=url, **settings)
        behaviour.bodies.clear()
        list(backend.run([request]))
    return behaviour.bodies


@pytest.mark.parametrize(("add_bos", "sent"), [("auto", [2, 97, 98]), ("yes", [2, 97, 98]), ("no", [97, 98])])
def test_a_server_that_takes_ids_is_sent_the_token_as_it_is_asked_for(
    begins: Path, add_bos: str, sent: list[int]
) -> None:
    (body,) = bodies(Behaviour(software="vllm"), tokenizer=f"hf:{begins}", add_bos=add_bos)
    assert body["prompt"] == sent


def test_a_server_that_takes_text_adds_the_token_of_its_own_rule_and_is_sent_another(
    begins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        time, "sleep", lambda seconds: None
    )  # between two tries of ids, which this server does not take

    def sent(**settings: Any) -> str:
        (body,) = bodies(Behaviour(software="llama.cpp"), tokenizer=f"hf:{begins}", **settings)
        return str(body["prompt"])

    assert sent() == sent(add_bos="yes") == "ab"
    with pytest.raises(UsageError, match=r"--add-bos no: .* is sent text and puts its begin token before it"):
        sent(add_bos="no")
    configured(begins, add_bos_token=False)
    assert sent() == sent(add_bos="no") == "ab"
    assert sent(add_bos="yes") == f"{BOS}ab"


def test_vllm_is_told_to_add_no_token_to_a_text() -> None:
    dialect = Dialect("tiny", "vllm", "text", adds_begin=False)
    assert json.loads(dialect.encode({"prompt": "ab"})) == {"prompt": "ab", "add_special_tokens": False}
    assert "add_special_tokens" not in json.loads(dialect.encode({"prompt": [97]}))


@pytest.mark.parametrize("add_bos", ["yes", "no"])
def test_at_a_chat_endpoint_the_servers_template_decides(begins: Path, add_bos: str) -> None:
    with pytest.raises(UsageError, match=f"--add-bos {add_bos}: what a prompt begins with is up to the chat template"):
        bodies(Behaviour(software="other", has=CHAT), tokenizer=f"hf:{begins}", add_bos=add_bos)


def test_a_tokenizer_that_only_counts_has_no_begin_token() -> None:
    with pytest.raises(UsageError, match="--add-bos is for a model's own tokenizer, not words"):
        bodies(Behaviour(software="llama.cpp"), tokenizer="words", add_bos="yes")


def test_template_arguments_reach_the_servers_template_and_no_plain_prompt() -> None:
    given = {"tokenizer": "words", "template_args": {"enable_thinking": False}}
    (body,) = bodies(Behaviour(software="other", has=CHAT), **given)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    messages = Request("generate", USER, max_new_tokens=2)
    (body,) = bodies(Behaviour(software="llama.cpp"), messages, **given)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    (body,) = bodies(Behaviour(software="llama.cpp"), **given)
    assert "chat_template_kwargs" not in body


@pytest.mark.parametrize("backend", ["native", "hf", "vllm"])
def test_template_arguments_reach_templates_that_are_rendered_here(
    tmp_path: Path, hf_folder: Callable[[str], Path], fake_vllm: None, backend: str
) -> None:
    source = hf_folder("kimi_linear" if backend == "native" else "llama")
    folder = Path(shutil.copytree(source, tmp_path / "model"))
    configured(folder, chat_template=TEMPLATE)
    opened = open_backend(str(folder), backend=backend, template_args={"think": False}, device="cpu")
    assert opened.tokenizer.render(USER) == "ab/no_think"


def test_arguments_for_a_template_that_is_not_there_are_refused(begins: Path) -> None:
    with pytest.raises(UsageError, match="has no chat template: leave out --template-arg"):
        bodies(Behaviour(software="vllm"), tokenizer=f"hf:{begins}", template_args={"think": False})


def test_a_servers_own_tokenizer_follows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def tokenizer(mode: str) -> RemoteTokenizer:
        made = RemoteTokenizer(parse_address("http://127.0.0.1:9/v1", "OPENAI_API_KEY"), "tiny", _FORMS[0])
        made.begin, made.chat_template_digest = BOS, "x"
        made.begin_with(mode)
        return made

    monkeypatch.setattr(RemoteTokenizer, "_template", lambda self, messages: messages[0]["content"])
    rendered = {mode: (tokenizer(mode).render("ab"), tokenizer(mode).render(USER)) for mode in ("auto", "yes", "no")}
    assert rendered == {"auto": (f"{BOS}ab", "ab"), "yes": (f"{BOS}ab", f"{BOS}ab"), "no": ("ab", "ab")}
