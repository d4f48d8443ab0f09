"""Feeds, CSV, JSON and notebooks: structure kept, numbers and dates as written."""

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.errors import (
    BrokenEncoding,
    DocumentError,
    EmptyDocument,
    ParseFailed,
    UnsupportedFormat,
)
from retrieval.parsing import parse_bytes
from retrieval.parsing.delimited import sniff_delimiter

RSS = """<?xml version="1.0" encoding="UTF-8"?>
<rss version="2.0" xmlns:content="http://purl.org/rss/1.0/modules/content/"
 xmlns:dc="http://purl.org/dc/elements/1.1/"><channel><title>Shop &amp; news</title>
<description>What&nbsp;is new</description><language>en</language>
<item><title>New hours</title><pubDate>Tue, 19 Nov 2024 13:30:02 +0000</pubDate>
<dc:creator>Editor</dc:creator><description>short</description>
<content:encoded><![CDATA[<h2>Details</h2><p>Open <b>late</b>.</p><ul><li>Mon</li></ul>
<script>x()</script>]]></content:encoded></item>
<item><title>Sale</title><description>&lt;p&gt;Half price&lt;/p&gt;</description></item>
</channel></rss>"""

ATOM = """<feed xmlns="http://www.w3.org/2005/Atom"><title>Log</title>
<subtitle>All changes</subtitle>
<entry><title type="text">v2</title><updated>2024-05-01T10:00:00Z</updated>
<author><name>Team</name></author><content type="xhtml"><div
xmlns="http://www.w3.org/1999/xhtml"><p>Faster search.</p></div></content></entry>
<entry><title>v1</title><summary type="text">a &lt; b</summary></entry></feed>"""

NOTEBOOK = {
    "nbformat": 4,
    "metadata": {"kernelspec": {"name": "python3"}},
    "cells": [
        {"cell_type": "markdown", "source": ["# Report\n", "Some *text*."]},
        {
            "cell_type": "code",
            "source": "print(6 * 7)",
            "outputs": [
                {"output_type": "stream", "text": ["42\n"]},
                {
                    "output_type": "display_data",
                    "data": {"image/png": "aGVsbG8=", "text/plain": ["<Figure size 640x480>"]},
                },
                {"output_type": "execute_result", "data": {"text/plain": "'done'"}},
                {"output_type": "error", "ename": "ValueError", "evalue": "\x1b[31mbad\x1b[0m"},
            ],
        },
        {"cell_type": "markdown", "source": []},
    ],
}


def kinds(document):
    return [(b.kind, b.text) for b in document.blocks]


def offsets_hold(document):
    return all(document.text[b.start : b.end] == b.text for b in document.blocks)


@pytest.mark.parametrize("name", ["news.rss", "news.xml", "news"])
def test_rss_has_a_heading_for_each_entry_then_date_and_text(name):
    document = parse_bytes(RSS.encode(), name)
    assert document.title == "Shop & news"
    assert document.metadata == {"lang": "en"}
    assert [(b.kind, b.level, b.text) for b in document.blocks] == [
        ("heading", 1, "Shop & news"),
        ("paragraph", 0, "What is new"),
        ("heading", 2, "New hours"),
        ("paragraph", 0, "Published: 2024-11-19T13:30:02+00:00\nAuthor: Editor"),
        ("heading", 4, "Details"),
        ("paragraph", 0, "Open late."),
        ("list_item", 0, "- Mon"),
        ("heading", 2, "Sale"),
        ("paragraph", 0, "Half price"),
    ]
    assert offsets_hold(document)


def test_atom_reads_xhtml_and_plain_text():
    document = parse_bytes(ATOM.encode("utf-16"), "log.atom")
    assert kinds(document) == [
        ("heading", "Log"),
        ("paragraph", "All changes"),
        ("heading", "v2"),
        ("paragraph", "Published: 2024-05-01T10:00:00Z\nAuthor: Team"),
        ("paragraph", "Faster search."),
        ("heading", "v1"),
        ("paragraph", "a < b"),
    ]


def test_old_feeds_in_rdf_and_latin_are_read():
    feed = (
        '<?xml version="1.0" encoding="iso-8859-1"?><!DOCTYPE rss SYSTEM "http://example.com/x.dtd">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" '
        'xmlns="http://purl.org/rss/1.0/"><channel><title>Café</title></channel>'
        "<item><title>Entrée</title></item></rdf:RDF>"
    )
    assert kinds(parse_bytes(feed.encode("latin-1"), "a.rss")) == [
        ("heading", "Café"),
        ("heading", "Entrée"),
    ]


def test_a_whole_page_inside_an_entry_is_read():
    page = "<![CDATA[<!DOCTYPE html><html><body><p>Page</p></body></html>]]>"
    item = f"<item><title>x</title><description>{page}</description></item>"
    feed = f"<rss><channel><title>T</title>{item}{item}</channel></rss>"
    assert parse_bytes(feed.encode(), "a.rss").text.count("Page") == 2


def test_xml_that_is_no_feed_is_refused_by_its_root():
    with pytest.raises(UnsupportedFormat, match=r"a\.xml is XML but no RSS or Atom feed.*invoice"):
        parse_bytes(b"<invoice><total>3</total></invoice>", "a.xml")


def test_feed_without_entries_is_empty():
    with pytest.raises(EmptyDocument):
        parse_bytes(b"<rss><channel><title>T</title></channel></rss>", "a.rss")


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("a\tb, c\n1\t2\n", "\t"),
        ("a|b|c\n1|2|3\n", "|"),
        ('"x;y",b\n"1;2",3\n', ","),
        ("single\nvalues\n", ","),
    ],
)
def test_delimiter_is_told_from_the_rows(text, delimiter):
    assert sniff_delimiter(text) == delimiter


