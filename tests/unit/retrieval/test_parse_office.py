"""Word, PowerPoint and e-books: what is kept, what is left out, exact offsets."""

import docx
import pptx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from office_files import (
    book_file,
    marked,
    replaced,
    saved,
    slides_file,
    word_file,
    word_from,
)
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE

from retrieval.errors import EmptyDocument
from retrieval.parsing import parse_bytes


def kinds(document):
    return [(b.kind, b.text) for b in document.blocks]


def offsets_hold(document):
    ends = [0, *(b.end for b in document.blocks)]
    return all(document.text[b.start : b.end] == b.text for b in document.blocks) and all(
        b.start >= end for b, end in zip(document.blocks, ends, strict=False)
    )


def test_word_keeps_headings_lists_and_merged_tables_and_drops_headers():
    document = parse_bytes(word_file(), "policy.docx")
    assert document.title == "Travel policy"
    assert kinds(document) == [
        ("heading", "Flights"),
        ("paragraph", "Book early."),
        ("list_item", "- Economy"),
        ("list_item", "1. First step"),
        ("list_item", "2. Second step"),
        ("heading", "Rates"),
        ("table", "Zone | Class | Fee\nEU | A | 4 €\nEU | B | 6 €"),
    ]
    assert [b.level for b in document.blocks if b.kind == "heading"] == [1, 2]
    assert offsets_hold(document)


def test_word_title_style_is_title_and_heading():
    document = docx.Document()
    document.core_properties.title = "Word Document"
    document.add_heading("Handbook", level=0)
    document.add_paragraph("Text")
    parsed = parse_bytes(saved(document), "a.docx")
    assert parsed.title == "Handbook"
    assert kinds(parsed) == [("heading", "Handbook"), ("paragraph", "Text")]


def test_word_hidden_and_deleted_text_is_dropped_and_inserted_text_kept():
    document = docx.Document()
    marked(document, "invisible", "w:vanish")
    data = saved(document)
    body = (
        b"<w:p><w:del><w:r><w:t>deleted</w:t></w:r></w:del><w:ins><w:r><w:t>in</w:t></w:r>"
        b"</w:ins><w:hyperlink><w:r><w:t>serted</w:t></w:r></w:hyperlink></w:p><w:sectPr"
    )
    data = replaced(data, "word/document.xml", lambda x: x.replace(b"<w:sectPr", body, 1))
    assert parse_bytes(data, "a.docx").text == "inserted"


def test_word_footnote_stands_below_its_paragraph_once():
    reference = '<w:r><w:footnoteReference w:id="2"/></w:r>'
    data = word_from(
        f"<w:p><w:r><w:t>Claim</w:t></w:r>{reference}{reference}</w:p>"
        "<w:p><w:r><w:t>Next</w:t></w:r></w:p>",
        footnotes='<w:footnote w:id="0" w:type="separator"><w:p><w:r><w:t>---</w:t></w:r></w:p>'
        '</w:footnote><w:footnote w:id="2"><w:p><w:r><w:t>Source: audit</w:t></w:r></w:p>'
        "</w:footnote>",
    )
    assert kinds(parse_bytes(data, "a.docx")) == [
        ("paragraph", "Claim [1]"),
        ("paragraph", "[1] Source: audit"),
        ("paragraph", "Next"),
    ]


def numbered(text, level, list_id=1, outline=""):
    outline = f'<w:outlineLvl w:val="{outline}"/>' if outline else ""
    return (
        f'<w:p><w:pPr><w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="{list_id}"/></w:numPr>'
        f"{outline}</w:pPr><w:r><w:t>{text}</w:t></w:r></w:p>"
    )


def test_word_numbers_lists_and_headings_as_shown():
    def level(depth, shape, text):
        return (
            f'<w:lvl w:ilvl="{depth}"><w:start w:val="1"/><w:numFmt w:val="{shape}"/>'
            f'<w:lvlText w:val="{text}"/></w:lvl>'
        )

    numbering = (
        '<w:abstractNum w:abstractNumId="7">'
        + level(0, "decimal", "%1.")
        + level(1, "lowerLetter", "%1.%2)")
        + level(2, "bullet", "\uf0b7")
        + '</w:abstractNum><w:num w:numId="1"><w:abstractNumId w:val="7"/></w:num>'
        '<w:num w:numId="2"><w:abstractNumId w:val="7"/><w:lvlOverride w:ilvl="0">'
        '<w:startOverride w:val="5"/></w:lvlOverride></w:num>'
    )
    body = (
        numbered("Scope", 0, outline="0")
        + numbered("one", 1)
        + numbered("two", 1)
        + numbered("dot", 2)
        + numbered("Terms", 0, outline="0")
        + numbered("again", 1)
        + numbered("fifth", 0, list_id=2)
        + numbered("none", 0, list_id=0)
    )
    document = parse_bytes(word_from(body, numbering=numbering), "a.docx")
    assert kinds(document) == [
        ("heading", "1. Scope"),
        ("list_item", "  1.a) one"),
        ("list_item", "  1.b) two"),
        ("list_item", "    - dot"),
        ("heading", "2. Terms"),
        ("list_item", "  2.a) again"),
        ("list_item", "5. fifth"),
        ("paragraph", "none"),
    ]


