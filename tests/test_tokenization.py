from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers

from kleval.tokenization import HFTokenizer, WordTokenizer, load_tokenizer
from kleval.types import Tokenizer, UsageError

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<bot>{% endif %}"
MESSAGES = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    vocab = {"<|eos|>": 0, "hello": 1, "world": 2, "<unk>": 3}
    core = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.add_special_tokens(["<|eos|>"])
    core.enable_truncation(2)
    core.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def with_config(folder: Path, **config: object) -> Path:
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_words_are_the_runs_that_their_pattern_finds(text: str) -> None:
    tokenizer = WordTokenizer()
    expected = re.findall(r"\w+|[^\w\s]", text)
    assert tokenizer.count(text) == len(expected)
    ids = tokenizer.encode(text)
    assert [tokenizer.decode([i]) for i in ids] == expected


def test_every_tokenizer_is_a_tokenizer(folder: Path) -> None:
    assert isinstance(load_tokenizer("words"), Tokenizer)
    assert isinstance(load_tokenizer(f"hf:{folder}"), Tokenizer)


def test_tiktoken_reads_the_cache_folder(fixtures_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(fixtures_dir / "ruler/assets/tiktoken"))
    tokenizer = load_tokenizer("tiktoken:cl100k_base")
    text = "needle 1234567 <|endoftext|> é"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.count(text) == len(tokenizer.encode(text))
    assert tokenizer.name == "tiktoken:cl100k_base"
    assert tokenizer.digest == load_tokenizer("tiktoken:cl100k_base").digest


def test_tiktoken_without_its_file_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiktoken

    def no_network(name: str) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(tiktoken, "get_encoding", no_network)
    with pytest.raises(UsageError, match="TIKTOKEN_CACHE_DIR"):
        load_tokenizer("tiktoken:o200k_base")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("word", "did you mean words"),
        ("tictoken:cl100k_base", "did you mean tiktoken:NAME"),
        ("tiktoken:cl100k", "cl100k_base"),
        ("tiktoken:", "tiktoken:NAME"),
        ("hf:/nowhere/at/all", "/nowhere/at/all"),
        ("", "give one of"),
    ],
)
def test_what_cannot_be_loaded_is_one_clear_line(spec: str, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as error:
        load_tokenizer(spec)
    assert "\n" not in str(error.value)


def test_a_broken_tokenizer_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match="not a tokenizer"):
        load_tokenizer(f"hf:{tmp_path}")


def test_hf_takes_file_or_folder_and_counts_past_a_stored_truncation(folder: Path) -> None:
    by_folder, by_file = load_tokenizer(f"hf:{folder}"), load_tokenizer(f"hf:{folder}/tokenizer.json")
    assert by_folder.digest == by_file.digest
    assert by_folder.encode("hello world hello") == [1, 2, 1]
    assert by_folder.count("hello world hello") == 3


def test_eos_comes_from_the_config_or_is_the_named_token(folder: Path) -> None:
    assert HFTokenizer.from_file(folder, "t").eos_id == 0
    assert HFTokenizer.from_file(with_config(folder, eos_token={"content": "world"}), "t").eos_id == 2


def test_plain_prompts_are_never_wrapped(folder: Path) -> None:
    tokenizer = load_tokenizer(f"hf:{with_config(folder, chat_template=CHAT)}")
    assert tokenizer.render("hello", " world") == "hello world"


@pytest.mark.parametrize("stored", [CHAT, [{"name": "tools", "template": "x"}, {"name": "default", "template": CHAT}]])
def test_messages_go_through_the_chat_template_and_the_prefix_comes_last(folder: Path, stored: object) -> None:
    tokenizer = load_tokenizer(f"hf:{with_config(folder, chat_template=stored)}")
    assert tokenizer.chat_template_digest
    assert tokenizer.render(MESSAGES, " so:") == "<system>be brief<user>hello<bot> so:"


def test_messages_without_a_template_are_joined_by_newlines(folder: Path) -> None:
    for spec in ("words", f"hf:{folder}"):
        tokenizer = load_tokenizer(spec)
        assert tokenizer.chat_template_digest == ""
        assert tokenizer.render(MESSAGES, "!") == "be brief\nhello!"