def test_csv_is_one_table_under_its_captions():
    source = 'Report 2024\n\nname;qty;note\nA;1;\nB;2;"two\nlines | ""x"""\n\nC;3;ok\n'
    document = parse_bytes(source.encode("cp1252"), "dir/report.csv")
    assert document.title == "report"
    assert kinds(document) == [
        ("paragraph", "Report 2024"),
        ("table", 'name | qty | note\nA | 1\nB | 2 | two lines / "x"\nC | 3 | ok'),
    ]
    assert offsets_hold(document)


def test_tsv_is_parted_by_tabs_alone():
    assert parse_bytes(b"a, b\tc\n1, 2\t3\n", "a.tsv").text == "a, b | c\n1, 2 | 3"


def test_csv_in_an_undecidable_encoding_is_refused():
    with pytest.raises(BrokenEncoding, match=r"a\.csv"):
        parse_bytes("名前,年齢\n佐藤,30\n".encode("cp932"), "a.csv")


def test_csv_with_an_endless_field_is_refused_by_its_line():
    with pytest.raises(ParseFailed, match=r"line \d+ of a\.csv.*quote left open"):
        parse_bytes(b'a,b\n"' + b"x" * 200_000, "a.csv")


@given(
    rows=st.lists(
        st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=2, max_size=4),
        min_size=1,
        max_size=6,
    )
)
def test_any_csv_is_a_table_with_exact_offsets_or_a_document_error(rows):
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    try:
        document = parse_bytes(stream.getvalue().encode(), "a.csv")
    except DocumentError:
        return
    assert offsets_hold(document)


def test_json_object_becomes_lines_and_equal_objects_a_table():
    source = """{"title": "Plans", "limits": {"users": 10, "rate": 1.50, "tags": ["a", "b"]},
      "plans": [{"name": "Free", "fee": 0}, {"name": "Pro | x", "fee": null}],
      "mixed": [{"a": true}, {"b": "two\\nlines"}], "none": null}"""
    document = parse_bytes(source.encode(), "plans.json")
    assert document.title == "Plans"
    assert kinds(document) == [
        (
            "paragraph",
            "title: Plans\nlimits.users: 10\nlimits.rate: 1.50\nlimits.tags: a, b\nplans:",
        ),
        ("table", "name | fee\nFree | 0\nPro / x | "),
        ("paragraph", "mixed 1.a: true"),
        ("paragraph", "mixed 2.b: two\nlines"),
    ]
    assert offsets_hold(document)


def test_json_list_of_equal_objects_is_a_table():
    assert kinds(parse_bytes(b'[{"k": 1, "v": [2, 3]}, {"v": [], "k": 4}]', "a.json")) == [
        ("table", "k | v\n1 | 2, 3\n4 | ")
    ]


def test_json_keeps_huge_numbers_as_they_are_written():
    digits = "9" * 10_000
    text = parse_bytes(f'{{"n": {digits}, "e": 1e999999999, "x": NaN}}'.encode(), "a.json").text
    assert text == f"n: {digits}\ne: 1e999999999\nx: NaN"


def test_json_half_of_a_surrogate_pair_is_replaced():
    assert parse_bytes(b'{"a": "x\\ud800y"}', "a.json").text == "a: x\ufffdy"


@pytest.mark.parametrize("source", [b"{}", b"[]", b'[null, "", {"a": []}]', b"null"])
def test_json_without_values_is_empty(source):
    with pytest.raises(EmptyDocument, match=r"a\.json"):
        parse_bytes(source, "a.json")


def test_jsonl_has_a_block_for_each_record():
    source = b'{"question": "Open?", "answer": "Mon-Fri"}\n\n{"x": [1, 2]}\n"text"\n'
    assert kinds(parse_bytes(source, "faq.jsonl")) == [
        ("heading", "Open?"),
        ("paragraph", "question: Open?\nanswer: Mon-Fri"),
        ("paragraph", "x: 1, 2"),
        ("paragraph", "text"),
    ]


def test_jsonl_names_the_line_that_is_broken():
    with pytest.raises(ParseFailed, match=r"line 2 of a\.jsonl"):
        parse_bytes(b'{"a": 1}\n{"b": \n', "a.jsonl")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(value=JSON)
def test_any_json_has_exact_offsets_and_keeps_its_integers(value):
    try:
        document = parse_bytes(json.dumps(value).encode(), "a.json")
    except EmptyDocument:
        return
    assert offsets_hold(document)
    if isinstance(value, dict):
        assert all(str(v) in document.text for v in value.values() if type(v) is int)


def test_notebook_keeps_markdown_code_and_text_outputs():
    document = parse_bytes(json.dumps(NOTEBOOK).encode(), "a.ipynb")
    assert document.title == "Report"
    assert kinds(document) == [
        ("heading", "Report"),
        ("paragraph", "Some text."),
        ("code", "print(6 * 7)"),
        ("paragraph", "42"),
        ("paragraph", "'done'"),
        ("paragraph", "ValueError: bad"),
    ]
    assert offsets_hold(document)


def test_notebook_of_format_3_is_read():
    cells = [
        {"cell_type": "heading", "level": 2, "source": "Old"},
        {"cell_type": "code", "input": "x = 1", "outputs": []},
    ]
    source = json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}).encode()
    assert kinds(parse_bytes(source, "a.ipynb")) == [("heading", "Old"), ("code", "x = 1")]


def test_json_that_is_no_notebook_is_refused():
    with pytest.raises(ParseFailed, match="no list of cells"):
        parse_bytes(b'{"a": 1}', "a.ipynb")
