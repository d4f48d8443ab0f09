"""PowerPoint presentations (.pptx): one heading for each slide, `page` is the slide's number."""

from collections.abc import Iterator

from retrieval.errors import ParseFailed, ParseLimit
from retrieval.parsing.grid import CellBudget
from retrieval.parsing.office import OfficePackage, visible_children
from retrieval.parsing.pptx_charts import add_chart
from retrieval.parsing.safe_xml import Element, attribute, child, integer, local_name
from retrieval.parsing.text import DocumentBuilder, clean, collapse, collapse_lines, table_text
from retrieval.types import ParsedDocument

MEDIA_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
MAX_SLIDES = 5_000
MAX_LIST_LEVEL = 8

_TITLES = frozenset({"ctrTitle", "title"})
_FURNITURE = frozenset({"dt", "ftr", "hdr", "sldImg", "sldNum"})
# Text boxes have no placeholder; a placeholder without a type is a slide's content.
_BODIES = frozenset({"body", "obj"})
_BULLETS = frozenset({"buAutoNum", "buBlip", "buChar"})


def parse_pptx(data: bytes, name: str) -> ParsedDocument:
    """Parse a presentation; hidden slides, dates, footers and slide numbers are left out.

    Raises:
        EmptyDocument: no visible slide holds text.
        ParseFailed: damaged or encrypted.
        ParseLimit: more than `MAX_SLIDES` slides, or too large when unpacked.
    """
    package = OfficePackage(data, name)
    path = package.main_part("ppt/presentation.xml")
    slides = _slide_paths(package, path)
    if len(slides) > MAX_SLIDES:
        raise ParseLimit(f"{name} has {len(slides)} slides; the limit is {MAX_SLIDES}")
    builder = DocumentBuilder(name, MEDIA_TYPE)
    reader = _Reader(package, builder)
    for number, slide in enumerate(slides, start=1):
        reader.slide(slide, number)
    if not reader.has_text:
        builder = DocumentBuilder(name, MEDIA_TYPE)
    return builder.build(title=package.title() or reader.title, pages=len(slides))


def _slide_paths(package: OfficePackage, presentation: str) -> list[str]:
    """The slides' parts in the order of the show."""
    relations = package.relations(presentation)
    listed = child(package.xml(presentation), "sldIdLst")
    paths: list[str] = []
    for item in [] if listed is None else listed:
        # A slide's own number is also called id, so the namespace decides.
        key = next((v for k, v in item.items() if k.endswith("}id")), "")
        if key not in relations or not package.has(relations[key].path):
            raise ParseFailed(f"{package.name} is damaged: its slide {len(paths) + 1} is missing")
        paths.append(relations[key].path)
    return paths


