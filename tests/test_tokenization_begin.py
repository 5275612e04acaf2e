"""Begin tokens and chat templates against transformers, which has the rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers, processors

from kleval.tokenization import count_given, encode_pair, load_tokenizer, split_begin
from kleval.tokenization.folder import ModelTokenizer
from kleval.types import UsageError

VOCAB = {"<bos>": 0, "▁hello": 1, "▁world": 2, "<unk>": 3, "<eos>": 4, "hello": 5, "<late>": 6}
TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
USER = ({"role": "user", "content": "hello"},)


def folder(
    path: Path, *, begins: bool = True, scheme: str = "always", config: dict[str, Any] | None = None, **files: Any
) -> Path:
    core = tokenizers.Tokenizer(models.WordLevel(VOCAB, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    if begins:
        core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    core.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps(config or {}))
    for name, content in files.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


def opened(path: Path) -> ModelTokenizer:
    tokenizer = load_tokenizer(f"hf:{path}")
    assert isinstance(tokenizer, ModelTokenizer)
    return tokenizer


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("begins", [True, False])
def test_plain_prompts_are_the_ids_that_transformers_makes(tmp_path: Path, scheme: str, begins: bool) -> None:
    transformers = pytest.importorskip("transformers")
    folder(tmp_path, begins=begins, scheme=scheme, config={"bos_token": "<bos>"})
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    ours = opened(tmp_path)
    for text in ("hello world", "hello", "world hello world"):
        rendered = ours.render(text)
        assert ours.encode(rendered) == theirs(text).input_ids
        assert ours.count(rendered) == len(theirs(text).input_ids)


def test_a_prompt_that_begins_with_the_token_gets_no_second(tmp_path: Path) -> None:
    ours = opened(folder(tmp_path))
    assert ours.encode(ours.render("<bos>hello")).count(0) == 1


def test_a_template_that_writes_the_token_gets_no_second_and_one_that_does_not_gets_none(tmp_path: Path) -> None:
    ours = opened(folder(tmp_path, config={"bos_token": "<bos>", "chat_template": TEMPLATE}))
    assert ours.render(USER).count("<bos>") == 1
    ours.use_template(TEMPLATE.replace("{{ bos_token }}", ""))
    assert ours.render(USER).count("<bos>") == 0
    ours.begin_with("yes")
    assert ours.render(USER).count("<bos>") == 1


def test_a_config_that_asks_for_the_token_is_heeded_where_no_post_processor_says(tmp_path: Path) -> None:
    ours = opened(folder(tmp_path, begins=False, config={"bos_token": "<bos>", "add_bos_token": True}))
    assert (ours.begin, ours.begin_rule) == ("<bos>", "add_bos_token")


def test_the_rule_can_be_overridden(tmp_path: Path) -> None:
    ours = opened(folder(tmp_path))
    own = ours.digest
    ours.begin_with("no")
    assert ours.encode(ours.render("hello")) == [1]
    assert ours.digest != own
    ours.begin_with("auto")
    assert ours.digest == own


def test_yes_without_a_token_to_add_is_a_usage_error(tmp_path: Path) -> None:
    ours = opened(folder(tmp_path, begins=False))
    with pytest.raises(UsageError, match="bos_token"):
        ours.begin_with("yes")


def test_official_prompts_are_counted_without_the_token(tmp_path: Path) -> None:
    ours = opened(folder(tmp_path))
    assert count_given(ours, "hello world") == 2 == ours.count(ours.render("hello world")) - 1


def test_a_pair_has_the_token_once_and_its_continuation_is_as_without(tmp_path: Path) -> None:
    ours = opened(folder(tmp_path, scheme="first"))
    head, tail = encode_pair(ours, ours.render("hello "), "world")
    assert (head, tail) == ((0, 1), (2,))
    assert encode_pair(ours, ours.render(""), "hello") == ((0,), (1,))


def test_the_text_behind_the_token_is_the_prompt(tmp_path: Path) -> None:
    assert split_begin(opened(folder(tmp_path)).render("hello")) == ("<bos>", "hello")
    assert split_begin("hello") == ("", "hello")


def test_tokens_named_only_in_the_map_are_special(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder(tmp_path, special_tokens_map={"eos_token": {"content": "<eos>"}, "bos_token": "<bos>"})
    ours, theirs = opened(tmp_path), transformers.PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    assert ours.eos_id == 4 == theirs.eos_token_id
    assert ours.special["bos_token"] == "<bos>"
    assert ours.encode("hello<eos>") == theirs("hello<eos>", add_special_tokens=False).input_ids


def test_tokens_named_only_as_added_are_cut_out(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder(tmp_path, config={"added_tokens_decoder": {"6": {"content": "<late>", "special": True}}})
    ours, theirs = opened(tmp_path), transformers.PreTrainedTokenizerFast.from_pretrained(str(tmp_path))
    assert ours.encode("hello<late>world") == theirs("hello<late>world", add_special_tokens=False).input_ids


PARTS = (
    "{% for m in messages %}<{{ m.role }}>{% for p in m.content if p is mapping %}{{ p.text }}{% endfor %}{% endfor %}"
)
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}"
)
DROPS_SYSTEM = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
DROPS_ASSISTANT = "{% for m in messages if m.role != 'assistant' %}<{{ m.role }}>{{ m.content }}{% endfor %}"
TRAINS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}<{{ m.role }}>{{ m.content }}{% endif %}{% endfor %}"
)
BOTH = ({"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"})


def templated(path: Path, template: str) -> ModelTokenizer:
    return opened(folder(path, begins=False, config={"chat_template": template}))


def test_a_template_of_parts_gets_parts(tmp_path: Path) -> None:
    ours = templated(tmp_path, PARTS)
    assert ours.render(BOTH) == "<system>be brief<user>hello"
    assert ours.deviations(BOTH) == ours.template_deviations != ()


@pytest.mark.parametrize("template", [NO_SYSTEM, DROPS_SYSTEM])
def test_without_a_system_role_its_text_stands_before_the_users_and_that_is_told(tmp_path: Path, template: str) -> None:
    ours = templated(tmp_path, template)
    assert ours.render(BOTH) == "<user>be brief\n\nhello"
    assert ours.deviations(BOTH)
    assert not ours.deviations(BOTH[1:])


def test_marks_for_training_are_their_content(tmp_path: Path) -> None:
    messages = (*BOTH, {"role": "assistant", "content": "hi"})
    assert templated(tmp_path, TRAINS).render(messages) == "<system>be brief<user>hellohi"


def test_a_role_that_the_template_drops_is_refused_and_others_are_not(tmp_path: Path) -> None:
    ours = templated(tmp_path, DROPS_ASSISTANT)
    assert ours.render(BOTH) == "<system>be brief<user>hello"
    with pytest.raises(ValueError, match="assistant"):
        ours.render((*BOTH, {"role": "assistant", "content": "hi"}, BOTH[1]))


def test_a_template_that_drops_every_prompt_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="chat template"):
        templated(tmp_path, "<user></user>").render(BOTH)


def test_arguments_reach_the_template_and_its_digest(tmp_path: Path) -> None:
    ours = templated(tmp_path, "{{ messages[-1].content }}{% if enable_thinking is false %}<no>{% endif %}")
    before = ours.chat_template_digest
    ours.template_args({"enable_thinking": False})
    assert ours.render(BOTH[1:]) == "hello<no>"
    assert ours.chat_template_digest != before


def test_an_argument_that_the_template_does_not_read_is_a_usage_error(tmp_path: Path) -> None:
    ours = templated(tmp_path, "{{ messages[-1].content }}{% if enable_thinking is false %}<no>{% endif %}")
    with pytest.raises(UsageError, match="reads no variable of that name"):
        ours.template_args({"thinking": False})


def test_a_template_that_writes_the_last_turn_alone_takes_no_conversation(tmp_path: Path) -> None:
    last = "{% for m in messages %}{% if m.role == 'assistant' or loop.last %}{{ m.content }}{% endif %}{% endfor %}"
    ours = templated(tmp_path, last)
    assert ours.render(BOTH[1:]) == "hello"
    with pytest.raises(ValueError, match="leaves out what the user says"):
        ours.render((BOTH[1], {"role": "assistant", "content": "hi"}, BOTH[1]))


def test_a_byte_order_mark_is_no_part_of_a_prompt(tmp_path: Path) -> None:
    folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<bos>"}', encoding="utf-8-sig")
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8-sig")
    ours = opened(tmp_path)
    assert ours.render(USER) == "<bos>user hello "


def test_a_template_that_takes_parts_of_users_alone_gets_texts_of_others(tmp_path: Path) -> None:
    parts = "{% for c in m.content %}{{ c.text }}{% endfor %}"
    ours = templated(
        tmp_path,
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'user' %}"
        + parts
        + "{% else %}{{ m.content }}{% endif %}{% endfor %}",
    )
    turns = (*BOTH, {"role": "assistant", "content": "hi"}, BOTH[1])
    assert ours.render(turns) == "<system>be brief<user>hello<assistant>hi<user>hello"
