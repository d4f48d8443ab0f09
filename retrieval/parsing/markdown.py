"""Markdown (CommonMark with tables and YAML front matter) through markdown-it-py's tokens."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from retrieval.parsing.text import DocumentBuilder, clean, collapse, decode, table_text
from retrieval.types import BlockKind, ParsedDocument

if TYPE_CHECKING:
    from markdown_it.token import Token

# Text nested deeper is lost; the parser recurses, so there must be a limit.
_MAX_NESTING = 100
_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_FIELD = re.compile(r"^([A-Za-z_][\w-]*):[ \t]*(.*?)[ \t]*$")
_TAG = re.compile(r"<[^<>]{1,2000}>")
_HIDDEN_HTML = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style|template)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE
)
_LINE_BREAK_TAG = re.compile(r"<br\s*/?>", re.IGNORECASE)


def parse_markdown(data: bytes, name: str) -> ParsedDocument:
    """Parse Markdown. Markup is dropped, an absolute link keeps its target in parentheses."""
    from markdown_it import MarkdownIt

    source = clean(decode(data, name))
    metadata, body = split_front_matter(source)
    parser = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING}).enable("table")
    builder = DocumentBuilder(name, "text/markdown")
    _Walker(builder, parser.parse(_HIDDEN_HTML.sub("", body))).walk()
    return builder.build(title=metadata.get("title", ""), metadata=metadata)


def split_front_matter(source: str) -> tuple[dict[str, str], str]:
    """The simple `key: value` lines of YAML front matter, and the text behind it.

    Nested values are skipped: metadata is a flat map, and no YAML loader meets untrusted text.
    """
    match = _FRONT_MATTER.match(source.lstrip("\n"))
    if match is None:
        return {}, source
    metadata = {}
    for line in match.group(1).split("\n"):
        field = _FRONT_FIELD.match(line)
        if field and field.group(2):
            metadata[field.group(1).lower()] = field.group(2).strip("\"'")
    return metadata, source.lstrip("\n")[match.end() :]


class _Walker:
    """Turns the token stream into blocks."""

    def __init__(self, builder: DocumentBuilder, tokens: "Sequence[Token]") -> None:
        self._builder = builder
        self._tokens = tokens
        self._lists: list[int | None] = []
        self._marker: str | None = None
        self._rows: list[list[str]] | None = None
        self._heading = 0

    def walk(self) -> None:
        for token in self._tokens:
            kind = token.type
            if kind == "heading_open":
                self._heading = int(token.tag[1])
            elif kind == "heading_close":
                self._heading = 0
            elif kind in ("fence", "code_block"):
                self._add("code", token.content.rstrip("\n"))
            elif kind == "html_block":
                self._add("paragraph", _plain_html(token.content))
            elif kind == "inline":
                self._inline(token)
            else:
                self._structure(token)

    def _structure(self, token: "Token") -> None:
        kind = token.type
        if kind == "bullet_list_open":
            self._lists.append(None)
        elif kind == "ordered_list_open":
            self._lists.append(int(token.attrs.get("start", 1)))
        elif kind in ("bullet_list_close", "ordered_list_close"):
            self._lists.pop()
        elif kind == "list_item_open":
            self._open_item()
        elif kind == "table_open":
            self._rows = []
        elif kind == "tr_open" and self._rows is not None:
            self._rows.append([])
        elif kind == "table_close" and self._rows is not None:
            self._builder.add("table", table_text(self._rows))
            self._rows = None

    def _open_item(self) -> None:
        number = self._lists[-1]
        self._marker = "-" if number is None else f"{number}."
        if number is not None:
            self._lists[-1] = number + 1

    def _inline(self, token: "Token") -> None:
        text = inline_text(token.children or [])
        if self._rows is not None:
            self._rows[-1].append(text)
        elif self._heading:
            self._builder.add("heading", collapse(text), level=self._heading)
        else:
            self._add("paragraph", text)

    def _add(self, kind: BlockKind, text: str) -> None:
        if not text.strip():
            return
        if not self._lists:
            self._builder.add(kind, text)
            return
        depth = len(self._lists) - 1
        indent = "  " * depth
        first = f"{indent}{self._marker} " if self._marker else f"{indent}  "
        self._marker = None
        lines = text.split("\n")
        laid_out = "\n".join([first + lines[0], *(f"{indent}  {line}" for line in lines[1:])])
        self._builder.add("list_item", laid_out, level=depth)


def inline_text(children: "Sequence[Token]") -> str:
    """The visible text of inline tokens; soft breaks become blanks, hard breaks newlines."""
    parts: list[str] = []
    targets: list[tuple[str, int]] = []
    for child in children:
        if child.type in ("text", "code_inline", "text_special"):
            parts.append(child.content)
        elif child.type == "softbreak":
            parts.append(" ")
        elif child.type == "hardbreak":
            parts.append("\n")
        elif child.type == "image":
            parts.append(child.content)
        elif child.type == "html_inline" and _LINE_BREAK_TAG.match(child.content):
            parts.append("\n")
        elif child.type == "link_open":
            targets.append((str(child.attrs.get("href", "")), len(parts)))
        elif child.type == "link_close" and targets:
            target, start = targets.pop()
            parts.append(_link_suffix(target, "".join(parts[start:])))
    return "".join(parts).strip()


def _link_suffix(target: str, label: str) -> str:
    address = target.removeprefix("mailto:").removeprefix("tel:")
    absolute = target.startswith(("http://", "https://", "mailto:", "tel:"))
    if not absolute or address.rstrip("/") in label or len(address) > 200:
        return ""
    return f" ({address})"


def _plain_html(fragment: str) -> str:
    """Text of an HTML block inside Markdown, one line a line of the source."""
    from html import unescape

    text = unescape(_TAG.sub("", _LINE_BREAK_TAG.sub("\n", fragment)))
    return "\n".join(line for line in map(collapse, text.split("\n")) if line)