def test_word_text_boxes_are_read_once_and_alternatives_not_twice():
    box = "<w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent>"
    body = (
        '<w:p xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"><w:r>'
        f"<mc:AlternateContent><mc:Choice><w:drawing>{box}</w:drawing></mc:Choice><mc:Fallback>"
        f"<w:pict>{box}</w:pict></mc:Fallback></mc:AlternateContent><w:t>anchor</w:t></w:r></w:p>"
    )
    assert kinds(parse_bytes(word_from(body), "a.docx")) == [
        ("paragraph", "anchor"),
        ("paragraph", "boxed"),
    ]


def test_word_strict_namespaces_are_read():
    data = replaced(
        word_from("<w:p><w:r><w:t>strict</w:t></w:r></w:p>"),
        "word/document.xml",
        lambda x: x.replace(
            b"http://schemas.openxmlformats.org/wordprocessingml/2006/main",
            b"http://purl.oclc.org/ooxml/wordprocessingml/main",
        ),
    )
    assert parse_bytes(data, "a.docx").text == "strict"


def test_word_table_of_one_column_is_read_as_text():
    document = docx.Document()
    document.add_table(rows=1, cols=1).cell(0, 0).text = "Framed remark"
    assert kinds(parse_bytes(saved(document), "a.docx")) == [("paragraph", "Framed remark")]


def test_slides_give_a_heading_each_with_page_notes_and_tables():
    document = parse_bytes(slides_file(), "roadmap.pptx")
    assert document.title == "Roadmap"
    assert document.pages == 2
    assert [(b.kind, b.page, b.text) for b in document.blocks] == [
        ("heading", 1, "Plans"),
        ("list_item", 1, "- Ship search"),
        ("list_item", 1, "  - with filters"),
        ("paragraph", 1, "Notes: Mention the date."),
        ("heading", 2, "Slide 2"),
        ("table", 2, "Team | Size\nCore | 7"),
        ("paragraph", 2, "Free text"),
    ]
    assert offsets_hold(document)


def test_slides_chart_becomes_a_table_and_a_hidden_slide_is_left_out():
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[5])
    slide.shapes.title.text = "Sales"
    data = CategoryChartData()
    data.categories = ["Q1", "Q2"]
    data.add_series("Units", (19.5, 21))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, 0, 0, 100, 100, data)
    hidden = show.slides.add_slide(show.slide_layouts[5])
    hidden.shapes.title.text = "Backup"
    hidden._element.set("show", "0")
    document = parse_bytes(saved(show), "a.pptx")
    assert [b.text for b in document.blocks if b.kind == "table"] == [
        " | Units\nQ1 | 19.5\nQ2 | 21"
    ]
    assert "Backup" not in document.text
    assert document.pages == 2


def test_slides_without_text_are_empty():
    show = pptx.Presentation()
    show.slides.add_slide(show.slide_layouts[6])
    with pytest.raises(EmptyDocument, match=r"a\.pptx"):
        parse_bytes(saved(show), "a.pptx")


def test_book_keeps_spine_order_headings_and_title():
    chapters = {
        "one": "<nav><ol><li>Contents</li></ol></nav><h1>Start</h1><p>First words.</p>",
        "two": "<h1>End</h1><ul><li>Last</li></ul><table><tr><td>a<td>b</table>",
    }
    document = parse_bytes(book_file(chapters, spine=["two", "one", "two"]), "book.epub")
    assert document.title == "The Book"
    assert document.metadata["author"] == "A. Writer"
    assert kinds(document) == [
        ("heading", "End"),
        ("list_item", "- Last"),
        ("table", "a | b"),
        ("heading", "Start"),
        ("paragraph", "First words."),
    ]


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"]), max_size=60), max_size=6
    ),
    level=st.integers(1, 9),
)
def test_any_word_text_has_exact_offsets(texts, level):
    document = docx.Document()
    for text in texts:
        document.add_heading(text, level=level)
        document.add_paragraph(text, style="List Bullet")
    try:
        parsed = parse_bytes(saved(document), "a.docx")
    except EmptyDocument:
        return
    assert offsets_hold(parsed)
    assert all(1 <= b.level <= 6 for b in parsed.blocks if b.kind == "heading")
