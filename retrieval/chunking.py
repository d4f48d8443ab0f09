"""Documents to chunks along their structure, within a token budget and with exact offsets.

Sections (text under one heading) are packed from whole paragraphs, list items, table rows and
sentences. There is no overlap: apart from blanks between chunks and headings, every character of
a document is in exactly one chunk. A heading travels in `heading_path`; it is also part of a
chunk's text where sections were merged or where no text follows it.
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from retrieval.types import Block, Chunk, ParsedDocument, located_text

CountTokens = Callable[[str], int]

_MAX_CHARS_PER_TOKEN = 16

_SENTENCE_END = re.compile(
    r"""[.!?\u2026]['")\]\u2019\u201d]*\s+(?=["'(\[\u2018\u201c]?[A-Z0-9\u00c0-\u00de\u2022])"""
)
_ANY_BREAK = re.compile(r"(?<=[;:,])\s+|\n+|\s+[\u2013\u2014-]\s+")
_WORD_BREAK = re.compile(r"\s+")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Inc|Ltd|Co|Corp|No|vs|etc|e\.g|i\.e|cf|al|Fig|Sec|Art|"
    r"approx|U\.S|U\.K)|\b[A-Z])\.$"
)


@dataclass(frozen=True, slots=True)
class ChunkingOptions:
    """Token limits of a chunk's text, in tokens of the counter that is passed in.

    160 tokens let three passages, a question and an answer fit a 1k-token prompt with room.
    """

    max_tokens: int = 160
    min_tokens: int = 40

    def __post_init__(self) -> None:
        if self.max_tokens < 8 or not 0 <= self.min_tokens <= self.max_tokens // 2:
            raise ValueError(
                f"max_tokens must be at least 8 and min_tokens at most half of it, got "
                f"{self.max_tokens} and {self.min_tokens}"
            )


@dataclass(frozen=True, slots=True)
class _Unit:
    """A span that is kept whole; `prefix` is a table's header row."""

    start: int
    end: int
    n_tokens: int
    page: int | None
    prefix: str = ""


def chunk_document(
    document: ParsedDocument, count_tokens: CountTokens, options: ChunkingOptions | None = None
) -> list[Chunk]:
    """Split a document; chunks come in reading order, each within `options.max_tokens`.

    A single character that alone counts more tokens than the limit still makes a chunk.
    The result depends on nothing but the arguments.
    """
    options = options or ChunkingOptions()
    splitter = _Splitter(document, count_tokens, options)
    chunks: list[Chunk] = []
    for group in _merge_small(splitter.groups(), options):
        for span in splitter.pack(group.units):
            chunks.append(_make_chunk(document, len(chunks), group.path, span, count_tokens))
    return chunks


def embed_text(chunk: Chunk, title: str) -> str:
    """What is embedded for a chunk: title, headings, then its text, a line each."""
    return located_text(title, chunk.heading_path, chunk.text)


def _make_chunk(
    document: ParsedDocument,
    ordinal: int,
    path: tuple[str, ...],
    units: Sequence[_Unit],
    count_tokens: CountTokens,
) -> Chunk:
    start, end = units[0].start, units[-1].end
    text = units[0].prefix + document.text[start:end]
    pages = [unit.page for unit in units if unit.page is not None]
    digest = hashlib.sha256(located_text(document.title, path, text).encode()).hexdigest()
    return Chunk(
        ordinal=ordinal,
        text=text,
        heading_path=path,
        page_start=min(pages, default=None),
        page_end=max(pages, default=None),
        start_char=start,
        end_char=end,
        n_tokens=count_tokens(text),
        content_hash=digest,
    )


@dataclass(slots=True)
class _Group:
    """Sections that are packed together."""

    path: tuple[str, ...]
    base: tuple[str, ...]
    heading: _Unit | None
    units: list[_Unit]

    @property
    def n_tokens(self) -> int:
        heading = self.heading.n_tokens if self.heading else 0
        return heading + sum(unit.n_tokens for unit in self.units)

    def absorb(self, other: "_Group") -> None:
        """Take in the next sibling or first child, its heading as text."""
        if other.base == self.base:
            self.path = self.base
            if self.heading is not None:
                self.units.insert(0, self.heading)
                self.heading = None
        if other.heading is not None:
            self.units.append(other.heading)
        self.units.extend(other.units)


class _Splitter:
    """Cuts one document into units and packs units into spans."""

    def __init__(
        self, document: ParsedDocument, count_tokens: CountTokens, options: ChunkingOptions
    ) -> None:
        self._text = document.text
        self._blocks = document.blocks
        self._count_tokens = count_tokens
        self._max = options.max_tokens

    def _count(self, text: str) -> int:
        # Word-piece models count an endless word as one token; its length still costs.
        return max(self._count_tokens(text), -(-len(text) // _MAX_CHARS_PER_TOKEN))

    def groups(self) -> list[_Group]:
        """Runs of blocks under one heading, with the path of headings above them."""
        groups: list[_Group] = []
        stack: list[Block] = []
        current: _Group | None = None
        blocks = self._blocks
        for i, block in enumerate(blocks):
            if block.kind != "heading":
                if current is None:
                    path = tuple(b.text for b in stack)
                    head = stack[-1] if stack else None
                    heading = self._unit(head.start, head.end, head.page) if head else None
                    current = _Group(path, path[:-1], heading, [])
                    groups.append(current)
                current.units.extend(self._block_units(block))
                continue
            current = None
            while stack and stack[-1].level >= block.level:
                stack.pop()
            base = tuple(b.text for b in stack)
            stack.append(block)
            below = blocks[i + 1] if i + 1 < len(blocks) else None
            if below is None or (below.kind == "heading" and below.level <= block.level):
                # Nothing follows this heading: it becomes text, so that it can be found.
                groups.append(_Group(base, base, None, list(self._block_units(block))))
        return groups

    def _block_units(self, block: Block) -> Iterator[_Unit]:
        whole = self._unit(block.start, block.end, block.page)
        if whole.n_tokens <= self._max:
            yield whole
        elif block.kind == "table":
            yield from self._table_units(block)
        elif block.kind == "code":
            yield from self._split(block.start, block.end, block.page, _LINES)
        else:
            yield from self._split(block.start, block.end, block.page, _sentence_starts)

    def _table_units(self, block: Block) -> Iterator[_Unit]:
        header, _, _ = block.text.partition("\n")
        prefix = header + "\n"
        # A header that takes half the budget would crowd out the rows it explains.
        if self._count(prefix) > self._max // 2 or header == block.text:
            yield from self._split(block.start, block.end, block.page, _LINES)
            return
        start = block.start
        for line in block.text.splitlines(keepends=True):
            end = start + len(line.rstrip("\n"))
            row_prefix = prefix if start > block.start else ""
            if self._count(row_prefix + self._text[start:end]) > self._max:
                yield from self._split(start, end, block.page, _sentence_starts)
            elif end > start:
                yield self._unit(start, end, block.page, row_prefix)
            start += len(line)

    def _unit(self, start: int, end: int, page: int | None, prefix: str = "") -> _Unit:
        return _Unit(start, end, self._count(self._text[start:end]), page, prefix)

    def _split(
        self, start: int, end: int, page: int | None, starts: Callable[[str], list[int]]
    ) -> Iterator[_Unit]:
        """Cut at `starts`; a piece that is still too long is cut at finer breaks."""
        text = self._text[start:end]
        offsets = [0, *starts(text), len(text)]
        for left, right in pairwise(offsets):
            piece = text[left:right]
            lead = len(piece) - len(piece.lstrip())
            core = piece.strip()
            if not core:
                continue
            a = start + left + lead
            unit = self._unit(a, a + len(core), page)
            finer = _FINER.get(starts)
            if unit.n_tokens <= self._max:
                yield unit
            elif finer is not None:
                yield from self._split(unit.start, unit.end, page, finer)
            else:
                yield from self._cut_characters(unit)

    def _cut_characters(self, unit: _Unit) -> Iterator[_Unit]:
        """Last resort for an endless word: the longest prefixes within the limit."""
        start = unit.start
        while start < unit.end:
            lengths = range(1, min(unit.end - start, self._max * 16) + 1)
            fitting = bisect_right(
                lengths, self._max, key=lambda n: self._count(self._text[start : start + n])
            )
            end = start + max(fitting, 1)
            while end > start + 1 and self._count(self._text[start:end]) > self._max:
                end -= 1
            yield self._unit(start, end, unit.page)
            start = end

    def pack(self, units: Sequence[_Unit]) -> Iterator[list[_Unit]]:
        """Consecutive units as spans within the limit, of even size rather than full and rest."""
        total = sum(unit.n_tokens for unit in units)
        n_spans = max(1, -(-total // self._max))
        target = min(self._max, -(-total // n_spans) + self._max // 16)
        span: list[_Unit] = []
        for unit in units:
            if span and (self._size(span) >= target or not self._fits([*span, unit])):
                yield span
                span = []
            span.append(unit)
        if span:
            yield span

    def _size(self, span: Sequence[_Unit]) -> int:
        return sum(unit.n_tokens for unit in span)

    def _fits(self, span: Sequence[_Unit]) -> bool:
        # Tokens across a join may merge or part, so the sum only decides clear cases.
        if self._size(span) > self._max * 1.25:
            return False
        text = span[0].prefix + self._text[span[0].start : span[-1].end]
        return self._count(text) <= self._max


def _merge_small(groups: Sequence[_Group], options: ChunkingOptions) -> list[_Group]:
    """Join groups below `min_tokens` to their next sibling or first child where both fit.

    Merged groups carry their headings in the text and the common part of their paths.
    """
    merged: list[_Group] = []
    for group in groups:
        if merged:
            last = merged[-1]
            related = group.base in (last.base, last.path)
            small = min(last.n_tokens, group.n_tokens) < options.min_tokens
            if related and small and last.n_tokens + group.n_tokens <= options.max_tokens:
                last.absorb(group)
                continue
        merged.append(group)
    return merged


def _sentence_starts(text: str) -> list[int]:
    """Offsets where a sentence starts, the first one left out; line breaks part sentences too."""
    starts = [
        match.end()
        for match in _SENTENCE_END.finditer(text)
        if not _ABBREVIATION.search(text[max(0, match.start() - 12) : match.start() + 1])
    ]
    return sorted({*starts, *(match.end() for match in re.finditer(r"\n+", text))})


def _line_starts(text: str) -> list[int]:
    return [match.end() for match in re.finditer(r"\n", text)]


def _clause_starts(text: str) -> list[int]:
    return [match.end() for match in _ANY_BREAK.finditer(text)]


def _word_starts(text: str) -> list[int]:
    return [match.end() for match in _WORD_BREAK.finditer(text)]


_LINES = _line_starts
_FINER: dict[Callable[[str], list[int]], Callable[[str], list[int]]] = {
    _line_starts: _sentence_starts,
    _sentence_starts: _clause_starts,
    _clause_starts: _word_starts,
}
