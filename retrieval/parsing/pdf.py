"""PDF text layers through pypdfium2: lines with their geometry, then paragraphs and headings."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from retrieval.errors import EmptyDocument, ParseFailed, ParseLimit
from retrieval.parsing.text import DocumentBuilder, clean, collapse
from retrieval.types import ParsedDocument

if TYPE_CHECKING:
    import pypdfium2

MAX_PAGES = 5_000

# pdfium writes U+0002 for a hyphen at the end of a line.
_LINE_HYPHEN = "\x02"
_HYPHENATED = re.compile(f"(\\w+){_LINE_HYPHEN}(\\w+)")
_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"\d+")
_LEADERS = re.compile(r"(?:[.\u2026\u00b7]\s?){5,}")
_BULLET = re.compile(
    r"^(?:[\u2022\u25cf\u25aa\u25e6\u2023\u2013\uf0b7o*-]|\(?[a-z0-9]{1,3}[.)])\s+\S"
)
_SENTENCE_END = (".", "!", "?", ":", ";")
_JUNK_TITLES = frozenset({"(anonymous)", "untitled", "unknown", "document"})
_JUNK_TITLE_ENDS = (".doc", ".docx", ".dvi", ".indd", ".pdf", ".ppt", ".pptx", ".qxd", ".tex")
# Running headers and footers stand in the outer tenth of a page.
_MARGIN_SHARE = 0.1
_REPEATED_SHARE = 0.6
_HEADING_RATIO = 1.12
_MAX_HEADING_CHARS = 120


@dataclass(frozen=True, slots=True)
class _Line:
    text: str
    size: float
    bold: bool
    bottom: float
    right: float
    in_margin: bool


def parse_pdf(data: bytes, name: str) -> ParsedDocument:
    """Parse a PDF's text layer; running headers and footers are dropped.

    Raises:
        EmptyDocument: no page has a text layer (a scan).
        ParseFailed: damaged or password protected.
        ParseLimit: more than `MAX_PAGES` pages.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        reason = "password protected" if "password" in str(error).lower() else "damaged"
        raise ParseFailed(f"{name} is a {reason} PDF and cannot be read") from error
    try:
        n_pages = len(document)
        if n_pages > MAX_PAGES:
            raise ParseLimit(f"{name} has {n_pages} pages; the limit is {MAX_PAGES}")
        pages = [_page_lines(document, index, name) for index in range(n_pages)]
        title = collapse(clean(document.get_metadata_dict().get("Title") or ""))
    finally:
        document.close()
    if not any(pages):
        raise EmptyDocument(
            f"{name} has no text layer (it looks like a scan); run text recognition (OCR) first"
        )
    return _build(pages, name, title)


def _page_lines(document: "pypdfium2.PdfDocument", index: int, name: str) -> list[_Line]:
    import pypdfium2

    try:
        page = document[index]
        text_page = page.get_textpage()
    except pypdfium2.PdfiumError as error:
        raise ParseFailed(f"page {index + 1} of {name} is damaged and cannot be read") from error
    try:
        text = text_page.get_text_range()
        # pdfium indexes UTF-16 units; a page with rarer characters is read without geometry.
        aligned = len(text) == text_page.count_chars()
        height = page.get_height()
        lines, offset = [], 0
        for part in text.split("\n"):
            line = part.rstrip("\r")
            if line.strip():
                first = offset + len(line) - len(line.lstrip())
                last = offset + len(line.rstrip()) - 1
                lines.append(
                    _measure(text_page, line.strip(), first, last, height if aligned else 0)
                )
            offset += len(part) + 1
        return lines
    finally:
        text_page.close()
        page.close()


def _measure(
    text_page: "pypdfium2.PdfTextPage", text: str, first: int, last: int, height: float
) -> _Line:
    import pypdfium2.raw as pdfium

    if not height:
        return _Line(text, 0.0, False, 0.0, 0.0, True)
    size = pdfium.FPDFText_GetFontSize(text_page, first)
    weight = pdfium.FPDFText_GetFontWeight(text_page, first)
    end_weight = pdfium.FPDFText_GetFontWeight(text_page, last)
    _, bottom, right, top = text_page.get_charbox(first, loose=True)
    right = max(right, text_page.get_charbox(last, loose=True)[2])
    # A font size of 1 scaled by the text matrix is common; the box height then tells the size.
    size = size if size > 2 else round(abs(top - bottom), 1)
    edge = min(bottom, height - top) < height * _MARGIN_SHARE
    return _Line(text, round(size, 1), min(weight, end_weight) >= 600, bottom, right, edge)


