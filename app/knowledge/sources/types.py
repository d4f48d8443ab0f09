"""What a source is asked for, and what it gives back: a local file under a lasting name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeAlias


@dataclass(frozen=True, slots=True)
class FoundDocument:
    """One document of a source.

    `external_id` is its lasting name, `name` the file name by which its format is judged, `path`
    the local file (None where there is nothing to read: deleted, or a problem). `named`: the
    caller named this very document, so that it must be readable. `groups` None leaves who may
    read it as it is. `valid_from` is an aware ISO date-time or empty. `unchanged`: the server
    said so, the file is the one of last time. `incomplete`: something behind this source could
    not be listed, so the absence of other documents proves nothing.
    """

    external_id: str
    name: str
    path: Path | None = None
    named: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None
    valid_from: str = ""
    deleted: bool = False
    unchanged: bool = False
    problem: str = ""
    incomplete: bool = False

    def as_row(self) -> dict[str, Any]:
        """Plain JSON values, what is as by default left out; `from_row` reads them back."""
        row: dict[str, Any] = {"external_id": self.external_id, "name": self.name}
        # A sync of many files stores one row of each, so the rows are kept short.
        for name, default in _DEFAULTS.items():
            value = getattr(self, name)
            if value != default:
                row[name] = value
        if self.path is not None:
            row["path"] = str(self.path)
        if self.groups is not None:
            row["groups"] = list(self.groups)
        if self.metadata:
            row["metadata"] = dict(self.metadata)
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The document of a row made by `as_row`."""
        values = dict(row)
        path, groups = values.get("path"), values.get("groups")
        values["path"] = Path(path) if path else None
        values["groups"] = tuple(groups) if groups is not None else None
        return cls(**values)


_DEFAULTS = {
    made.name: made.default_factory() if made.default_factory is not MISSING else made.default
    for made in fields(FoundDocument)
    if made.default is not MISSING or made.default_factory is not MISSING
}


@dataclass(frozen=True, slots=True)
class FilesSpec:
    """A file or a folder of this machine."""

    kind: ClassVar[str] = "files"
    path: str


@dataclass(frozen=True, slots=True)
class UrlSpec:
    """A web page, and what it links to up to `depth` steps away (0 to 3)."""

    kind: ClassVar[str] = "url"
    url: str
    depth: int = 0
    same_host: bool = True
    max_pages: int = 200


@dataclass(frozen=True, slots=True)
class SitemapSpec:
    """The pages a sitemap or sitemap index lists, on the sitemap's own host."""

    kind: ClassVar[str] = "sitemap"
    url: str
    max_pages: int = 2000


@dataclass(frozen=True, slots=True)
class GitSpec:
    """The files in the tree of a ref of a local clone or bare repository."""

    kind: ClassVar[str] = "git"
    path: str
    ref: str = "HEAD"
    subdir: str = ""


@dataclass(frozen=True, slots=True)
class RecordsSpec:
    """A JSONL file, one document a line."""

    kind: ClassVar[str] = "records"
    path: str


SourceSpec: TypeAlias = FilesSpec | UrlSpec | SitemapSpec | GitSpec | RecordsSpec