class _Reader:
    """Appends slides; `title` is that of the first slide which has one."""

    def __init__(self, package: OfficePackage, builder: DocumentBuilder) -> None:
        self.title = ""
        self.has_text = False
        self._package = package
        self._builder = builder
        self._budget = CellBudget(package.name)
        self._path = ""
        self._page = 0

    def slide(self, path: str, number: int) -> None:
        root = self._package.xml(path)
        if attribute(root, "show", "1") in ("0", "false"):
            return
        self._path, self._page = path, number
        shapes = list(_shapes(child(root, "cSld", "spTree")))
        title = next((t for s in shapes if _placeholder(s) in _TITLES and (t := _flat(s))), "")
        self.title = self.title or title
        self.has_text |= bool(title)
        self._builder.add("heading", title or f"Slide {number}", level=1, page=number)
        for shape in shapes:
            self._shape(shape)
        self._notes(path)

    def _shape(self, shape: Element) -> None:
        kind = _placeholder(shape)
        if local_name(shape) == "graphicFrame":
            self._frame(shape)
        elif kind not in _TITLES and kind not in _FURNITURE:
            self._text_body(child(shape, "txBody"), is_body=kind in _BODIES)

    def _text_body(self, body: Element | None, *, is_body: bool) -> None:
        """Bulleted paragraphs as list items, the lines of a plain text box as one paragraph."""
        texts = [(p, text) for p in _paragraphs(body) if (text := _paragraph_text(p))]
        plain: list[str] = []
        counts: dict[int, int] = {}
        for paragraph, text in texts:
            properties = child(paragraph, "pPr")
            level = 0 if properties is None else _level(properties)
            bullet = _bullet(properties, is_body and len(texts) > 1)
            if not bullet:
                plain.append(text)
                continue
            self._flush(plain)
            counts[level] = counts.get(level, 0) + 1 if bullet == "buAutoNum" else 0
            marker = f"{counts[level]}." if bullet == "buAutoNum" else "-"
            indent = "  " * level
            item = f"{indent}{marker} " + text.replace("\n", f"\n{indent}  ")
            self._add("list_item", item, level)
        self._flush(plain)

    def _flush(self, lines: list[str]) -> None:
        self._add("paragraph", "\n".join(lines))
        lines.clear()

    def _add(self, kind: str, text: str, level: int = 0) -> None:
        if not text.strip():
            return
        self.has_text = True
        if kind == "list_item":
            self._builder.add("list_item", text, level=level, page=self._page)
        elif kind == "table":
            self._builder.add("table", text, page=self._page)
        else:
            self._builder.add("paragraph", text, page=self._page)

    def _frame(self, frame: Element) -> None:
        for element in frame.iter("{*}tbl", "{*}chart"):
            if local_name(element) == "tbl":
                self._add("table", clean(table_text(self._rows(element))))
            elif chart_id := attribute(element, "id"):
                relation = self._package.relations(self._path).get(chart_id)
                if relation is not None and self._package.has(relation.path):
                    for kind, text in add_chart(self._package.xml(relation.path), self._budget):
                        self._add(kind, text)

    def _rows(self, table: Element) -> list[list[str]]:
        """Cell texts; a cell merged over rows is repeated so that a row explains itself."""
        rows: list[list[str]] = []
        for row in (r for r in table if local_name(r) == "tr"):
            above = rows[-1] if rows else []
            cells: list[str] = []
            for cell in (c for c in row if local_name(c) == "tc"):
                if attribute(cell, "vMerge") in ("1", "true") and len(cells) < len(above):
                    text = above[len(cells)]
                elif attribute(cell, "hMerge") in ("1", "true"):
                    text = ""
                else:
                    text = " ".join(map(_paragraph_text, _paragraphs(child(cell, "txBody"))))
                self._budget.spend(text)
                cells.append(text)
            rows.append(cells)
        return rows

    def _notes(self, slide: str) -> None:
        path = self._package.related(slide, "notesSlide")
        if path is None:
            return
        for shape in _shapes(child(self._package.xml(path), "cSld", "spTree")):
            if _placeholder(shape) not in _FURNITURE:
                lines = map(_paragraph_text, _paragraphs(child(shape, "txBody")))
                text = "\n".join(line for line in lines if line)
                self._add("paragraph", f"Notes: {text}" if text else "")


def _shapes(tree: Element | None) -> Iterator[Element]:
    """The shapes in reading order, those inside groups too, hidden ones left out."""
    for item in [] if tree is None else visible_children(tree):
        name = local_name(item)
        if name == "grpSp":
            yield from _shapes(item)
        elif name in ("sp", "graphicFrame"):
            drawn = next((c for p in item for c in p if local_name(c) == "cNvPr"), None)
            if drawn is None or attribute(drawn, "hidden") not in ("1", "true"):
                yield item


def _placeholder(shape: Element) -> str:
    """The kind of placeholder a shape fills; "" for a text box."""
    for properties in shape:
        found = child(properties, "nvPr", "ph")
        if found is not None:
            return attribute(found, "type", "obj")
    return ""


def _paragraphs(body: Element | None) -> list[Element]:
    return [] if body is None else [p for p in body if local_name(p) == "p"]


def _paragraph_text(paragraph: Element) -> str:
    parts = []
    for item in visible_children(paragraph):
        name = local_name(item)
        if name in ("r", "fld"):
            text = child(item, "t")
            parts.append("" if text is None else text.text or "")
        elif name == "br":
            parts.append("\n")
        elif name == "m":
            parts.extend(t.text or "" for t in item.iter("{*}t"))
    return collapse_lines(clean("".join(parts)))


def _flat(shape: Element) -> str:
    return collapse(" ".join(map(_paragraph_text, _paragraphs(child(shape, "txBody")))))


def _level(properties: Element) -> int:
    return integer(attribute(properties, "lvl"), high=MAX_LIST_LEVEL)


def _bullet(properties: Element | None, inherited: bool) -> str:
    """The kind of bullet, "" for none; content placeholders inherit one from their layout."""
    names = set() if properties is None else {local_name(c) for c in properties}
    if "buNone" in names:
        return ""
    return next(iter(names & _BULLETS), "buChar" if inherited else "")