def test_a_template_that_refuses_is_a_usage_error(folder: Path) -> None:
    tokenizer = load_tokenizer(f"hf:{with_config(folder, chat_template='{{ raise_exception(1) }}')}")
    with pytest.raises(UsageError, match="chat template"):
        tokenizer.render(MESSAGES)


def test_a_template_cannot_reach_python(folder: Path) -> None:
    reaching = "{{ messages.__class__.__mro__ }}"
    tokenizer = load_tokenizer(f"hf:{with_config(folder, chat_template=reaching)}")
    with pytest.raises(UsageError, match="unsafe"):
        tokenizer.render(MESSAGES)


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{{ messages[0] | tojson }}", '{"role": "system", "content": "be brief"}'),
        ("{{ ['<é>'] | tojson(indent=1) }}", '[\n "<é>"\n]'),
        ("{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}", '{"a":2,"b":1}'),
        ("{{ strftime_now('%%') }}", "%"),
        ("{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}", "system"),
        ("{{ eos_token }}{{ add_generation_prompt }}{{ tools is none }}{{ documents is none }}", "<|eos|>TrueTrueTrue"),
        ("{{ '<b>' }}", "<b>"),
    ],
)
def test_templates_have_the_usual_helpers(template: str, rendered: str, folder: Path) -> None:
    contents = "|{% for m in messages %}{{ m.content }} {% endfor %}"
    tokenizer = load_tokenizer(f"hf:{with_config(folder, chat_template=template + contents, eos_token='<|eos|>')}")
    assert tokenizer.render(MESSAGES) == f"{rendered}|be brief hello "


def test_a_template_in_its_own_file_comes_before_the_configs(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("from the file" + CHAT)
    rendered = load_tokenizer(f"hf:{with_config(folder, chat_template='no')}").render(MESSAGES)
    assert rendered.startswith("from the file")


def test_a_template_of_a_processor_is_used_where_the_tokenizer_has_none(folder: Path) -> None:
    """Of models for text and pictures (Pixtral, Mistral Small 3.1)."""
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "from the processor" + CHAT}))
    assert load_tokenizer(f"hf:{with_config(folder)}").render(MESSAGES).startswith("from the processor")
    assert load_tokenizer(f"hf:{with_config(folder, chat_template=CHAT)}").render(MESSAGES).startswith("<system>")


@pytest.mark.parametrize(
    "template",
    [
        "{{ 1 / 0 }}",
        "{{ messages[9].content.x }}",
        "{% if %}",
        "{{ messages.append(1) }}",
        "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
    ],
)
def test_a_template_that_fails_is_one_clear_line(template: str, folder: Path) -> None:
    tokenizer = load_tokenizer(f"hf:{with_config(folder, chat_template=template)}")
    with pytest.raises(UsageError, match="chat template") as error:
        tokenizer.render(MESSAGES)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["[" * 99999, '{"chat_template": "\\ud800"}'])
def test_a_tokenizer_config_that_is_no_text_is_one_clear_line(text: str, folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(text)
    with pytest.raises(UsageError, match=r"tokenizer_config\.json"):
        load_tokenizer(f"hf:{folder}")


def test_a_saved_tokenizer_is_the_same(folder: Path, tmp_path: Path) -> None:
    tokenizer = HFTokenizer.from_file(with_config(folder, chat_template=CHAT, eos_token="world"), "t")
    copy = tmp_path / "copy"
    copy.mkdir()
    tokenizer.save(copy)
    again = HFTokenizer.from_file(copy, "t")
    assert again.encode("hello world") == tokenizer.encode("hello world")
    assert again.eos_id == tokenizer.eos_id
    assert again.render(MESSAGES) == tokenizer.render(MESSAGES)


def test_special_tokens_that_only_the_config_names_are_cut_out_of_texts(folder: Path) -> None:
    """As transformers does; they are words of the vocabulary, and tokenizer.json knows them as no more than that."""
    more = {"additional_special_tokens": ["world"], "extra_special_tokens": {"image_token": "<unk>"}}
    file = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(file | {"added_tokens": []}))
    text = "hello<|eos|>helloworld<unk>"
    plain = load_tokenizer(f"hf:{with_config(folder)}")
    assert 0 not in plain.encode(text)
    tokenizer = load_tokenizer(f"hf:{with_config(folder, eos_token='<|eos|>', **more)}")
    assert tokenizer.encode(text) == [1, 0, 1, 2, 3]
