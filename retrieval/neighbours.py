"""Hits with the chunks that stand before and after them in the same section."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from retrieval.types import Chunk, Hit

Place = tuple[str, int]
"""A version id and a chunk's ordinal in it."""

Neighbours = Callable[[Sequence[Place]], Mapping[Place, Chunk]]
"""Chunks by place, those that exist; asked once a search for all hits together."""

# Only blanks lie between neighbours of one section; a wider gap hides text of its own.
_WIDEST_GAP = 4


def widen(hits: Sequence[Hit], neighbours: Neighbours, reach: int = 1) -> list[Hit]:
    """The hits, each joined with up to `reach` chunks on either side.

    A neighbour belongs to the same version and the same headings. One that is a hit itself stays
    where it is, and one between two hits goes to the better of them. `start_char`, `end_char` and
    the pages span what was joined; the text between joined chunks is as long as in the document,
    so a place in the text is `start_char` plus its offset, but for a table's repeated header row.
    """
    if reach < 1:
        raise ValueError(f"reach must be at least 1, got {reach}")
    taken = {(hit.version_id, hit.ordinal) for hit in hits}
    wanted = {
        (hit.version_id, hit.ordinal + step)
        for hit in hits
        for step in range(-reach, reach + 1)
        if hit.ordinal + step >= 0
    }
    found = neighbours(sorted(wanted - taken)) if wanted - taken else {}
    widened = []
    for hit in hits:
        for step in (-1, 1):
            whole = hit
            for distance in range(1, reach + 1):
                place = (hit.version_id, hit.ordinal + step * distance)
                chunk = found.get(place)
                if chunk is None or place in taken or not _joins(whole, chunk, step):
                    break
                whole = _after(whole, chunk) if step > 0 else _before(whole, chunk)
                taken.add(place)
            hit = replace(whole, ordinal=hit.ordinal)
        widened.append(hit)
    return widened


def _joins(hit: Hit, chunk: Chunk, step: int) -> bool:
    if chunk.heading_path != hit.heading_path:
        return False
    gap = chunk.start_char - hit.end_char if step > 0 else hit.start_char - chunk.end_char
    if chunk.heading_path and gap > len(chunk.heading_path[-1]):
        # A second section of the same name: the gap has room for its heading.
        return False
    inside = hit.start_char <= chunk.start_char and chunk.end_char <= hit.end_char
    return gap <= _WIDEST_GAP and not inside


def _after(hit: Hit, chunk: Chunk) -> Hit:
    text = hit.text + _rest(chunk.text, chunk.start_char, chunk.end_char, hit.end_char)
    return _spanning(hit, chunk, text)


def _before(hit: Hit, chunk: Chunk) -> Hit:
    text = chunk.text + _rest(hit.text, hit.start_char, hit.end_char, chunk.end_char)
    return _spanning(hit, chunk, text)


def _rest(text: str, start: int, end: int, done: int) -> str:
    """What `text`, standing at [start, end), adds behind `done`, blanks between them included."""
    own = text[max(len(text) - (end - start), 0) :]
    if start < done:
        return own[done - start :]
    gap = start - done
    return (" " if gap == 1 and not _new_line(own) else "\n" * gap) + own


def _new_line(text: str) -> bool:
    return not text[:1].isalnum()


def _spanning(hit: Hit, chunk: Chunk, text: str) -> Hit:
    starts = [p for p in (hit.page_start, chunk.page_start) if p is not None]
    ends = [p for p in (hit.page_end, chunk.page_end) if p is not None]
    return replace(
        hit,
        text=text,
        start_char=min(hit.start_char, chunk.start_char),
        end_char=max(hit.end_char, chunk.end_char),
        page_start=min(starts, default=None),
        page_end=max(ends, default=None),
    )
