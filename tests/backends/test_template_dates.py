"""Templates that print the day's date: prompts are those of every other day, wherever they are rendered."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from misbehaving import Behaviour, serve, write_byte_tokenizer
from test_llamacpp import own_server, serving

from kleval.backends.registry import open_backend
from kleval.backends.served_tokenizer import with_date
from kleval.backends.server_tokenizer import RemoteTokenizer
from kleval.backends.server_wire import Dialect
from kleval.tokenization import dates, read_tokenizer

USER = ({"role": "user", "content": "is it 30 Nov 2026?"},)
CONTENTS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<bot>"
LLAMA = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today Date: {{ date_string }}\n" + CONTENTS
)
DAYS = (datetime(2026, 11, 30, 12), datetime(2026, 12, 1, 0, 5), datetime(2027, 5, 9))


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Set this machine's clock."""
    return lambda day: monkeypatch.setattr(dates, "now", lambda: day)


def local(tmp_path: Path, template: str) -> Any:
    folder = write_byte_tokenizer(tmp_path / "bytes")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return read_tokenizer(folder, "bytes")


def test_a_template_here_prints_the_date_of_every_run_and_it_is_told(tmp_path: Path) -> None:
    tokenizer = local(tmp_path, LLAMA)
    assert tokenizer.render(USER) == "Today Date: 26 Jul 2024\n<user>is it 30 Nov 2026?<bot>"
    assert tokenizer.template_deviations == (dates.SAID,)
    plain = local(tmp_path, CONTENTS)
    assert plain.template_deviations == ()


def test_a_date_of_ones_own_is_printed_and_nothing_told(tmp_path: Path) -> None:
    tokenizer = local(tmp_path, LLAMA)
    tokenizer.template_args({"date_string": "01 Jan 2025"})
    assert tokenizer.render(USER).startswith("Today Date: 01 Jan 2025\n")
    assert tokenizer.template_deviations == ()


FORMS = ("%d %b %Y", "%B %d, %Y", "%Y-%m-%d", "%A, %d %B %Y")


def server_of(day: datetime, form: str, takes: bool = False) -> Callable[[str, dict[str, Any]], Any]:
    """llama.cpp's on a day, the date in each prompt. takes: another, where it is told one."""

    def answer(path: str, body: dict[str, Any]) -> Any:
        said = own_server(path, body)
        if path == "/apply-template":
            told = body.get("chat_template_kwargs", {}).get("date_string") if takes else None
            said["prompt"] = f"Today Date: {told or day.strftime(form)}\n{said['prompt']}"
        return said

    return answer


@pytest.mark.parametrize("form", FORMS)
def test_a_servers_template_gives_the_prompts_of_every_other_day(on: Callable[..., None], form: str) -> None:
    """Also where the server's day is another than this machine's."""
    found = set()
    for day in DAYS[: 2 if "%d %B" in form else 3]:  # in May a name is its own abbreviation
        for server_day in (day, day - timedelta(hours=9), day + timedelta(hours=13)):
            on(day)
            with serving(server_of(server_day, form)) as server:
                tokenizer = RemoteTokenizer.opened(server, "tiny")
                assert tokenizer.template_deviations == (dates.SAID,)
                found.add((tokenizer.chat_template_digest, str(tokenizer.render(USER, "so"))))
    ((_, rendered),) = found
    assert rendered == f"Today Date: {dates.DAY.strftime(form)}\n<user>is it 30 Nov 2026?<assistant>so"


def test_dates_that_messages_hold_are_left(on: Callable[..., None]) -> None:
    on(DAYS[0])
    asked = ("What was on 30 Nov 2026 in the news?", "Nothing.", "And the day after? " + "Tell me more. " * 20)
    messages = [
        {"role": role, "content": said} for role, said in zip(("user", "assistant", "user"), asked, strict=True)
    ]
    with serving(server_of(DAYS[0], "%d %b %Y")) as server:
        rendered = RemoteTokenizer.opened(server, "tiny").render(messages)
    assert rendered.startswith("Today Date: 26 Jul 2024\n<user>What was on 30 Nov 2026 in the news?")


def test_a_date_that_was_asked_for_is_left(on: Callable[..., None]) -> None:
    on(DAYS[0])
    with serving(server_of(DAYS[0], "%d %b %Y", takes=True)) as server:
        tokenizer = RemoteTokenizer.opened(server, "tiny")
        tokenizer.template_args({"date_string": "30 Nov 2026"})
        assert tokenizer.render(USER).startswith("Today Date: 30 Nov 2026\n")


def test_the_day_before_that_a_template_prints_stays_the_day_before(on: Callable[..., None]) -> None:
    for day in DAYS[:2]:
        on(day)
        said = f"today is {day:%Y-%m-%d}, yesterday was {day - timedelta(1):%Y-%m-%d}."
        assert dates.with_date(said) == "today is 2024-07-26, yesterday was 2024-07-25."


@pytest.mark.parametrize("takes", [True, False])
def test_chats_are_told_the_date_where_the_servers_template_takes_one(on: Callable[..., None], takes: bool) -> None:
    on(DAYS[0])
    dialect = Dialect("tiny", "llama.cpp", "messages")
    with serving(server_of(DAYS[0], "%d %b %Y", takes)) as server:
        tokenizer = RemoteTokenizer.opened(server, "tiny")
        found, said = with_date(server, dialect, tokenizer)
        assert dict(found.template_args) == ({"date_string": dates.DATE} if takes else {})
        assert bool(said) is not takes
        ids = Dialect("tiny", "llama.cpp", "ids")
        assert with_date(server, ids, tokenizer) == (ids, "")
    with serving(own_server) as server:
        assert with_date(server, dialect, tokenizer) == (dialect, "")


@pytest.mark.parametrize(("template", "prints"), [(LLAMA, True), (CONTENTS, False)])
def test_a_service_that_may_print_the_day_is_named_with_the_results(
    tmp_path: Path, template: str, prints: bool
) -> None:
    local(tmp_path, template)
    behaviour = Behaviour(software="other", has=frozenset({"/chat/completions", "/models"}))
    with serve(behaviour) as url:
        said = open_backend("tiny", base_url=url, tokenizer=f"hf:{tmp_path / 'bytes'}").describe()
    assert ("prints the day's date" in said.get("caveat", "")) is prints
