"""What Word, PowerPoint and Excel files share: parts, their relations, and the title."""

from collections.abc import Iterator
from dataclasses import dataclass

from retrieval.errors import ParseFailed
from retrieval.parsing.archive import Archive, resolve
from retrieval.parsing.safe_xml import Element, attribute, child, local_name, parse_xml
from retrieval.parsing.text import clean, collapse

_JUNK_TITLES = frozenset(
    {"document", "powerpoint presentation", "presentation", "slide 1", "untitled", "unknown",
     "word document", "workbook"}
)  # fmt: skip
_JUNK_TITLE_ENDS = (".doc", ".docx", ".dotx", ".potx", ".ppt", ".pptx", ".xls", ".xlsx")
_MAX_SMALL_PART = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Relation:
    """A link from one part to another; `kind` is the last word of its type's address."""

    kind: str
    path: str


class OfficePackage:
    """An Office Open XML file (ECMA-376): XML parts in a ZIP archive."""

    def __init__(self, data: bytes, name: str) -> None:
        self.name = name
        self._archive = Archive(data, name)

    def main_part(self, default: str) -> str:
        """The path of the document, presentation or workbook.

        Raises:
            ParseFailed: the package has none.
        """
        found = [r.path for r in self.relations("").values() if r.kind == "officeDocument"]
        for path in (*found, default):
            if path in self._archive:
                return path
        raise ParseFailed(f"{self.name} is an incomplete Office file: it has no part {default}")

    def has(self, path: str) -> bool:
        """Whether the package holds the part."""
        return path in self._archive

    def raw(self, path: str) -> bytes:
        """The bytes of a part, for streaming; see `Archive.read` for errors."""
        return self._archive.read(path)

    def xml(self, path: str) -> Element:
        """The root element of a part; see `parse_xml` and `Archive.read` for errors."""
        return parse_xml(self._archive.read(path), f"part {collapse(path)} of {self.name}")

    def relations(self, path: str) -> dict[str, Relation]:
        """The relations of the part at `path` ("" for the package) by id, inside ones only."""
        folder, _, base = path.rpartition("/")
        relations = f"{folder}/_rels/{base}.rels".lstrip("/")
        if relations not in self._archive:
            return {}
        root = parse_xml(
            self._archive.read(relations, _MAX_SMALL_PART),
            f"part {collapse(relations)} of {self.name}",
        )
        return {
            attribute(item, "Id"): Relation(
                attribute(item, "Type").rpartition("/")[2], resolve(path, attribute(item, "Target"))
            )
            for item in root
            if attribute(item, "TargetMode") != "External"
        }

    def related(self, path: str, kind: str) -> str | None:
        """The first existing part that `path` is related to in this way."""
        paths = (r.path for r in self.relations(path).values() if r.kind == kind)
        return next((p for p in paths if p in self._archive), None)

    def title(self) -> str:
        """The title in the core properties; empty where it is missing or a placeholder."""
        path = self.related("", "core-properties") or "docProps/core.xml"
        if path not in self._archive:
            return ""
        element = child(self.xml(path), "title")
        title = "" if element is None else collapse(clean(element.text or ""))
        lowered = title.lower()
        junk = lowered in _JUNK_TITLES or lowered.endswith(_JUNK_TITLE_ENDS)
        return "" if junk else title


def visible_children(element: Element) -> Iterator[Element]:
    """Child elements; of alternatives (`mc:AlternateContent`) the first one's, so none twice."""
    for item in element:
        name = local_name(item)
        if name == "AlternateContent":
            options = (c for c in item if local_name(c) in ("Choice", "Fallback"))
            option = next(options, None)
            if option is not None:
                yield from visible_children(option)
        elif name:
            yield item
