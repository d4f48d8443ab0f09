"""What a Word document says outside its text: paragraph styles and the numbering of lists."""

import re
from dataclasses import dataclass, field

from retrieval.parsing.office import OfficePackage
from retrieval.parsing.safe_xml import Element, attribute, child, integer, local_name

MAX_LEVEL = 8
_MAX_CHAIN = 20
_MAX_MARKER = 40
_HEADING_NAME = re.compile(r"heading (\d)\Z")
_CONTENTS_NAME = re.compile(r"(?:toc \d|toc heading|table of figures)\Z")
_PLACEHOLDER = re.compile(r"%([1-9])")
_ROMAN = (
    (1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"),
    (40, "xl"), (10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ParagraphStyle:
    """What a paragraph inherits; `heading` is 1-6, or 0 for text, `list_id` "" for no list."""

    heading: int = 0
    is_title: bool = False
    is_contents: bool = False
    list_id: str = ""
    list_level: int = 0


@dataclass(frozen=True, slots=True)
class _Level:
    """How one level of a list is numbered."""

    number_format: str = "decimal"
    text: str = ""
    start: int = 1


@dataclass(slots=True)
class _List:
    """A list in the text: its levels and where each one's count stands."""

    levels: dict[int, _Level]
    counts: dict[int, int] = field(default_factory=dict)


def heading_level(outline: str) -> int:
    """The heading level of an outline level as Word writes it: "0" to "8", "9" for text."""
    level = integer(outline, 9)
    return min(level + 1, 6) if level <= MAX_LEVEL else 0


def list_place(properties: Element | None) -> tuple[str, int] | None:
    """List id and level in `w:pPr`; the id "0" takes a paragraph out of its style's list."""
    numbering = child(properties, "numPr")
    list_id = child(numbering, "numId")
    if list_id is None:
        return None
    level = child(numbering, "ilvl")
    depth = 0 if level is None else integer(attribute(level, "val"), high=MAX_LEVEL)
    return attribute(list_id, "val"), depth


def read_styles(package: OfficePackage, document: str) -> dict[str, ParagraphStyle]:
    """The paragraph styles by id; the default one is also under ""."""
    path = package.related(document, "styles")
    if path is None:
        return {}
    elements = {
        attribute(item, "styleId"): item
        for item in package.xml(path)
        if local_name(item) == "style" and attribute(item, "type", "paragraph") == "paragraph"
    }
    styles = {style_id: _resolve(style_id, elements) for style_id in elements}
    for style_id, item in elements.items():
        if attribute(item, "default") in ("1", "true"):
            styles[""] = styles[style_id]
    return styles


def _resolve(style_id: str, elements: dict[str, Element]) -> ParagraphStyle:
    """A style with what it inherits; the nearest style that says something wins."""
    heading: int | None = None
    place: tuple[str, int] | None = None
    is_title = is_contents = False
    current = style_id
    for _ in range(_MAX_CHAIN):
        element = elements.get(current)
        if element is None:
            break
        name_element = child(element, "name")
        name = "" if name_element is None else attribute(name_element, "val").lower()
        properties = child(element, "pPr")
        outline = child(properties, "outlineLvl")
        named = _HEADING_NAME.match(name)
        if heading is None and named:
            heading = min(max(int(named.group(1)), 1), 6)
        elif heading is None and outline is not None:
            heading = heading_level(attribute(outline, "val"))
        place = place or list_place(properties)
        is_title |= name == "title"
        is_contents |= bool(_CONTENTS_NAME.match(name))
        base = child(element, "basedOn")
        current = "" if base is None else attribute(base, "val")
    list_id, list_level = place or ("", 0)
    return ParagraphStyle(heading or 0, is_title, is_contents, list_id, list_level)


class Numbering:
    """Counts the items of a document's lists in reading order."""

    def __init__(self, package: OfficePackage, document: str) -> None:
        self._lists: dict[str, _List] = {}
        path = package.related(document, "numbering")
        if path is None:
            return
        root = package.xml(path)
        abstract = {
            attribute(item, "abstractNumId"): _List(_levels(item))
            for item in root
            if local_name(item) == "abstractNum"
        }
        for item in root:
            if local_name(item) == "num":
                kind = child(item, "abstractNumId")
                shared = abstract.get("" if kind is None else attribute(kind, "val"), _List({}))
                overrides = _levels(item)
                # Lists of one kind go on counting; an override starts a count of its own.
                own = _List({**shared.levels, **overrides}) if overrides else shared
                self._lists[attribute(item, "numId")] = own

    def marker(self, list_id: str, depth: int) -> str:
        """The next item's number as it is shown, "-" for a bullet, "" for none."""
        found = self._lists.get(list_id)
        if found is None:
            return "-"
        level = found.levels.get(depth, _Level("bullet"))
        for above in range(depth):
            found.counts.setdefault(above, found.levels.get(above, _Level()).start)
        found.counts[depth] = found.counts.get(depth, level.start - 1) + 1
        for below in range(depth + 1, MAX_LEVEL + 1):
            found.counts.pop(below, None)
        if level.number_format == "bullet":
            return "-"
        if level.number_format == "none":
            return ""

        def number(match: re.Match[str]) -> str:
            place = int(match.group(1)) - 1
            shape = found.levels.get(place, _Level()).number_format
            return _format_number(found.counts.get(place, 1), shape)

        return _PLACEHOLDER.sub(number, level.text[:_MAX_MARKER]).strip()


def _levels(element: Element) -> dict[int, _Level]:
    """The `w:lvl` of a list kind, or those that a list overrides."""
    levels: dict[int, _Level] = {}
    for item in element:
        definition = item if local_name(item) == "lvl" else child(item, "lvl")
        if local_name(item) not in ("lvl", "lvlOverride"):
            continue
        depth = integer(attribute(item, "ilvl"), high=MAX_LEVEL)
        shape, text, start = (child(definition, n) for n in ("numFmt", "lvlText", "start"))
        restart = child(item, "startOverride")
        begin = restart if restart is not None else start
        levels[depth] = _Level(
            "decimal" if shape is None else attribute(shape, "val"),
            f"%{depth + 1}." if text is None else attribute(text, "val"),
            1 if begin is None else integer(attribute(begin, "val"), 1),
        )
    return levels


def _format_number(number: int, shape: str) -> str:
    if shape in ("lowerLetter", "upperLetter") and 1 <= number <= 26 * 20:
        # Word goes on after z with aa, bb, cc.
        letters = chr(97 + (number - 1) % 26) * ((number - 1) // 26 + 1)
        return letters if shape == "lowerLetter" else letters.upper()
    if shape in ("lowerRoman", "upperRoman") and 1 <= number < 4000:
        digits = ""
        for value, sign in _ROMAN:
            digits += sign * (number // value)
            number %= value
        return digits if shape == "lowerRoman" else digits.upper()
    if shape == "decimalZero":
        return f"{number:02d}"
    return str(number)
