"""PDF text layers, on documents written here byte by byte."""

from contextlib import suppress

import pytest

from retrieval.errors import EmptyDocument, ParseFailed, RetrievalError
from retrieval.parsing import parse_bytes


def make_pdf(pages: list[list[tuple[float, float, str]]]) -> bytes:
    """A PDF of (font size, y, text) lines in Helvetica."""
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        "",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    kids = []
    for lines in pages:
        content = "".join(f"BT /F1 {size} Tf 72 {y} Td ({text}) Tj ET\n" for size, y, text in lines)
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
        kids.append(f"{len(objects) + 1} 0 R")
        objects.append(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]"
            f"/Resources<</Font<</F1 3 0 R>>>>/Contents {len(objects)} 0 R>>"
        )
    objects[1] = f"<</Type/Pages/Count {len(pages)}/Kids[{' '.join(kids)}]>>"
    out, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode()
    start = len(out) - len(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}")
    return (
        out + f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF".encode()
    )


def page(number: int) -> list[tuple[float, float, str]]:
    return [
        (8, 780, "ACME confidential"),
        (18, 720, f"Chapter {number}"),
        (11, 690, f"Rule {number} says that every order over a hundred euros is shipped for"),
        (11, 676, f"free within {number} days."),
        (11, 640, "A second paragraph stands apart."),
        (8, 20, f"Page {number} of 4"),
    ]


def test_pages_headings_and_paragraphs_are_found_and_running_lines_dropped():
    document = parse_bytes(make_pdf([page(n) for n in range(1, 5)]), "rules.pdf")
    assert document.pages == 4
    assert "confidential" not in document.text
    assert "Page 2" not in document.text
    second = [(b.kind, b.text) for b in document.blocks if b.page == 2]
    assert second == [
        ("heading", "Chapter 2"),
        (
            "paragraph",
            "Rule 2 says that every order over a hundred euros is shipped for free within 2 days.",
        ),
        ("paragraph", "A second paragraph stands apart."),
    ]
    assert all(document.text[b.start : b.end] == b.text for b in document.blocks)


def test_pdf_without_text_layer_says_so():
    with pytest.raises(EmptyDocument, match="no text layer"):
        parse_bytes(make_pdf([[], []]), "scan.pdf")


def test_damaged_pdf_is_a_parse_failure():
    with pytest.raises(ParseFailed, match=r"x\.pdf is a damaged PDF"):
        parse_bytes(b"%PDF-1.7\n" + b"garbage" * 50, "x.pdf")


def test_truncated_pdf_parses_or_raises_a_retrieval_error():
    whole = make_pdf([page(1)])
    for cut in range(20, len(whole), 97):
        with suppress(RetrievalError):
            assert parse_bytes(whole[:cut], "cut.pdf").text
