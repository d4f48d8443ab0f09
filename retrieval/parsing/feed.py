"""RSS 0.9 to 2.0 and Atom feeds: a heading for each entry, then its date and its text."""

import datetime
import email.utils
import html
import re

from retrieval.errors import ParseLimit, UnsupportedFormat
from retrieval.parsing.html import parse_html
from retrieval.parsing.nested import add_document
from retrieval.parsing.safe_xml import Element, attribute, child, local_name, parse_xml
from retrieval.parsing.text import DocumentBuilder, clean, collapse, decode
from retrieval.types import ParsedDocument

MAX_ENTRIES = 50_000

_DECLARATION = re.compile(r"\A\s*<\?xml[^>]{0,400}\?>")
_ENCODING = re.compile(rb"""\A[^<]{0,8}<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w.:-]{1,40})""")
# RSS 0.91 feeds point to a DTD, and pages inside entries may too; one with declarations is refused.
_DOCTYPE = re.compile(r"<!DOCTYPE\s[^\[\]<>]{0,400}>")
_NAMED = re.compile(r"&([A-Za-z][A-Za-z0-9]{1,31});")
_TAG = re.compile(r"</?[A-Za-z][^<>]{0,500}>")
_XML_NAMES = frozenset({"amp", "apos", "gt", "lt", "quot"})
_FULL_TEXTS = ("encoded", "content")
_SHORT_TEXTS = ("description", "summary")
_DATES = ("pubDate", "published", "date", "issued", "updated", "modified")


def parse_feed(data: bytes, name: str) -> ParsedDocument:
    """Parse a feed; an entry's full text is taken before its summary.

    Raises:
        EmptyDocument: it has neither entries nor a description.
        ParseFailed: not well-formed.
        ParseLimit: more than `MAX_ENTRIES` entries, or too large.
        UnsupportedFormat: XML of another kind.
    """
    root = _root(data, name)
    kind = local_name(root)
    channel = child(root, "channel") if kind in ("rss", "RDF") else root
    if kind not in ("rss", "RDF", "feed") or channel is None:
        raise UnsupportedFormat(
            f"{name} is XML but no RSS or Atom feed (its root is {kind[:60]}); "
            "export it as HTML, JSON or CSV"
        )
    entries = [e for e in root.iter("{*}item", "{*}entry")]
    if len(entries) > MAX_ENTRIES:
        raise ParseLimit(f"{name} has {len(entries)} entries; the limit is {MAX_ENTRIES}")
    builder = DocumentBuilder(
        name, "application/atom+xml" if kind == "feed" else "application/rss+xml"
    )
    title = _line(channel, "title")
    about = _line(channel, "description") or _line(channel, "subtitle")
    if entries or about:
        builder.add("heading", title, level=1)
    builder.add("paragraph", about)
    for entry in entries:
        _add_entry(builder, entry, name)
    language = _line(channel, "language")
    return builder.build(title=title, metadata={"lang": language} if language else {})


def _root(data: bytes, name: str) -> Element:
    declared = _ENCODING.match(data[:600])
    text = decode(data, name, declared.group(1).decode("ascii") if declared else None)
    text = _DOCTYPE.sub("", _DECLARATION.sub("", text.lstrip("\ufeff")))
    return parse_xml(_NAMED.sub(_character, text).strip().encode("utf-8"), name)


def _character(match: re.Match[str]) -> str:
    """A character by its HTML name, which feeds use though XML does not know it."""
    if match.group(1) in _XML_NAMES:
        return match.group()
    return html.unescape(match.group())


def _add_entry(builder: DocumentBuilder, entry: Element, name: str) -> None:
    builder.add("heading", _line(entry, "title"), level=2)
    date = next((found for key in _DATES if (found := _line(entry, key))), "")
    author = _line(entry, "creator") or _line(child(entry, "author"), "name")
    details = [f"Published: {_iso_date(date)}"] if date else []
    details += [f"Author: {author}"] if author else []
    builder.add("paragraph", "\n".join(details))
    content = _content(entry)
    if content.strip():
        page = f"<html><body>{content}</body></html>".encode()
        # Headings inside an entry stand below its own.
        add_document(builder, parse_html, page, name, deeper=2)


def _content(entry: Element) -> str:
    """The entry's text as HTML: the longest of its full texts, else of its summaries."""
    for names in (_FULL_TEXTS, _SHORT_TEXTS):
        texts = [_as_html(item) for item in entry if local_name(item) in names]
        longest = max(texts, key=len, default="")
        if longest.strip():
            return longest
    return ""


def _as_html(element: Element) -> str:
    from lxml import etree  # type: ignore[import-untyped]

    kind = attribute(element, "type", "html")
    if len(element):
        # Atom's xhtml: markup that is part of the feed itself.
        inside = (etree.tostring(item, encoding="unicode") for item in element)
        return html.escape(element.text or "") + "".join(inside)
    text = element.text or ""
    return html.escape(text) if kind in ("text", "text/plain") else text


def _line(element: Element | None, name: str) -> str:
    """The text of a child on one line, markup inside it dropped."""
    found = child(element, name)
    if found is None:
        return ""
    text = "".join(found.itertext())
    return collapse(clean(html.unescape(_TAG.sub("", text))))


def _iso_date(text: str) -> str:
    """An RFC 822 date in ISO 8601; other dates stay as they are."""
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return text
    return (
        moment.replace(microsecond=0).isoformat() if isinstance(moment, datetime.datetime) else text
    )
