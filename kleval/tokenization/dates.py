"""Date that chat templates print: the same in every run, whatever the day.

Templates of Llama 3, gpt-oss, Granite, SmolLM 3, Mistral and others write the day's date into each prompt. A run that goes on the next
day, a shard on another day and a comparison with last month's run would then ask other prompts. Here it is 26 July 2024: what Llama's
templates write where they are told no date, and so transformers and servers that tell them none.
"""

from __future__ import annotations

from datetime import datetime, timedelta

DAY = datetime(2024, 7, 26)
ARGUMENT = "date_string"  # of Llama's templates, with the date as `DATE` has it
DATE = DAY.strftime("%d %b %Y")
SAID = f"the date that the chat template prints is {DATE} on every day"
# As templates write it, longer forms first. In May, whose name is no longer than its abbreviation, the first that fits is taken.
_FORMS = (
    *("{0:%A, %B %d, %Y}", "{0:%A, %d %B %Y}", "{0:%A %d %B %Y}", "{0:%A}, {0:%B} {0.day}, {0.year}"),
    *("{0:%B %d, %Y}", "{0:%d %b %Y}", "{0:%d %B %Y}", "{0:%b %d, %Y}", "{0:%Y-%m-%d}", "{0:%Y/%m/%d}"),
    *("{0:%d/%m/%Y}", "{0:%m/%d/%Y}", "{0:%d.%m.%Y}", "{0:%Y年%m月%d日}", "{0:%Y%m%d}"),
    *(
        "{0:%B} {0.day}, {0.year}",
        "{0.day} {0:%B} {0.year}",
        "{0.day} {0:%b} {0.year}",
        "{0.year}年{0.month}月{0.day}日",
    ),
)


def now() -> datetime:
    return datetime.now()


def with_date(text: str, end: int | None = None) -> str:
    """A prompt that a server's template wrote today, as it would have on DAY: its first `end` characters, where no message stands yet.

    A server's day may be the one before or after this machine's; templates that write today's date and the day's before it (Mistral)
    keep both.
    """
    head, rest = text[:end], "" if end is None else text[end:]
    days = [now() + timedelta(days) for days in (1, 0, -1)]
    written = [day for day in days if any(form.format(day) in head for form in _FORMS)]
    for day in written:
        for form in _FORMS:
            head = head.replace(form.format(day), form.format(DAY + (day - written[0])))
    return head + rest
