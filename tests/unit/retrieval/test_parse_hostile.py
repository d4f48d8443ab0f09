"""Hostile and broken files: each ends in a DocumentError, in one sentence, at a bounded cost."""

import io
import json
import tracemalloc
import zipfile
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office_files import (
    book_file,
    old_workbook_file,
    replaced,
    sheet_file,
    slides_file,
    word_file,
    word_from,
    workbook_file,
    zipped,
)

from retrieval.errors import (
    DocumentError,
    EmptyDocument,
    ParseFailed,
    ParseLimit,
    UnsupportedFormat,
)
from retrieval.parsing import SUPPORTED_EXTENSIONS, archive, grid, parse_bytes, xls

WORKBOOK = workbook_file(lambda book: book.active.append(["a", "b"]))
FEED = b"<rss><channel><title>T</title><item><title>x</title></item></channel></rss>"
NOTEBOOK = json.dumps({"cells": [{"cell_type": "markdown", "source": "# x"}]}).encode()
BOOK = book_file({"one": "<h1>A</h1><p>b</p>"})
SAMPLES = {
    "a.docx": word_file(),
    "a.pptx": slides_file(),
    "a.xlsx": WORKBOOK,
    "a.xls": old_workbook_file(),
    "a.epub": BOOK,
    "a.rss": FEED,
    "a.csv": b'a,b\n1,"2"\n',
    "a.json": b'{"a": [1, {"b": null}]}',
    "a.jsonl": b'{"a": 1}\n[2]\n',
    "a.ipynb": NOTEBOOK,
}
ZIPPED = ["a.docx", "a.pptx", "a.xlsx", "a.epub"]
MAIN_PARTS = {
    "a.docx": "word/document.xml",
    "a.pptx": "ppt/slides/slide1.xml",
    "a.xlsx": "xl/worksheets/sheet1.xml",
    "a.epub": "OPS/book.opf",
}
# Ten times ten times ... of "lol", in a text and in an attribute.
LAUGHS = (
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "lol">'
    + b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 10) for n in range(9))
    + b']><a b="&j;">&j;</a>'
)


def refused(data, name, kind, words):
    with pytest.raises(kind, match=words) as caught:
        parse_bytes(data, name)
    message = str(caught.value)
    assert name in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", ZIPPED)
def test_archive_that_unpacks_to_too_much_is_refused_as_declared(name, monkeypatch):
    monkeypatch.setattr(archive, "MAX_DECLARED_BYTES", 1 << 20)
    with zipfile.ZipFile(io.BytesIO(SAMPLES[name])) as source:
        parts = {n: source.read(n) for n in source.namelist()}
    data = zipped({**parts, "big.bin": bytes(2 << 20)})
    refused(data, name, ParseLimit, r"unpacks to \d+ bytes")


@pytest.mark.parametrize("name", ZIPPED)
def test_part_that_unpacks_to_more_than_allowed_is_not_read_on(name):
    blanks = b" " * (40 << 20)
    data = replaced(SAMPLES[name], MAIN_PARTS[name], lambda part: part + blanks * 4)
    assert len(data) < 2 << 20
    tracemalloc.start()
    refused(data, name, ParseLimit, r"unpacks to more than the \d+ bytes")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400 << 20


def test_parts_together_are_bounded(monkeypatch):
    monkeypatch.setattr(archive, "MAX_READ_BYTES", 2_000)
    refused(word_file(), "a.docx", ParseLimit, "unpacks to more")


