"""Saved pages become text."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from kleval.tasks.frames.wikipedia import read_page


def test_the_article_is_left_of_a_page() -> None:
    html = (
        "<html><head><title>Heronby – Wikipedia</title><style>p {}</style></head><body><nav>Menu</nav>"
        '<div id="mw-content-text"><script>x</script><p>A town&#8217;s <b>mill</b>.<sup class="reference">[1]</sup>'
        '<p>Two<br>lines<table class="navbox big"><tr><td>gone</table><table><tr><th>Founded<td>1790</table>'
        "<ul><li>one<li>two</ul></div><footer>Imprint</footer></body></html>"
    )
    assert read_page(html) == ("Heronby", "A town’s mill.\nTwo\nlines\nFounded 1790\none\ntwo")


def test_a_page_without_the_content_element_is_its_body() -> None:
    assert read_page("<title>T</title><body><h1>Head</h1><p>Text</body>") == ("T", "Head\nText")
    assert read_page("just <i>text</i>") == ("", "just text")


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet='<>/abp"= divtable\n&;id![]', max_size=80))
@example("<body><![foo[bar]]>y")
def test_whatever_a_file_holds_something_is_read(html: str) -> None:
    title, text = read_page(html)
    assert isinstance(title, str)
    assert isinstance(text, str)
