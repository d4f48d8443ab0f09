"""Markdown and HTML: structure kept, markup and page furniture dropped."""

from contextlib import suppress

import pytest

from retrieval.errors import EmptyDocument, RetrievalError
from retrieval.parsing import parse_bytes

MARKDOWN = b"""---
title: "Refunds"
date: 2024-05-01
nested:
  - x
---
Intro with *emphasis* and `code`.

# Terms

You have **30 days**. See [the form](https://example.com/form) or [here](/local).

1. Pack it.
2. Send it:
   - by post
   - by courier

| Country | Fee |
| ------- | --: |
| DE      | 4 \xe2\x82\xac |
| FR      | 6 \xe2\x82\xac |

```python
print("hi")
```

<!-- internal: never show -->
<script>alert(1)</script>
"""


def kinds(document):
    return [(b.kind, b.text) for b in document.blocks]


def test_markdown_keeps_structure_and_drops_markup():
    document = parse_bytes(MARKDOWN, "refunds.md")
    assert document.title == "Refunds"
    assert document.metadata == {"title": "Refunds", "date": "2024-05-01"}
    assert kinds(document) == [
        ("paragraph", "Intro with emphasis and code."),
        ("heading", "Terms"),
        ("paragraph", "You have 30 days. See the form (https://example.com/form) or here."),
        ("list_item", "1. Pack it."),
        ("list_item", "2. Send it:"),
        ("list_item", "  - by post"),
        ("list_item", "  - by courier"),
        ("table", "Country | Fee\nDE | 4 €\nFR | 6 €"),
        ("code", 'print("hi")'),
    ]
    assert all(document.text[b.start : b.end] == b.text for b in document.blocks)


def test_markdown_title_falls_back_to_the_first_heading_of_the_top_level():
    assert parse_bytes(b"## Sub\n\nx\n\n# Top\n\ny", "a.md").title == "Top"
    assert parse_bytes(b"words", "dir/guide.md").title == "guide"


def test_markdown_image_keeps_its_description():
    assert "a red lamp" in parse_bytes(b"![a red lamp](x.png) blinks", "a.md").text


def test_nested_markdown_keeps_its_text():
    assert "deep" in parse_bytes(b">" * 60 + b" deep", "a.md").text


def test_absurdly_nested_markdown_is_bounded():
    with pytest.raises(EmptyDocument):
        parse_bytes(b">" * 5000 + b" deep", "a.md")


def test_unclosed_front_matter_is_text():
    assert parse_bytes(b"---\ntitle: x\n\nwords", "a.md").text


HTML = """<!doctype html><html lang="en"><head><title>Help - Shop</title><style>p{}</style></head>
<body><header>Logo <a href="/">Home</a></header><nav><a>Menu</a></nav>
<main><h1>Shipping</h1><p>We ship<br>world<b>wide</b>.</p>
<p hidden>secret 1</p><p style="display: none">secret 2</p>
<span style="font-size:0px">secret 3</span>
<div aria-hidden="true">secret 4</div><p style="font-size:0.9em">small print</p>
<ul><li>Air<ul><li>Express</li></ul></li><li>Sea</li></ul>
<ol start="3"><li>third</li></ol>
<table><tr><th>Zone</th><th>Days</th></tr><tr><td>EU</td><td>2
</td></tr></table><pre>line 1
  line 2</pre><script>var x</script><noscript>enable</noscript></main>
<footer>Imprint</footer></body></html>"""


def test_html_keeps_structure_and_drops_furniture_and_hidden_text():
    document = parse_bytes(HTML.encode(), "help.html")
    assert kinds(document) == [
        ("heading", "Shipping"),
        ("paragraph", "We ship\nworldwide."),
        ("paragraph", "small print"),
        ("list_item", "- Air"),
        ("list_item", "  - Express"),
        ("list_item", "- Sea"),
        ("list_item", "3. third"),
        ("table", "Zone | Days\nEU | 2"),
        ("code", "line 1\n  line 2"),
    ]
    assert document.title == "Help - Shop"
    assert document.metadata == {"lang": "en"}


def test_html_without_visible_text_is_empty():
    with pytest.raises(EmptyDocument):
        parse_bytes(b"<html><body><script>x</script></body></html>", "a.html")


def test_layout_table_is_read_as_text():
    page = b"<table><tr><td><h2>Head</h2><p>One</p></td><td><p>Two</p></td></tr></table>"
    assert [b.kind for b in parse_bytes(page, "a.html").blocks] == [
        "heading", "paragraph", "paragraph",
    ]  # fmt: skip


def test_inline_elements_do_not_split_words():
    assert parse_bytes(b"<p>pre<i>fix</i>ed <b>word</b></p>", "a.html").text == "prefixed word"


def test_deeply_nested_html_is_bounded():
    with suppress(RetrievalError):
        assert "deep" in parse_bytes(b"<div>" * 100_000 + b"deep", "a.html").text
