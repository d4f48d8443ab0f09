"""Bytes to clean text: encoding detection, removal of invisible characters, document building."""

import re
import unicodedata
from dataclasses import dataclass, field

from retrieval.errors import BrokenEncoding, EmptyDocument
from retrieval.types import Block, BlockKind, ParsedDocument

# Controls, soft hyphen, zero-width and bidirectional marks, tag characters and the variation
# selector supplement: invisible to a reader, visible to a model, and used to smuggle instructions.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\U000e0100-\U000e01ef]"
)
# Joiners are part of the spelling in Persian, Indic scripts and emoji, and noise beside ASCII.
_STRAY_JOINER = re.compile("(?<![^\x00-\x7f])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f])")
_BLANKS = re.compile(r"[^\S\n]+")
_MULTIBYTE = re.compile("[\x80-\U0010ffff]")
_MAX_HEADING_CHARS = 240
_CP1252_MAX_NON_ASCII = 0.3


def decode(data: bytes, name: str, declared: str | None = None) -> str:
    """Decode a text file: BOM, then UTF-8, then `declared`, then a plausible Windows-1252.

    Raises:
        BrokenEncoding: the bytes fit none of them, or mix encodings.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise BrokenEncoding(
                f"{name} starts like UTF-16 but byte {error.start} is not; save it as UTF-8"
            ) from error
    if b"\x00" in data:
        raise BrokenEncoding(
            f"{name} holds NUL bytes, so it is no text in a supported encoding; save it as UTF-8"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return _decode_legacy(data, name, declared, error)


def _decode_legacy(data: bytes, name: str, declared: str | None, error: UnicodeDecodeError) -> str:
    if declared and declared.lower().replace("-", "").replace("_", "") != "utf8":
        try:
            return data.decode(declared)
        except (LookupError, UnicodeDecodeError):
            declared = None
    # Text in one legacy encoding practically never forms a valid multi-byte UTF-8 sequence.
    mixed = _MULTIBYTE.search(data.decode("utf-8", errors="ignore"))
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = ""
    non_ascii = len(_MULTIBYTE.findall(text)) / max(len(text), 1)
    controls = any(ord(c) < 32 and c not in "\t\n\r\f" for c in text)
    if mixed or not text or controls or non_ascii > _CP1252_MAX_NON_ASCII:
        raise BrokenEncoding(
            f"{name} is neither valid UTF-8 (byte {error.start}) nor plausible Windows-1252; "
            "save it as UTF-8"
        ) from error
    return text


def clean(text: str) -> str:
    """Normalise line ends and Unicode (NFC), and drop characters that nobody can see."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2028", "\n")
    text = text.replace("\u2029", "\n").replace("\x85", "\n").replace("\x0c", "\n")
    text = _INVISIBLE.sub("", text)
    return unicodedata.normalize("NFC", _STRAY_JOINER.sub("", text))


def collapse(text: str) -> str:
    """`text` on one line with single blanks."""
    return " ".join(text.split())


def collapse_lines(text: str) -> str:
    """`text` with single blanks inside lines and no empty or padded lines."""
    lines = (_BLANKS.sub(" ", line).strip() for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


@dataclass(slots=True)
class DocumentBuilder:
    """Collects blocks in reading order and lays them out as one text with exact offsets."""

    name: str
    media_type: str
    _parts: list[str] = field(default_factory=list)
    _blocks: list[Block] = field(default_factory=list)
    _length: int = 0

    def add(self, kind: BlockKind, text: str, *, level: int = 0, page: int | None = None) -> None:
        """Append a block; empty text is ignored.

        A newline parts the items of one list, a blank line parts all other blocks.
        """
        text = text.strip("\n")
        if not text.strip():
            return
        if kind == "heading" and len(text) > _MAX_HEADING_CHARS:
            kind, level = "paragraph", 0
        if self._blocks:
            in_list = kind == "list_item" and self._blocks[-1].kind == "list_item"
            separator = "\n" if in_list else "\n\n"
            self._parts.append(separator)
            self._length += len(separator)
        start = self._length
        self._parts.append(text)
        self._length += len(text)
        self._blocks.append(Block(kind, text, level, page, start, self._length))

    def build(
        self,
        *,
        title: str = "",
        pages: int | None = None,
        metadata: dict[str, str] | None = None,
    ) -> ParsedDocument:
        """The finished document; its title falls back to the first heading, then the name.

        Raises:
            EmptyDocument: no block was added.
        """
        if not self._blocks:
            raise EmptyDocument(f"{self.name} holds no text; nothing was indexed")
        if not title:
            headings = [b for b in self._blocks if b.kind == "heading"]
            top = min((b.level for b in headings), default=0)
            title = next((b.text for b in headings if b.level == top), "")
        stem = self.name.rsplit("/", 1)[-1].rsplit(".", 1)[0]
        return ParsedDocument(
            text="".join(self._parts),
            title=collapse(title) or stem,
            blocks=tuple(self._blocks),
            media_type=self.media_type,
            pages=pages,
            metadata=metadata or {},
        )


def table_text(rows: list[list[str]]) -> str:
    """Rows of cells as lines of ` | `-parted cells; empty rows are dropped."""
    lines = []
    for row in rows:
        cells = [collapse(cell).replace("|", "/") for cell in row]
        if any(cells):
            lines.append(" | ".join(cells))
    return "\n".join(lines)
