"""Office files, books and archives for parser tests, built as bytes."""

import io
import zipfile

import docx
import openpyxl
import pptx
import xlwt
from docx.oxml import OxmlElement
from docx.oxml.ns import qn

CONTAINER = (
    '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
    '<rootfile full-path="OPS/book.opf"/></rootfiles></container>'
)
WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def saved(document):
    stream = io.BytesIO()
    document.save(stream)
    return stream.getvalue()


def zipped(parts, method=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for path, content in parts.items():
            archive.writestr(path, content)
    return stream.getvalue()


def replaced(data, path, change):
    """The archive with one part changed: `change` is new content or a function of the old."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    parts[path] = change(parts[path]) if callable(change) else change
    return zipped(parts)


def word_file():
    document = docx.Document()
    document.core_properties.title = "Travel policy"
    document.sections[0].header.paragraphs[0].text = "Running header"
    document.add_heading("Flights", level=1)
    document.add_paragraph("Book early.")
    document.add_paragraph("Economy", style="List Bullet")
    document.add_paragraph("First step", style="List Number")
    document.add_paragraph("Second step", style="List Number")
    document.add_heading("Rates", level=2)
    table = document.add_table(rows=3, cols=3)
    for row, texts in enumerate(
        [("Zone", "Class", "Fee"), ("EU", "A", "4 €"), ("EU", "B", "6\n€")]
    ):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    table.cell(2, 0).text = ""
    table.cell(1, 0).merge(table.cell(2, 0))
    return saved(document)


def word_from(body, **parts):
    """A Word file whose `w:body` holds this XML; other parts of `word/` by name."""
    links = "".join(
        f'<Relationship Id="r{kind}" Type="http://x/{kind}" Target="{kind}.xml"/>' for kind in parts
    )
    wrap = '<w:{0} xmlns:w="' + WORD + '">{1}</w:{0}>'
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "word/document.xml": wrap.format("document", f"<w:body>{body}</w:body>"),
            "word/_rels/document.xml.rels": f"<Relationships>{links}</Relationships>",
            **{f"word/{kind}.xml": wrap.format(kind, inner) for kind, inner in parts.items()},
        }
    )


def marked(document, text, tag):
    """A paragraph whose run carries an empty property such as `w:vanish`."""
    run = document.add_paragraph().add_run(text)
    element = OxmlElement(tag)
    element.set(qn("w:val"), "1")
    run._r.get_or_add_rPr().append(element)


def slides_file():
    show = pptx.Presentation()
    show.core_properties.title = "Roadmap"
    first = show.slides.add_slide(show.slide_layouts[1])
    first.shapes.title.text = "Plans"
    frame = first.placeholders[1].text_frame
    frame.text = "Ship search"
    item = frame.add_paragraph()
    item.text, item.level = "with filters", 1
    first.notes_slide.notes_text_frame.text = "Mention the date."
    second = show.slides.add_slide(show.slide_layouts[6])
    inches = pptx.util.Inches
    table = second.shapes.add_table(2, 2, inches(1), inches(1), inches(4), inches(2)).table
    for row, texts in enumerate([("Team", "Size"), ("Core", "7")]):
        for column, text in enumerate(texts):
            table.cell(row, column).text = text
    box = second.shapes.add_textbox(inches(1), inches(4), inches(4), inches(1))
    box.text_frame.text = "Free text"
    return saved(show)


def workbook_file(fill):
    book = openpyxl.Workbook()
    fill(book)
    return saved(book)


def old_workbook_file():
    book = xlwt.Workbook()
    sheet = book.add_sheet("Prices")
    date = xlwt.easyxf(num_format_str="yyyy-mm-dd")
    for row, values in enumerate([("Item", "Price", "Since"), ("Lamp", 12.0, 45292)]):
        for column, value in enumerate(values):
            style = date if (row, column) == (1, 2) else xlwt.Style.default_style
            sheet.write(row, column, value, style)
    sheet.write_merge(2, 3, 0, 0, "Chair")
    sheet.write(2, 1, 0.5, xlwt.easyxf(num_format_str="0%"))
    sheet.write(3, 1, 7.25)
    hidden = book.add_sheet("Hidden")
    hidden.write(0, 0, "secret list")
    hidden.visibility = 1
    return saved(book)


def book_file(chapters, extra=None, spine=None):
    """An EPUB of `chapters` (name to XHTML body)."""
    items = "".join(
        f'<item id="{n}" href="{n}.xhtml" media-type="application/xhtml+xml"/>' for n in chapters
    )
    order = "".join(f'<itemref idref="{n}"/>' for n in spine or chapters)
    package = (
        '<package xmlns="http://www.idpf.org/2007/opf"><metadata '
        'xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>The Book</dc:title>'
        "<dc:creator>A. Writer</dc:creator></metadata>"
        f"<manifest>{items}</manifest><spine>{order}</spine></package>"
    )
    page = '<?xml version="1.0"?><!DOCTYPE html><html xmlns="http://www.w3.org/1999/xhtml"><body>'
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OPS/book.opf": package,
            **{f"OPS/{n}.xhtml": f"{page}{body}</body></html>" for n, body in chapters.items()},
            **(extra or {}),
        }
    )


def sheet_file(inner, shared=""):
    """A workbook whose only sheet has this XML inside `worksheet`; `shared` are its `si`s."""
    kind = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    names = {"worksheet": "sheet.xml", "sharedStrings": "shared.xml"}
    links = "".join(
        f'<Relationship Id="{name}" Type="{kind}/{name}" Target="{target}"/>'
        for name, target in names.items()
    )
    return zipped(
        {
            "[Content_Types].xml": "<Types/>",
            "xl/workbook.xml": f'<workbook xmlns="{SHEET}" xmlns:r="{kind}"><sheets>'
            '<sheet name="S" r:id="worksheet"/></sheets></workbook>',
            "xl/_rels/workbook.xml.rels": f"<Relationships>{links}</Relationships>",
            "xl/sheet.xml": f'<worksheet xmlns="{SHEET}">{inner}</worksheet>',
            "xl/shared.xml": f'<sst xmlns="{SHEET}">{shared}</sst>',
        }
    )
