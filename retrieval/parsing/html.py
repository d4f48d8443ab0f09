"""HTML through lxml: headings, paragraphs, lists, tables and code; page furniture dropped."""

import re
from typing import Any, TypeAlias

from retrieval.errors import EmptyDocument, ParseFailed
from retrieval.parsing.text import DocumentBuilder, clean, collapse, decode, table_text
from retrieval.types import BlockKind, ParsedDocument

HtmlElement: TypeAlias = Any  # lxml ships no types

_DECLARED = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([\w.:-]{1,40})""", re.IGNORECASE
)
_XML_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
# fmt: off
_DROPPED = frozenset({
    "area", "audio", "button", "canvas", "dialog", "embed", "head", "iframe", "input", "map",
    "math", "nav", "noscript", "object", "script", "select", "style", "svg", "template",
    "textarea", "video",
})
_BLOCK_TAGS = frozenset({
    "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "div", "dl",
    "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "html",
    "legend", "main", "p", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead",
    "tr",
})
# fmt: on
_DROPPED_ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "menu", "menubar"})
_HIDDEN_STYLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d]*[1-9])"
    r"|opacity\s*:\s*0(?![.\d]*[1-9])",
    re.IGNORECASE,
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_MIN_MAIN_SHARE = 0.25


def parse_html(data: bytes, name: str) -> ParsedDocument:
    """Parse an HTML page; text inside `main` is preferred where it holds the bulk of the page."""
    from lxml import etree  # type: ignore[import-untyped]
    from lxml import html as lxml_html

    declared = _DECLARED.search(data[:4096])
    text = clean(decode(data, name, declared.group(1).decode("ascii") if declared else None))
    text = _XML_DECLARATION.sub("", text)
    if not text.strip():
        raise EmptyDocument(f"{name} holds no text; nothing was indexed")
    parser = lxml_html.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True)
    try:
        root = lxml_html.document_fromstring(text.encode("utf-8"), parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError) as error:
        raise ParseFailed(f"{name} could not be read as HTML: {error}") from error
    title = collapse(root.findtext(".//title") or "")
    language = root.get("lang")
    builder = DocumentBuilder(name, "text/html")
    _Walker(builder).walk(_content_root(root))
    return builder.build(title=title, metadata={"lang": language} if language else {})


def _content_root(root: HtmlElement) -> HtmlElement:
    body = root.find("body")
    if body is None:
        return root
    mains = body.xpath(".//main | .//*[@role='main']")
    if len(mains) == 1:
        share = len(mains[0].text_content()) / max(len(body.text_content()), 1)
        if share >= _MIN_MAIN_SHARE:
            return mains[0]
    return body


def _is_dropped(element: HtmlElement) -> bool:
    if not isinstance(element.tag, str) or element.tag in _DROPPED:
        return True
    if element.get("hidden") is not None or element.get("aria-hidden") == "true":
        return True
    if element.get("role") in _DROPPED_ROLES or _HIDDEN_STYLE.search(element.get("style") or ""):
        return True
    if element.tag in ("header", "footer"):
        parent = element.getparent()
        return parent is not None and parent.tag == "body" and element.find(".//h1") is None
    return False


class _Walker:
    """Depth-first walk that gathers inline text until a block element closes it."""

    def __init__(self, builder: DocumentBuilder) -> None:
        self._builder = builder
        self._inline: list[str] = []
        self._lists: list[int | None] = []
        self._marker: str | None = None

    def walk(self, root: HtmlElement) -> None:
        self._visit(root)
        self._flush()

    def _visit(self, element: HtmlElement) -> None:
        if _is_dropped(element):
            return
        tag = element.tag
        if tag in _HEADINGS:
            self._flush()
            self._builder.add("heading", collapse(_text(element)), level=_HEADINGS[tag])
        elif tag == "table" and _is_data_table(element):
            self._flush()
            self._builder.add("table", table_text(_rows(element)))
        elif tag == "pre":
            self._flush()
            self._add("code", _text(element).strip("\n"))
        elif tag in ("ul", "ol", "menu"):
            self._visit_list(element)
        elif tag == "li":
            self._visit_item(element)
        elif tag == "br":
            self._inline.append("\n")
        elif tag in _BLOCK_TAGS:
            self._flush()
            self._children(element)
            self._flush()
        else:
            self._children(element)

    def _children(self, element: HtmlElement) -> None:
        if element.text:
            self._inline.append(_flat(element.text))
        for child in element:
            self._visit(child)
            if child.tail:
                self._inline.append(_flat(child.tail))

    def _visit_list(self, element: HtmlElement) -> None:
        self._flush()
        start = element.get("start") or "1"
        ordered = element.tag == "ol"
        self._lists.append((int(start) if start.isdecimal() else 1) if ordered else None)
        self._children(element)
        self._flush()
        self._lists.pop()

    def _visit_item(self, element: HtmlElement) -> None:
        self._flush()
        number = self._lists[-1] if self._lists else None
        self._marker = "-" if number is None else f"{number}."
        if number is not None:
            self._lists[-1] = number + 1
        self._children(element)
        self._flush()
        self._marker = None

    def _flush(self) -> None:
        text = "".join(self._inline)
        self._inline.clear()
        lines = [line for line in map(collapse, text.split("\n")) if line]
        if lines:
            self._add("paragraph", "\n".join(lines))

    def _add(self, kind: BlockKind, text: str) -> None:
        if not self._lists:
            self._builder.add(kind, text)
            return
        depth = len(self._lists) - 1
        indent = "  " * depth
        lead = f"{indent}{self._marker} " if self._marker else f"{indent}  "
        self._marker = None
        lines = text.split("\n")
        laid_out = "\n".join([lead + lines[0], *(f"{indent}  {line}" for line in lines[1:])])
        self._builder.add("list_item", laid_out, level=depth)


def _flat(text: str) -> str:
    # A newline in the source is a blank; only <br> breaks a line.
    return text.replace("\n", " ")


def _text(element: HtmlElement) -> str:
    """Visible text below `element`, its tail excluded, <br> as newline."""
    if _is_dropped(element):
        return ""
    parts = [element.text or ""]
    for child in element:
        parts.append("\n" if child.tag == "br" else _text(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _is_data_table(table: HtmlElement) -> bool:
    """Whether a table holds data; tables with headings or tables inside lay out a page."""
    if table.xpath(".//table | .//h1 | .//h2 | .//h3"):
        return False
    return any(len(row.xpath("./td | ./th")) > 1 for row in table.iter("tr"))


def _rows(table: HtmlElement) -> list[list[str]]:
    return [
        [_text(cell) for cell in row if cell.tag in ("td", "th")]
        for row in table.iter("tr")
        if not _is_dropped(row)
    ]