def _build(pages: list[list[_Line]], name: str, title: str) -> ParsedDocument:
    kept = _without_running_lines(pages)
    words = Counter(w.lower() for page in kept for line in page for w in _WORD.findall(line.text))
    body_size = _body_size(kept)
    sizes = sorted({line.size for page in kept for line in page}, reverse=True)
    levels = {
        size: min(rank + 1, 6)
        for rank, size in enumerate(s for s in sizes if s > body_size * _HEADING_RATIO)
    }
    builder = DocumentBuilder(name, "application/pdf")
    for number, lines in enumerate(kept, start=1):
        for kind_level, group in _group(lines, levels, body_size):
            text = _join(group, words)
            if kind_level:
                builder.add("heading", collapse(text), level=kind_level, page=number)
            elif _BULLET.match(text):
                builder.add("list_item", text, page=number)
            else:
                builder.add("paragraph", text, page=number)
    junk = title.lower() in _JUNK_TITLES or title.lower().endswith(_JUNK_TITLE_ENDS)
    return builder.build(title="" if junk else title, pages=len(pages))


def _without_running_lines(pages: list[list[_Line]]) -> list[list[_Line]]:
    """Pages without the lines that recur (digits aside) in the margins of most pages."""
    largest = _body_size(pages) * _HEADING_RATIO

    def key(line: _Line) -> str:
        # "Chapter 2" in large type is a heading, "Page 2" in small type a running line.
        return line.text if line.size > largest else _DIGITS.sub("#", line.text)

    seen: Counter[str] = Counter()
    for page in pages:
        seen.update({key(line) for line in page if line.in_margin})
    filled = sum(1 for page in pages if page)
    running = {t for t, n in seen.items() if n >= 3 and n >= filled * _REPEATED_SHARE}
    return [[x for x in page if not (x.in_margin and key(x) in running)] for page in pages]


def _body_size(pages: list[list[_Line]]) -> float:
    """The font size that most characters have."""
    weights: Counter[float] = Counter()
    for page in pages:
        for line in page:
            weights[line.size] += len(line.text)
    return weights.most_common(1)[0][0] if weights else 0.0


def _group(
    lines: list[_Line], levels: dict[float, int], body_size: float
) -> list[tuple[int, list[_Line]]]:
    """Lines as (heading level or 0, lines of one paragraph or heading)."""
    gaps = [a.bottom - b.bottom for a, b in pairwise(lines)]
    falls = sorted(gap for gap in gaps if gap > 0)
    step = falls[len(falls) // 2] if falls else 0.0
    width = max((line.right for line in lines), default=0.0)
    groups: list[tuple[int, list[_Line]]] = []
    previous: _Line | None = None
    for i, line in enumerate(lines):
        level = _heading_level(lines, i, levels, body_size)
        if previous is not None and groups and groups[-1][0] == level:
            same = line.size == previous.size if level else True
            if same and not _breaks(previous, line, step, width):
                groups[-1][1].append(line)
                previous = line
                continue
        groups.append((level, [line]))
        previous = line
    return groups


def _heading_level(
    lines: Sequence[_Line], i: int, levels: dict[float, int], body_size: float
) -> int:
    line = lines[i]
    if len(line.text) > _MAX_HEADING_CHARS or not any(c.isalpha() for c in line.text):
        return 0
    if line.size in levels:
        return levels[line.size]
    # A short bold line over plain text of the same size is a heading of the lowest level.
    follows_plain = i + 1 < len(lines) and not lines[i + 1].bold
    if (
        line.bold
        and line.size >= body_size
        and follows_plain
        and not line.text.endswith((".", ",", ";"))
    ):
        return min(len(levels) + 1, 6)
    return 0


def _breaks(previous: _Line, line: _Line, step: float, width: float) -> bool:
    """Whether a new paragraph starts at `line`."""
    gap = previous.bottom - line.bottom
    if _BULLET.match(line.text) or (step and (gap > step * 1.35 or gap < -step)):
        return True
    short = previous.right < width * 0.85
    return short and previous.text.endswith(_SENTENCE_END)


def _join(lines: Sequence[_Line], words: Counter[str]) -> str:
    """Lines as one paragraph; words that a line end hyphenated are put together again."""
    text = " ".join(line.text for line in lines)
    text = re.sub(f"{_LINE_HYPHEN}\\s+", _LINE_HYPHEN, text)

    def mend(match: re.Match[str]) -> str:
        left, right = match.group(1), match.group(2)
        # "cutting-edge": both halves are words of this document and the joined form is not.
        compound = (
            words[left.lower()] and words[right.lower()] and not words[(left + right).lower()]
        )
        return f"{left}-{right}" if compound else left + right

    text = _HYPHENATED.sub(mend, text).replace(_LINE_HYPHEN, "-")
    return collapse(clean(_LEADERS.sub(" \u2026 ", text)))