def test_lying_size_is_caught():
    data = bytearray(zipped({"[Content_Types].xml": "<Types/>", "word/document.xml": "x" * 5000}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (10).to_bytes(4, "little")
    refused(bytes(data), "a.docx", ParseFailed, "damaged")


def test_too_many_members_are_counted_before_they_are_listed(monkeypatch):
    monkeypatch.setattr(archive, "MAX_MEMBERS", 100)
    data = zipped({f"word/{n}.xml": "" for n in range(101)})
    refused(data, "a.docx", ParseLimit, "101 archive members; the limit is 100")


def test_nested_archives_are_not_opened():
    inner = zipped({"secret.txt": "inner words"})
    body = "<w:p><w:r><w:t>outer words</w:t></w:r></w:p>"
    with zipfile.ZipFile(io.BytesIO(word_from(body))) as source:
        parts = {n: source.read(n) for n in source.namelist()}
    data = zipped({**parts, "word/embeddings/inner.docx": inner})
    assert parse_bytes(data, "a.docx").text == "outer words"


def test_rare_compression_is_refused():
    data = zipped({"[Content_Types].xml": "", "word/document.xml": "x"}, zipfile.ZIP_BZIP2)
    refused(data, "a.docx", ParseFailed, "method 12")


@pytest.mark.parametrize("name", ZIPPED)
def test_entities_are_refused_in_every_office_part(name):
    refused(replaced(SAMPLES[name], MAIN_PARTS[name], LAUGHS), name, ParseFailed, "document type")
    utf16 = LAUGHS.decode().replace("?>", ' encoding="utf-16"?>', 1).encode("utf-16")
    refused(replaced(SAMPLES[name], MAIN_PARTS[name], utf16), name, ParseFailed, "document type")


def test_entities_in_a_feed_are_refused_and_files_not_read(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("top secret")
    outside = (
        f'<!DOCTYPE rss [<!ENTITY x SYSTEM "file://{secret}">]><rss><channel><title>&x;</title>'
        "<item><title>a</title></item></channel></rss>"
    )
    refused(outside.encode(), "a.rss", ParseFailed, "document type")
    refused(LAUGHS, "a.xml", ParseFailed, "document type")
    named = FEED.replace(b"<title>x", b"<title>&undefined;")
    refused(named, "a.rss", ParseFailed, "not well-formed")


def test_entities_in_a_chapter_are_not_expanded():
    data = replaced(BOOK, "OPS/one.xhtml", LAUGHS + b"<p>words</p>")
    with suppress(DocumentError):
        assert parse_bytes(data, "a.epub").text.count("lol") <= 1


def test_a_tree_of_too_many_nodes_is_refused():
    data = word_from("<w:p/>" * 3_100_000)
    refused(data, "a.docx", ParseLimit, "XML nodes; the limit is")


@pytest.mark.parametrize("name", ["a.docx", "a.pptx"])
def test_deep_xml_is_refused(name):
    deep = b"<a>" * 100_000 + b"</a>" * 100_000
    refused(replaced(SAMPLES[name], MAIN_PARTS[name], deep), name, ParseFailed, "well-formed")


def test_deep_but_legal_word_tables_are_read_or_refused():
    cell = "<w:tbl><w:tr><w:tc>"
    body = cell * 70 + "<w:p><w:r><w:t>deep</w:t></w:r></w:p>" + "</w:tc></w:tr></w:tbl>" * 70
    with suppress(DocumentError):
        assert "deep" in parse_bytes(word_from(body), "a.docx").text


def test_claimed_dimension_and_far_cells_cost_nothing():
    data = sheet_file(
        '<dimension ref="A1:XFD1048576"/><sheetData><row r="1"><c r="A1"><v>1</v></c>'
        '<c r="XFD1"><v>2</v></c></row><row r="1048576"><c r="XFD1048576"><v>3</v></c></row>'
        "</sheetData>"
    )
    assert [b.text for b in parse_bytes(data, "a.xlsx").blocks[1:]] == ["1 | 2", "3"]


def test_absurd_merged_ranges_fill_only_rows_that_exist():
    data = sheet_file(
        '<sheetData><row r="1"><c r="A1"><v>1</v></c><c r="B1"><v>2</v></c></row><row r="2">'
        '<c r="B2"><v>3</v></c></row></sheetData><mergeCell ref="A1:XFD1048576"/>'
    )
    assert parse_bytes(data, "a.xlsx").blocks[1].text == "1 | 2\n1 | 3"


def test_too_many_merged_ranges_are_refused():
    data = sheet_file("<sheetData/>" + '<mergeCell ref="A1:B2"/>' * 20_001)
    refused(data, "a.xlsx", ParseLimit, "merged ranges")


def test_one_long_text_shared_by_many_cells_is_stopped(monkeypatch):
    monkeypatch.setattr(grid, "MAX_CHARS", 1 << 20)
    cells = "".join(f'<row r="{n}"><c t="s"><v>0</v></c></row>' for n in range(1, 200))
    data = sheet_file(f"<sheetData>{cells}</sheetData>", f"<si><t>{'x' * 32_000}</t></si>")
    refused(data, "a.xlsx", ParseLimit, "characters of cell text")


def test_too_many_cells_are_stopped(monkeypatch):
    monkeypatch.setattr(grid, "MAX_CELLS", 100)
    data = workbook_file(lambda book: [book.active.append([1, 2]) for _ in range(60)])
    refused(data, "a.xlsx", ParseLimit, "filled cells")
    refused(b"a,b\n" * 60, "a.csv", ParseLimit, "filled cells")


def test_old_workbook_of_too_many_places_is_stopped(monkeypatch):
    monkeypatch.setattr(xls, "MAX_PLACES", 5)
    refused(SAMPLES["a.xls"], "a.xls", ParseLimit, "more than 5 cells")


def test_scattered_cells_do_not_multiply_into_blanks(monkeypatch):
    monkeypatch.setattr(grid, "MAX_CHARS", 1 << 20)
    letters = [a + b for a in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" for b in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
    rows = "".join(
        f'<row r="{n}"><c r="{letters[n % 676]}{n}"><v>1</v></c></row>' for n in range(1, 2000)
    )
    data = sheet_file(f"<sheetData>{rows}</sheetData>")
    refused(data, "a.xlsx", ParseLimit, "characters of cell text")


@pytest.mark.parametrize("value", ["1e999", "-1e308", "nan", "1_0", "9" * 400, "=1+1", "0x1"])
def test_odd_numbers_in_cells_are_shown_or_dropped(value):
    data = sheet_file(f"<sheetData><row><c><v>{value}</v></c><c><v>1</v></c></row></sheetData>")
    assert "1" in parse_bytes(data, "a.xlsx").text


def test_formula_text_is_never_shown():
    data = sheet_file(
        "<sheetData><row><c><f>HYPERLINK(&quot;x&quot;)</f><v>7</v></c></row></sheetData>"
    )
    assert parse_bytes(data, "a.xlsx").blocks[1].text == "7"


def test_word_spans_and_repeated_merges_are_bounded():
    row = (
        '<w:tr><w:tc><w:tcPr><w:gridSpan w:val="999999999"/><w:vMerge{}/></w:tcPr><w:p><w:r>'
        "<w:t>{}</w:t></w:r></w:p></w:tc><w:tc><w:p><w:r><w:t>b</w:t></w:r></w:p></w:tc></w:tr>"
    )
    body = "<w:tbl>" + row.format(' w:val="restart"', "x") + row.format("", "") + "</w:tbl>"
    text = parse_bytes(word_from(body), "a.docx").text
    assert text.count("x") == 2
    assert len(text) < 1000
    many = row.format(' w:val="restart"', "x" * 1_000_000) + row.format("", "") * 100
    refused(word_from(f"<w:tbl>{many}</w:tbl>"), "a.docx", ParseLimit, "characters of cell text")


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.ipynb"])
def test_deep_json_is_refused(name):
    refused(b"[" * 200_000 + b"]" * 200_000, name, ParseLimit, "nested too deeply")
    if name == "a.json":
        refused(b'{"a":' * 100 + b"1" + b"}" * 100, name, ParseLimit, "nested too deeply")


def test_json_of_too_many_values_is_refused_before_it_is_built():
    refused(b"[" + b"[]," * 1_000_000 + b"[]]", "a.json", ParseLimit, "too large")


def test_long_json_keys_do_not_multiply(monkeypatch):
    monkeypatch.setattr(grid, "MAX_CHARS", 1 << 20)
    value = {"k" * 1000: {"l" * 1000: {str(n): n for n in range(2000)}}}
    refused(json.dumps(value).encode(), "a.json", ParseLimit, "characters")


@pytest.mark.parametrize("name", ZIPPED)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated_archives_are_damaged(name, share):
    data = SAMPLES[name]
    refused(data[: int(len(data) * share)], name, ParseFailed, "damaged or truncated")


def test_truncated_old_workbook_is_damaged():
    data = SAMPLES["a.xls"]
    refused(data[: len(data) // 2], "a.xls", DocumentError, "damaged|readable|contradicts")


@pytest.mark.parametrize("name", [*ZIPPED, "a.xls"])
@pytest.mark.parametrize("other", [*SAMPLES, "a.txt"])
def test_wrong_extension_is_refused_with_the_right_one(name, other):
    if name == other:
        return
    data = SAMPLES.get(other, b"just some words")
    message = refused(data, name, UnsupportedFormat, "by its content")
    if other in (*ZIPPED, "a.xls"):
        assert f"rename it to {other[1:]}" in message


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.txt", "a.md", "a.rss", "a.ipynb"])
def test_binary_content_under_a_text_name_is_refused(name):
    refused(SAMPLES["a.xlsx"], name, UnsupportedFormat, r"rename it to \.xlsx")
    refused(SAMPLES["a.xls"], name, UnsupportedFormat, r"rename it to \.xls")


def test_plain_archives_and_opendocument_are_named():
    refused(zipped({"a.txt": "x"}), "a.docx", UnsupportedFormat, "ZIP archive")
    odt = zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "<a/>"})
    refused(odt, "a.docx", UnsupportedFormat, "OpenDocument")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("old.doc", r"save it as \.docx"),
        ("old.ppt", r"save it as \.pptx"),
        ("a.rtf", r"save it as \.docx"),
        ("a.png", "OCR"),
        ("a.JPG", "OCR"),
        ("a.zip", "unpack it first"),
        ("a.bin", "unsupported extension"),
    ],
)
def test_unsupported_formats_say_what_to_do(name, advice):
    message = refused(b"\xd0\xcf\x11\xe0" + bytes(100), name, UnsupportedFormat, advice)
    assert all(extension in message for extension in SUPPORTED_EXTENSIONS)


def test_locked_files_say_so():
    stream = b"\xd0\xcf\x11\xe0" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
    for name in ("a.docx", "a.xlsx", "a.pptx"):
        refused(stream, name, ParseFailed, "password protected")
    flagged = bytearray(word_file())
    at = 0
    while (at := flagged.find(b"PK\x01\x02", at)) >= 0:
        flagged[at + 8] |= 1
        at += 4
    refused(bytes(flagged), "a.docx", ParseFailed, "encrypted")
    lock = (
        '<encryption><EncryptedData><CipherData><CipherReference URI="OPS/one.xhtml"/>'
        "</CipherData></EncryptedData></encryption>"
    )
    data = book_file({"one": "<p>x</p>"}, {"META-INF/encryption.xml": lock})
    refused(data, "a.epub", ParseFailed, "digital rights")
    fonts = lock.replace("OPS/one.xhtml", "OPS/font.otf")
    data = book_file({"one": "<p>x</p>"}, {"META-INF/encryption.xml": fonts})
    assert parse_bytes(data, "a.epub").text == "x"


def test_files_without_text_are_empty_never_an_empty_document():
    refused(word_from("<w:p/>"), "a.docx", EmptyDocument, "holds no text")
    refused(sheet_file("<sheetData/>"), "a.xlsx", EmptyDocument, "holds no text")
    refused(book_file({"one": "<p> </p>"}), "a.epub", EmptyDocument, "holds no text")
    refused(b",,\n,,\n", "a.csv", EmptyDocument, "holds no text")
    refused(b'{"cells": []}', "a.ipynb", EmptyDocument, "holds no text")


@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", SAMPLES)
@given(data=st.data())
def test_mutated_bytes_raise_nothing_but_document_errors(name, data):
    mutated = bytearray(SAMPLES[name])
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(mutated) - 1))
        mutated[place] = data.draw(st.integers(0, 255))
    check_parses_or_refuses(bytes(mutated), name)


@settings(max_examples=60, deadline=None)
@pytest.mark.parametrize("name", ZIPPED)
@given(data=st.data())
def test_mutated_parts_raise_nothing_but_document_errors(name, data):
    """The same below the archive's checksums, which stop most changes of the file itself."""
    with zipfile.ZipFile(io.BytesIO(SAMPLES[name])) as source:
        parts = {n: source.read(n) for n in source.namelist()}
    path = data.draw(st.sampled_from([n for n in parts if parts[n] and not n.endswith(".jpeg")]))
    part = bytearray(parts[path])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(part) - 1))
        part[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"", b"9", b"-1", b"x", b"<", b"/", b'"', b"\xff", b"99999999999"])
        )
    check_parses_or_refuses(zipped({**parts, path: bytes(part)}), name)


def check_parses_or_refuses(data, name):
    refusal = ""
    try:
        document = parse_bytes(data, name)
    except DocumentError as error:
        refusal = str(error)
    assert "\n" not in refusal
    if refusal:
        return
    assert document.blocks
    assert all(document.text[b.start : b.end] == b.text for b in document.blocks)
