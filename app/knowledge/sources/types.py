"""What a source is asked for, and what it gives back: a local file under a lasting name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
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
        """Plain JSON values; `from_row` reads them back."""
        row = asdict(self)
        row["path"] = str(self.path) if self.path else None
        row["groups"] = list(self.groups) if self.groups is not None else None
        return row

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The document of a row made by `as_row`."""
        values = dict(row)
        values["path"] = Path(values["path"]) if values["path"] else None
        values["groups"] = tuple(values["groups"]) if values["groups"] is not None else None
        return cls(**values)


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
